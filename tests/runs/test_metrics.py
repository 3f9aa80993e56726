"""The metrics of whole runs: as a monitor sees them in the middle and at the end, whatever the end is."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from datetime import datetime

import pytest

from jobs.sandbox.world import Place
from tests.helpers.job import CLIENT_ID, SECRET, deliver_to_a_command
from tests.helpers.lists import listing
from tests.helpers.metrics import Told, node_exporter, promtool, told
from tests.helpers.waiting import line_with, wait_until

FAILS = "LocFails000000000001"
IDS = [FAILS, "LocWorks000000000001", "LocWorks000000000002"]


@pytest.fixture
def measured(play):
    """A job whose runs keep a file of metrics, and that file."""

    def start(*installs, **world):
        job = play(*installs, **world)
        file = job.folder / "metrics" / "night.prom"
        file.parent.mkdir()
        job.environment["RECOVERY_METRICS__TEXTFILE"] = str(file)
        return job, file

    return start


def seconds(moment):
    return pytest.approx(datetime.fromisoformat(moment).timestamp(), abs=0.001)


def agrees(found, summary):
    """Whether the metrics of a run that has ended are those of its summary."""
    assert (found["running"], found["last_exit_code"]) == (0, summary["exit_code"])
    assert found["last_start_timestamp_seconds"] == seconds(summary["started_at"])
    assert found["last_end_timestamp_seconds"] == seconds(summary["finished_at"])
    assert {state: number for (state,), number in found.by("installs").items()} == {
        state: summary["counts"][state] for state in ("recovered", "failed", "pending") if summary["counts"][state]
    }
    assert {cause: number for (cause, _), number in found.by("failures").items()} == summary["failures_by_cause"]
    owners = {owner for _, owner in found.by("failures")}
    assert owners == {*summary["failures_by_owner"]}
    assert found["requests"] == summary["this_run"]["requests"]
    assert found["undelivered_installs"] == summary["counts"]["undelivered"]


def halted(job, *arguments, **more):
    """A run in the middle of its work: one install has failed, and the next answer does not come."""
    process = job.start("run", job.manifest(listing(IDS)), "--output", job.output, "--workers", "1", *arguments, **more)
    wait_until(lambda: any(seen.account_id == FAILS for seen in job.sandbox.seen))
    job.slow_down(60)
    return process


def test_node_exporter_reads_that_a_run_is_under_way_and_then_how_it_ended(measured):
    job, file = measured({FAILS: Place("not_installed")}, latency_seconds=0.1)
    with node_exporter(file.parent) as scrape:
        process = job.start("run", job.manifest(listing(IDS)), "--output", job.output, "--workers", "1")
        wait_until(lambda: job.sandbox.seen)
        found = Told(scrape())
        assert (found["running"], found["last_end_timestamp_seconds"]) == (1, 0)
        assert found.by("installs") == {("pending",): 3}
        process.communicate(timeout=30)
        assert process.returncode == 1
        scraped = scrape()
        assert Told(scraped).values == told(file).values
        assert "node_textfile_scrape_error 0" in scraped
        assert f'node_textfile_mtime_seconds{{file="{file}"}}' in scraped
    agrees(told(file), job.summary())


def test_under_umask_077_a_monitor_may_read_the_file_which_holds_no_id_and_no_secret(measured, stage):
    job, file = measured({FAILS: Place("not_installed")})
    stage.job = job
    assert stage.run(job.manifest(listing(IDS)), job.output, umask=0o077)["code"] == 1
    assert file.stat().st_mode & 0o777 == 0o644
    assert [*file.parent.iterdir()] == [file]
    text = file.read_text()
    assert job.tokens
    assert not [one for one in (*IDS, CLIENT_ID, SECRET, *job.tokens, str(job.folder)) if one in text]
    assert promtool("check", "metrics", text=text) == "exit 0"


def test_the_last_success_stays_where_runs_fail_and_where_the_file_was_lost(measured):
    job, file = measured()
    manifest = job.manifest(listing(IDS))
    assert job.run(manifest).returncode == 0
    success = job.summary()["finished_at"]
    assert told(file)["last_success_timestamp_seconds"] == seconds(success)
    file.unlink()
    job.sandbox.world.installs[FAILS] = Place("not_installed")
    assert job.run(job.manifest(listing([*IDS, "LocNew00000000000001"])), "--force").returncode == 1
    found = told(file)
    assert (found["last_success_timestamp_seconds"], found["last_exit_code"]) == (seconds(success), 1)
    job.sandbox.world.installs.clear()
    assert job.run(manifest).returncode == 0
    assert told(file)["last_success_timestamp_seconds"] == seconds(job.summary()["finished_at"])
    assert job.summary()["finished_at"] > success


def test_a_run_that_was_stopped_early_says_its_code_and_until_when_to_wait(measured):
    job, file = measured(default="rate_limited")
    job.environment["RECOVERY_PACE__PATIENCE_SECONDS"] = "0.5"  # The answers ask for a second.
    assert job.run(job.manifest(listing(IDS))).returncode == 3
    found = told(file)
    agrees(found, job.summary())
    assert found["rate_limited_requests"] == found["requests"] == 1
    assert found["hold_until_timestamp_seconds"] > found["last_end_timestamp_seconds"]


def test_a_killed_run_stays_under_way_in_a_file_that_grows_old_and_the_next_run_ends_that(measured):
    job, file = measured({FAILS: Place("not_installed")})
    process = halted(job)
    process.kill()
    assert process.wait(30) == -signal.SIGKILL
    assert told(file)["running"] == 1
    job.sandbox.world = replace(job.sandbox.world, installs={}, latency_seconds=0)
    assert job.run(job.manifest(listing(IDS))).returncode == 0
    agrees(told(file), job.summary())


def test_a_second_signal_leaves_the_end_the_code_and_the_counts(measured):
    job, file = measured({FAILS: Place("not_installed")}, latency_seconds=0.05)
    process = halted(job)
    process.terminate()
    line_with("stopping", process.stderr)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
    found = told(file)
    agrees(found, job.summary())
    assert (found["last_exit_code"], found.by("installs")) == (143, {("failed",): 1, ("pending",): 2})


def test_a_second_signal_is_told_also_where_the_reports_cannot_be_made(measured):
    job, file = measured({FAILS: Place("not_installed")}, latency_seconds=0.05)
    process = halted(job)
    (job.output / "ledger.sqlite3").rename(job.folder / "away")
    process.terminate()
    line_with("stopping", process.stderr)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert (told(file)["running"], told(file)["last_exit_code"]) == (0, 143)


def test_a_run_that_cannot_start_is_told_by_its_code_and_one_that_is_held_leaves_the_file_alone(measured):
    job, file = measured({FAILS: Place("not_installed")})
    process = halted(job)
    before = file.read_bytes()
    assert job.run(job.folder / "installs.csv").returncode == 11
    assert file.read_bytes() == before
    assert job.run(job.folder / "gone.csv").returncode == 2
    found = told(file)
    assert (found["running"], found["last_exit_code"]) == (1, 2)  # The other run is still under way.
    process.kill()
    process.wait(30)
    job.environment["RECOVERY_PACE__WORKERS"] = "many"
    assert job("run", job.folder / "installs.csv", "--output", job.folder / "other").returncode == 2
    assert told(file).values == found.values  # It would have been a run of another list.


def test_a_file_that_cannot_be_written_is_one_warning_and_no_other_exit_code(measured):
    job, file = measured()
    file.mkdir()
    done = job.run(job.manifest(listing(IDS)), "--log-format", "json")
    assert done.returncode == 0
    warnings = [line["message"] for line in map(json.loads, done.stderr.splitlines()) if line["event"] == "warning"]
    assert warnings == [f"metrics.textfile: {file} cannot be written (Is a directory); the run goes on without it"]


def test_what_is_delivered_or_purged_after_a_run_waits_no_more(measured):
    job, file = measured()
    job.environment["RECOVERY_DELIVER__COMMAND"] = json.dumps(["false"])
    assert job.run(job.manifest(listing(IDS))).returncode == 1
    before = told(file)
    assert before["undelivered_installs"] == 3
    deliver_to_a_command(job)
    assert job("deliver", job.output, "--id", FAILS).returncode == 1
    assert told(file).values == before.values | {"undelivered_installs": 2.0}
    assert job("purge", job.output, "--all", "--yes").returncode == 0
    assert told(file).values == before.values | {"undelivered_installs": 0.0}


def test_what_is_done_after_a_kill_or_a_refused_start_leaves_what_was_told_of_that(measured):
    job, file = measured({FAILS: Place("not_installed")})
    process = halted(job)
    process.kill()
    process.wait(30)
    assert job("run", job.folder / "installs.csv", "--output", job.output, "--sheet", "x").returncode == 2
    before = told(file)
    assert (before["running"], before["last_exit_code"]) == (1, 2)
    assert job("purge", job.output, "--all", "--yes").returncode == 0
    assert told(file).values == before.values


def test_what_is_purged_of_an_older_list_leaves_the_file_of_this_one(measured):
    job, file = measured()
    manifest = job.manifest(listing(IDS))
    assert job("run", manifest, "--output", job.folder / "old").returncode == 0
    job.environment["RECOVERY_DELIVER__COMMAND"] = json.dumps(["false"])
    assert job.run(manifest, "--force").returncode == 1
    before = file.read_bytes()
    assert told(file)["undelivered_installs"] == 3
    assert job("purge", job.folder / "old", "--all", "--yes").returncode == 0
    assert file.read_bytes() == before
