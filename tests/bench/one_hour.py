"""The script that a good developer writes in an hour: `one_hour.py MANIFEST RESULTS`, the rest from the environment.

requests, a pool of threads, tenacity, requests-ratelimiter. What it has got is added to RESULTS as it comes, and a
second start leaves alone what is there already. It knows no ledger, no sync, no hold, and no cause.
"""

from __future__ import annotations

import csv
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from requests_ratelimiter import LimiterSession
from tenacity import retry, stop_after_attempt, wait_random_exponential

BASE_URL = os.environ["HIGHLEVEL_BASE_URL"]
CLIENT_ID = os.environ["HIGHLEVEL_CLIENT_ID"]
CLIENT_SECRET = os.environ["HIGHLEVEL_CLIENT_SECRET"]
RATE = float(os.environ["RATE"])
WORKERS = int(os.environ["WORKERS"])
COLUMNS = ["location_id", "access_token", "refresh_token", "expires_in"]

log = logging.getLogger("recover")
session = LimiterSession(per_second=RATE)
session.mount("http", HTTPAdapter(pool_maxsize=WORKERS))


@retry(stop=stop_after_attempt(5), wait=wait_random_exponential(multiplier=1, max=60), reraise=True)
def recover(location_id: str) -> dict[str, str]:
    reconnect = {"clientKey": CLIENT_ID, "clientSecret": CLIENT_SECRET, "locationId": location_id}
    answer = session.post(f"{BASE_URL}/oauth/reconnect", json=reconnect, timeout=30)
    answer.raise_for_status()
    form = {
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "grant_type": "authorization_code",
        "code": answer.json()["authorizationCode"],
        "user_type": "Location",
    }
    answer = session.post(f"{BASE_URL}/oauth/token", data=form, timeout=30)
    answer.raise_for_status()
    pair = answer.json()
    return {"location_id": location_id, **{name: pair[name] for name in COLUMNS[1:]}}


def main(manifest: Path, results: Path) -> int:
    logging.basicConfig(level=logging.WARNING)
    done: set[str] = set()
    if results.exists():
        with results.open(newline="") as file:
            done = {row["location_id"] for row in csv.DictReader(file)}
    with manifest.open(newline="") as file:
        todo = [row["location_id"] for row in csv.DictReader(file) if row["location_id"] not in done]
    failed = 0
    with results.open("a", newline="") as file, ThreadPoolExecutor(WORKERS) as pool:
        writer = csv.DictWriter(file, COLUMNS)
        if not done:
            writer.writeheader()
        futures = {pool.submit(recover, location_id): location_id for location_id in todo}
        for future in as_completed(futures):
            try:
                writer.writerow(future.result())
            except (requests.RequestException, KeyError, ValueError) as error:
                failed += 1
                log.warning("%s failed: %s", futures[future], error)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
