"""Signals from the first moment of a command to its last, and what they leave."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from jobs.core.errors import Exit
from jobs.recovery.stop import Stop
from jobs.sandbox.world import Place
from jobs.system.signals import Interrupted, Signals, on_signals
from tests.helpers import lists
from tests.helpers.job import PROJECT
from tests.helpers.mail import Mail
from tests.helpers.waiting import line_with, wait_until

listing = partial(lists.listing, width=7)

ENDS = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}


def mail_of(job, level="problems"):
    """What the job's runs have somebody told by mail."""
    mail = Mail(job.folder)
    job.environment |= {"RECOVERY_NOTIFY__COMMAND": mail.command, "RECOVERY_NOTIFY__LEVEL": level}
    return mail


def afresh(job, *arguments):
    """The command in a process of its own, unmeasured: coverage holds a lock in Python code, and never lets go if a signal
    raises there."""
    environment = {name: value for name, value in job.environment.items() if name != "COVERAGE_PROCESS_CONFIG"}
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", *map(str, arguments)],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def reads(process, path):
    """Whether the process has the file open."""
    try:
        return any(file.samefile(path) for file in Path(f"/proc/{process.pid}/fd").iterdir())
    except OSError:
        return False


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_while_a_long_list_is_read_ends_it_with_its_code_a_last_line_and_a_message(play, number):
    job = play()
    mail = mail_of(job, "changes")
    manifest = job.manifest(listing(100_000))
    process = job.start("run", manifest, "--output", job.output, interrupted=True)
    wait_until(lambda: reads(process, manifest))
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == ENDS[number]
    assert out.splitlines()[-1].startswith(f"exit {ENDS[number]}: stopped by {number.name}")
    assert "Traceback" not in out + err
    assert job.sandbox.seen == []
    assert not job.output.exists()
    (said,) = mail.mails
    assert f"exit {ENDS[number]}: stopped by {number.name}" in said


def test_a_signal_while_installs_are_enrolled_leaves_no_reserve_no_half_file_and_no_lock(play):
    job = play()
    mail = mail_of(job)
    process = job.start(
        "run", job.manifest(listing(100_000)), "--output", job.output, "--log-format", "json", interrupted=True
    )
    wait_until((job.output / ".reserve").exists)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # The clean-up is not interrupted by another one.
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    told = [json.loads(line) for line in err.splitlines()]
    assert [event["event"] for event in told] == ["run_started", "run_finished"]
    assert (told[-1]["exit_code"], told[-1]["reason"]) == (143, "signal")
    assert not [file.name for file in job.output.iterdir() if file.name.startswith((".reserve", ".new-"))]
    assert len(mail.mails) == 1
    assert job.run(job.manifest(listing(2))).returncode == 0


def test_a_signal_in_the_first_moments_ends_a_run_with_its_code_whenever_it_comes(play):
    job = play(latency_seconds=0.2)
    manifest = job.manifest(listing(300))
    for moment in range(12):
        process = afresh(job, "run", manifest, "--output", job.output, "--workers", "1")
        # From when it has taken its signals (its first act) to when it has begun, in twelve steps.
        wait_until(lambda process=process: takes_signals(process))
        spin(moment)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 143, (moment, out, err)
        assert out.splitlines()[-1].startswith("exit 143: stopped by SIGTERM")
        assert "Traceback" not in out + err
        assert not (job.output / ".reserve").exists()


def takes_signals(process):
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    except OSError:
        return False
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def spin(steps):
    """Some time, in the measure of what another process of Python needs to do something."""
    for _ in range(steps):
        subprocess.run([sys.executable, "-S", "-c", "pass"], check=True)


@pytest.mark.parametrize("command", ["plan", "report", "discover"])
def test_a_signal_ends_the_other_commands_with_its_code_and_without_a_traceback(play, command):
    job = play(latency_seconds=30)
    mail = mail_of(job, "always")
    long_list = job.manifest(listing(100_000))
    job.sandbox.world = replace(job.sandbox.world, latency_seconds=0)
    assert job.run(job.manifest(listing(1), "short.csv")).returncode == 0
    job.sandbox.world = replace(job.sandbox.world, latency_seconds=30)
    job.environment["HIGHLEVEL_AGENCY_ACCESS_TOKEN"] = "an-access-token"
    words = {
        "plan": ("plan", long_list, "--output", job.output),
        "report": ("report", job.output),
        "discover": ("discover", "--company", "CoOne", "--output", job.folder / "found.csv"),
    }[command]
    process = job.start(*words, interrupted=True)
    wait_until(lambda: takes_signals(process))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, (out, err)
    assert "Traceback" not in out + err
    assert (out + err).splitlines()[-1].startswith("exit 130: stopped by SIGINT")
    assert len(mail.mails) == 1  # That of the run before.


def test_whoever_asked_for_it_hears_of_a_second_signals_end_too(play):
    job = play({"Loc0000001": Place("not_installed")}, latency_seconds=0.1)
    mail = mail_of(job, "changes")
    process = job.start("run", job.manifest(listing(4)), "--output", job.output, "--workers", "1", "--rate", "400")
    wait_until(lambda: any(seen.account_id == "Loc0000001" for seen in job.sandbox.seen))
    job.slow_down(60)
    process.send_signal(signal.SIGTERM)
    line_with("stopping", process.stderr)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    (said,) = mail.mails
    assert said.splitlines()[0] == "HighLevel recovery: 1 of 4 installs are back, 1 failed, 2 pending (exit 143)"
    assert "--rate 400" in said  # The command to run next is whole.
    assert said.splitlines()[-1].startswith("exit 143: ")
    assert job.summary()["this_run"] == {
        "attempted": 2, "recovered": 1, "failed": 1, "new_failures": 1, "already_recovered": 0, "requests": job.arrived()
    }  # fmt: skip


def test_a_signal_cuts_a_notification_short_and_leaves_the_exit_code(play):
    job = play({"Loc0000001": Place("not_installed")})
    began = job.folder / "began"
    job.environment["RECOVERY_NOTIFY__COMMAND"] = shlex.join(["sh", "-c", f"touch '{began}'; exec sleep 60"])
    job.environment["RECOVERY_NOTIFY__TIMEOUT_SECONDS"] = "50"
    process = job.start("run", job.manifest(listing(2)), "--output", job.output, interrupted=True)
    wait_until(began.exists)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "a signal cut the notification short" in err
    assert out.splitlines()[-1] == "exit 1: finished; some installs failed"


def test_at_the_first_signal_the_reports_of_what_stands_are_there_while_the_rest_is_in_flight(play):
    job = play(latency_seconds=0.02)
    process = job.start("run", job.manifest(listing(6)), "--output", job.output, "--workers", "2")
    wait_until(lambda: len({seen.account_id for seen in job.sandbox.seen}) > 2)
    job.slow_down(60)
    process.send_signal(signal.SIGTERM)
    wait_until((job.output / "summary.json").exists)
    assert process.poll() is None
    process.kill()
    process.communicate()
    during = [row["status"] for row in job.results().values()]
    assert during.count("recovered") >= 1
    assert during.count("pending") >= 2
    assert job.summary()["finished_at"] is None


def test_what_was_in_flight_at_the_signal_is_in_the_reports_of_the_end(play):
    job = play(latency_seconds=0.02)
    process = job.start("run", job.manifest(listing(6)), "--output", job.output, "--workers", "1")
    wait_until(lambda: len({seen.account_id for seen in job.sandbox.seen}) > 2)
    job.slow_down(4)
    process.send_signal(signal.SIGTERM)
    wait_until((job.output / "summary.json").exists)
    during = job.summary()
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert (during["finished_at"], job.summary()["exit_code"]) == (None, 143)
    assert job.summary()["counts"]["recovered"] == during["counts"]["recovered"] + 1


def test_a_signal_whose_exception_a_library_swallowed_still_stops_what_begins_then():
    handlers = {number: signal.getsignal(number) for number in (*ENDS, signal.SIGALRM)}
    try:
        signals, stop = Signals(), Stop(time.monotonic)
        with signals.raised(earlier=False):
            with suppress(Interrupted):
                os.kill(os.getpid(), signal.SIGTERM)
            with on_signals(stop.signal, lambda _: None):
                assert (stop.because, stop.code, stop.signalled) == ("signal", Exit.SIGTERM, True)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
