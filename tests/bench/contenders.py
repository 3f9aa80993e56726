"""Who is measured: how each is called, what it needs on the machine, and where it leaves its pairs."""

from __future__ import annotations

import csv
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
CLIENT_ID, SECRET = "66c8a1b2c3d4e5f6a7b8c9d0-m0bench", "bench-client-secret"


@dataclass(frozen=True)
class Load:
    """What a contender is asked to do: requests a second, workers."""

    rate: float
    workers: int


@dataclass(frozen=True)
class Contender:
    """`needs` are programs and modules; `command` makes the arguments for a manifest and a folder; `settings` are variables
    that it alone is told.
    """

    name: str
    needs: tuple[str, ...]
    command: Callable[[Path, Path, Load], list[str]]
    results: str
    settings: Mapping[str, str] = field(default_factory=dict)

    def missing(self) -> list[str]:
        """What the machine lacks for it."""
        return [need for need in self.needs if not shutil.which(need) and not _module(need)]

    def pairs(self, folder: Path) -> dict[str, str]:
        """The access token that it left for each account, or its sealed pair."""
        path = folder / self.results
        if not path.exists():
            return {}
        csv.field_size_limit(sys.maxsize)
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        left = {row["location_id"]: row["access_token"] or row.get("sealed", "") for row in rows}
        return {account: text for account, text in left.items() if text}


def _module(name: str) -> bool:
    return name.isidentifier() and importlib.util.find_spec(name) is not None


def _job(manifest: Path, folder: Path, load: Load) -> list[str]:
    options = ["--output", str(folder / "out"), "--rate", str(load.rate), "--workers", str(load.workers)]
    return [str(Path(sys.executable).with_name("recover")), "run", str(manifest), *options]


def _one_hour(manifest: Path, folder: Path, load: Load) -> list[str]:
    return [sys.executable, str(HERE / "one_hour.py"), str(manifest), str(folder / "results.csv")]


def _shell(script: str) -> Callable[[Path, Path, Load], list[str]]:
    return lambda manifest, folder, load: ["bash", str(HERE / script), str(manifest), str(folder / "results.csv")]


OURS, ONE_HOUR = "this job", "one-hour script"
CONTENDERS = (
    Contender(OURS, (), _job, "out/results.csv"),
    Contender(ONE_HOUR, ("requests_ratelimiter", "tenacity"), _one_hour, "results.csv"),
    Contender("GNU parallel", ("parallel", "curl", "jq"), _shell("parallel.sh"), "results.csv"),
    Contender("shell loop", ("curl", "jq"), _shell("shell_loop.sh"), "results.csv"),
)


def environment(base_url: str, folder: Path, load: Load) -> dict[str, str]:
    """What all of them are told; a request is half an install, so the shells pause by these."""
    fast = load.rate >= 1_000
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder),
        "HIGHLEVEL_BASE_URL": base_url,
        "HIGHLEVEL_CLIENT_ID": CLIENT_ID,
        "HIGHLEVEL_CLIENT_SECRET": SECRET,
        "RATE": str(load.rate),
        "WORKERS": str(load.workers),
        "PAUSE": "0" if fast else f"{1 / load.rate:.4f}",
        "DELAY": "0" if fast else f"{2 / load.rate:.4f}",
    }
