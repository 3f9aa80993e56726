"""Two at once: one folder by any path, one app, a holder that was killed, reports during a run."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace

import pytest

from jobs.core.errors import UserError
from jobs.ledger.opening import open_ledger
from jobs.system.lock_holders import Patience
from jobs.system.locks import alone, app_lock, hold, patience_for_reports
from tests.helpers.job import CLIENT_ID, pairs
from tests.helpers.lists import listing
from tests.helpers.waiting import wait_until

WAITS = "is writing the reports"


@pytest.fixture
def holding(play):
    """A job whose run goes on and on, in a process of its own."""
    job = play(latency_seconds=0.02)
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "40"
    manifest = job.manifest(listing(2_000))
    process = job.start("run", manifest, "--output", job.output)
    wait_until(lambda: len(job.sandbox.codes.issued) > 1)
    yield job, manifest, process
    process.kill()
    process.communicate()


def test_the_same_folder_by_any_spelling_and_the_same_app_from_any_folder_are_held(holding):
    job, manifest, process = holding
    (job.folder / "link").symlink_to(job.output)
    (job.folder / "deep").mkdir()
    spellings = [job.output, job.folder / "link", job.folder / "deep" / ".." / "out", f"{job.output}//./"]
    other_app = job.environment | {
        "HIGHLEVEL_CLIENT_ID": "another-app",
        "XDG_STATE_HOME": str(job.folder / "elsewhere"),
    }
    own = job.environment
    for spelling in spellings:
        job.environment = other_app
        done = job("run", manifest, "--output", spelling)
        assert done.returncode == 11, done.stderr
        assert str(job.output) in done.stderr
        assert f"is held by process {process.pid} on {socket.gethostname()}: the run on {manifest}" in done.stderr
    job.environment = own
    for base_url in (job.sandbox.url, job.sandbox.url + "/", job.sandbox.url.upper().replace("HTTP", "http")):
        job.environment = own | {"HIGHLEVEL_BASE_URL": base_url}
        done = job("run", manifest, "--output", job.folder / "other")
        assert done.returncode == 11, done.stderr
        assert f"is held by process {process.pid} on {socket.gethostname()}: the run on {manifest}" in done.stderr


def test_a_run_that_another_one_of_the_app_holds_back_neither_makes_nor_upgrades_a_ledger(play):
    job = play()
    manifest = job.manifest(listing(1))
    job.run(manifest)
    with closing(sqlite3.connect(job.output / "ledger.sqlite3")) as ledger:
        ledger.execute("PRAGMA user_version = 4")
    with hold(app_lock(job.environment, job.sandbox.url, CLIENT_ID), "the app", "a run"):
        assert job.run(manifest).returncode == 11
        assert job("run", manifest, "--output", job.folder / "new").returncode == 11
    with closing(sqlite3.connect(job.output / "ledger.sqlite3")) as ledger:
        assert ledger.execute("PRAGMA user_version").fetchone() == (4,)
    assert not (job.folder / "new" / "ledger.sqlite3").exists()


def test_a_holder_that_was_killed_blocks_nobody(holding):
    job, manifest, process = holding
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert job.run(manifest, "--limit", "1").returncode == 4


def test_a_lock_that_is_a_link_is_refused_and_what_it_points_to_stays_as_it_is(stage):
    job = stage.job
    job.output.mkdir()
    (job.folder / "precious").write_text("precious")
    (job.output / ".lock").symlink_to(job.folder / "precious")
    assert stage.run(job.manifest(listing(1)), job.output)["code"] == 2
    assert (job.folder / "precious").read_text() == "precious"
    assert "Traceback" not in stage.said()


def test_a_report_that_waited_for_the_end_of_a_run_says_how_that_ended(stage, play):
    job = stage.job
    assert job.run(job.manifest(listing(2)), "--output", job.output).returncode == 0
    ledger = open_ledger(job.output, "")
    ended = ledger.last_run()
    ledger.save_run(replace(ended, finished_at="", exit_code=None))
    with alone(job.output, patience_for_reports(print)):
        stage.start("report", job.output)
        wait_until(lambda: WAITS in stage.heard())  # It could read by now what it should not have read yet.
        ledger.save_run(ended)
    assert stage.end()["code"] == 0
    assert job.summary()["exit_code"] == 0
    ledger.close()


def test_reports_made_again_during_a_run_are_whole_and_the_last_word_is_the_runs(stage, play):
    job = stage.job
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "150"
    process = job.start("run", job.manifest(listing(150)), "--output", job.output)
    wait_until(lambda: len(pairs(job.output)) > 3)
    seen, over = [], threading.Event()

    def read():
        while not over.is_set():
            if (job.output / "results.csv").exists():
                rows = job.table("results.csv")
                seen.append((len(rows), sum(row["status"] == "recovered" for row in rows)))
            time.sleep(0.01)

    reader = threading.Thread(target=read)
    reader.start()
    reports = 0
    while process.poll() is None:
        stage.start("report", job.output)
        assert stage.end()["code"] == 0, stage.said()
        reports += 1
    over.set()
    reader.join()
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert reports >= 2
    assert {rows for rows, _ in seen} == {150}
    recovered = [count for _, count in seen]
    assert recovered == sorted(recovered)
    assert len(set(recovered)) >= 2
    assert {row["status"] for row in job.table("results.csv")} == {"recovered"}
    assert job.summary()["exit_code"] == 0


def test_a_run_that_begins_while_reports_are_made_waits_for_them_and_removes_no_file_of_theirs(stage):
    job = stage.job
    manifest = job.manifest(listing(3))
    assert stage.run(manifest, job.output)["code"] == 0
    folder = os.open(job.output, os.O_RDONLY)
    import fcntl

    fcntl.flock(folder, fcntl.LOCK_EX)  # as a report that is being made holds it
    half = job.output / ".new-results.csv-of-another"
    half.write_text("half")
    stage.start("run", manifest, "--output", job.output)
    wait_until(lambda: WAITS in stage.heard())
    assert half.exists()
    os.close(folder)
    assert stage.end()["code"] == 0
    assert not half.exists()


LOCK = """
import fcntl, os, sys
handle = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(handle, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def locked():
    """`locked(path)`: a process that holds the lock of a file or folder, and says nothing of itself there."""
    processes = []

    def lock(path):
        command = [sys.executable, "-c", LOCK, path]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout.readline() == "held\n"
        return processes[-1]

    yield lock
    for process in processes:
        process.kill()
        process.communicate()


def test_what_a_killed_holder_left_written_in_a_lock_is_never_shown_for_the_one_that_holds_it(stage, locked):
    job = stage.job
    job.output.mkdir(mode=0o700)
    (job.output / ".lock").write_text(
        f"process 4194399 on {socket.gethostname()}: the run on old.csv that began in May"
    )
    process = locked(job.output / ".lock")
    assert stage.run(job.manifest(listing(1)), job.output)["code"] == 11
    said = stage.said()
    assert f"(process {process.pid}): wait for it to end" in said
    assert "old.csv" not in said
    assert job.sandbox.seen == []


def test_a_wait_for_another_process_that_writes_the_reports_is_said_with_who_it_is(stage, locked):
    job = stage.job
    manifest = job.manifest(listing(1))
    assert stage.run(manifest, job.output)["code"] == 0
    process = locked(job.output)
    stage.said()
    stage.start("report", job.output)
    words = f"(process {process.pid}) is writing the reports in {job.output}"
    wait_until(lambda: words in stage.heard())
    process.kill()
    assert stage.end()["code"] == 0


def test_a_wait_for_another_process_that_writes_the_reports_is_given_up(tmp_path, locked):
    process, said = locked(tmp_path), []
    words = rf"\(process {process.pid}\) is writing the reports"
    with pytest.raises(UserError, match=words), alone(tmp_path, Patience(0.3, 0.1, said.append)):
        pytest.fail("it is not alone")
    assert len(said) == 1


@pytest.mark.parametrize("relative", ["state", "./state", ""])
def test_a_state_folder_that_is_not_absolute_is_ignored_so_that_all_runs_find_the_same_lock(
    tmp_path, monkeypatch, relative
):
    monkeypatch.chdir(tmp_path)
    found = app_lock({"XDG_STATE_HOME": relative, "HOME": str(tmp_path / "home")}, "https://api.example.test", "app-1")
    assert found.parent == tmp_path / "home" / ".local" / "state" / "highlevel-recovery"
    assert not (tmp_path / "state").exists()
