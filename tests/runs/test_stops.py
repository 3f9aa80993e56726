"""Whole runs that stop, wait or go on with less, since going on as before makes no sense."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest

from jobs.sandbox.world import Place
from tests.helpers import lists
from tests.helpers.bad_server import FINE, KEEP, RESET, Bad, good_body, http, serving
from tests.helpers.job import PROJECT
from tests.helpers.waiting import wait_until

listing = partial(lists.listing, width=3)

GONE_AWAY = Bad(lambda good: [], None, RESET)
DENIED = Bad(lambda good: [http(b"error code: 1010", "403 Forbidden")], None, KEEP)


def test_a_firewalls_page_for_everybody_stops_the_run_after_five(play):
    job = play()
    with serving(lambda number, request: (DENIED, b"")) as server:
        job.environment["HIGHLEVEL_BASE_URL"] = server.url
        done = job.run(job.manifest(listing(60)))
    summary = job.summary()
    assert (done.returncode, summary["stopped_because"]) == (3, "refused")
    assert "error code: 1010" in done.stdout.splitlines()[-1]
    assert (len(server.requests), summary["counts"]["failed"], summary["counts"]["pending"]) == (5, 5, 55)


def test_a_refusal_of_every_exchange_stops_the_run_though_codes_are_given(play):
    job = play(default="request_refused")
    done = job.run(job.manifest(listing(60)))
    assert (done.returncode, job.summary()["stopped_because"]) == (3, "refused")
    assert job.summary()["counts"]["pending"] == 55
    assert job.summary()["this_run"]["requests"] == 10


def test_refusals_between_installs_that_come_back_stop_nothing(play):
    job = play({f"Loc{number:03}": Place("request_refused") for number in range(1, 40) if number % 4})
    done = job.run(job.manifest(listing(40)), "--workers", "1")
    assert done.returncode == 1
    assert job.summary()["counts"]["pending"] == 0


def test_a_network_that_is_away_under_way_costs_no_install_a_try(play):
    job = play()
    job.environment |= {"RECOVERY_RETRY__ATTEMPTS": "1", "RECOVERY_RETRY__MAX_WAIT_SECONDS": "0.1"}
    with serving(lambda number, request: (GONE_AWAY if 20 < number <= 50 else FINE, good_body(request))) as server:
        job.environment["HIGHLEVEL_BASE_URL"] = server.url
        done = job.run(job.manifest(listing(40)), "--workers", "3")
    results = job.results().values()
    # An exchange that was lost in the moment when the network went has cost its code, and is a try.
    assert sum(row["status"] != "recovered" for row in results) <= 3
    assert {row["attempts"] for row in results} == {"1"}
    assert done.returncode in {0, 1}
    assert done.stderr.count("HighLevel cannot be reached") == done.stderr.count("HighLevel answers again") == 1


def test_a_network_that_stays_away_is_an_outage_when_the_patience_is_over(play):
    job = play()
    job.environment |= {"RECOVERY_STOP__NETWORK_PATIENCE_SECONDS": "0.5"}
    with serving(lambda number, request: (GONE_AWAY if number > 20 else FINE, good_body(request))) as server:
        job.environment["HIGHLEVEL_BASE_URL"] = server.url
        done = job.run(job.manifest(listing(60)), "--workers", "3")
    assert (done.returncode, job.summary()["stopped_because"]) == (3, "outage")
    assert job.summary()["counts"]["pending"] >= 45


def test_a_run_that_has_tried_all_does_not_stop_early_whatever_it_met(play):
    job = play({f"Loc{number:03}": Place("server_error") for number in range(1, 11)})
    done = job.run(job.manifest(listing(11)))
    assert (done.returncode, job.summary()["stopped_because"]) == (1, None)
    assert job.summary()["counts"]["failed"] == 10


def cpu_seconds(process):
    """The CPU time of a process so far, all its threads."""
    parts = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def rests(process):
    """Whether a process has nothing to do just now."""
    before = cpu_seconds(process)
    time.sleep(0.2)
    return cpu_seconds(process) == before


@pytest.mark.skipif(sys.platform != "linux", reason="the CPU time of a process is read from /proc")
def test_a_hold_costs_under_a_hundredth_of_a_core(play):
    job = play()
    held = Bad(lambda good: [http(b"{}", "429 Too Many", "Retry-After: 5\r\n")], None, KEEP)
    with serving(lambda number, request: (held if number == 11 else FINE, good_body(request))) as server:
        job.environment["HIGHLEVEL_BASE_URL"] = server.url
        process = job.start("run", job.manifest(listing(40)), "--output", job.output)
        wait_until(lambda: len(server.requests) >= 11)
        wait_until(lambda: rests(process))
        before, requests = cpu_seconds(process), len(server.requests)
        time.sleep(3)  # This is what is measured.
        used, later = cpu_seconds(process) - before, len(server.requests)
        process.communicate(timeout=60)
    assert later == requests  # It was measured within the hold.
    assert used <= 0.03
    assert process.returncode == 0


@pytest.fixture
def few_threads(play):
    """`start(n)` starts a run of a user of its own, who may have that many processes and threads."""
    if os.geteuid() or not shutil.which("prlimit") or not shutil.which("setpriv"):
        pytest.skip("only root can become a user with few threads, by prlimit and setpriv")
    job, user = play(), 100_000 + os.getpid()  # Threads are counted for each user, over all that runs.
    # Other test runs close the folders of pytest to other users.
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        os.chown(home, user, user)
        manifest = home / "installs.csv"
        manifest.write_text(listing(20))
        manifest.chmod(0o644)
        job.environment |= {"XDG_STATE_HOME": name, "HOME": name, "PYTHONDONTWRITEBYTECODE": "1"}

        def start(threads):
            limited = (
                "prlimit",
                f"--nproc={threads}",
                "setpriv",
                f"--reuid={user}",
                f"--regid={user}",
                "--clear-groups",
            )
            return subprocess.Popen(
                [*limited, sys.executable, "-m", "jobs", "run", manifest, "--output", home / "out"],
                cwd=PROJECT, env=job.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip

        yield job, start, home / "out"


@pytest.mark.parametrize("threads", [4, 6])
def test_a_machine_with_few_threads_goes_on_with_those_there_are(few_threads, threads):
    _, start, output = few_threads
    out, err = (process := start(threads)).communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads((output / "summary.json").read_text())["counts"]["recovered"] == 20
    assert "20 of 20 installs are back" in out


def test_a_machine_without_any_thread_is_said_and_all_stays_pending(few_threads):
    job, start, output = few_threads
    out, _ = (process := start(1)).communicate(timeout=60)
    assert process.returncode == 3
    assert "cannot start a single thread" in out.splitlines()[-1]
    assert json.loads((output / "summary.json").read_text())["counts"]["pending"] == 20
    assert not job.sandbox.seen


def test_a_machine_with_few_threads_is_stopped_by_a_signal_like_any_other(few_threads):
    job, start, output = few_threads
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "1"
    process = start(5)
    wait_until(lambda: len(job.sandbox.seen) >= 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    counts = json.loads((output / "summary.json").read_text())["counts"]
    assert counts["recovered"] + counts["pending"] == 20
