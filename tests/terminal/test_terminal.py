"""What people and programs see of a run: on a real terminal, in a pipe, in a log."""

from __future__ import annotations

import io
import json
import math
import os
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.core.model import Cause, Delivery, Failed, Install, InstallKey, Level, Stage, ThisRun
from jobs.core.secret import Secret
from jobs.ledger.last_use import LastUse
from jobs.outgoing.deliver.courier import News
from jobs.pace.gate import Held, Lowered
from jobs.recovery.runner import Progress
from jobs.sandbox.world import Limit, Place
from jobs.start import Plan
from jobs.terminal.deliveries import DeliveryWatch
from jobs.terminal.events import KINDS, Event
from jobs.terminal.gauge import Gauge, Standing
from jobs.terminal.header import Opening, header
from jobs.terminal.line import fit
from jobs.terminal.live import LiveScreen, console
from jobs.terminal.shell import next_command, quoted
from jobs.terminal.streams import Stream
from jobs.terminal.voice import Voice
from jobs.terminal.watch import Watch
from tests.helpers import lists
from tests.helpers.job import CLIENT_ID, PROJECT, SECRET
from tests.helpers.screen import ANSI, terminal
from tests.helpers.waiting import line_with, wait_until

listing = partial(lists.listing, width=4)

LIVE = re.compile(r"(\d+)(?:/| of )(\d+)  ?\d+ recovered")
FORCED = {
    "FORCE_COLOR": "1",
    "CLICOLOR_FORCE": "1",
    "TTY_COMPATIBLE": "1",
    "TTY_INTERACTIVE": "1",
    "TERM": "xterm-256color",
}


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


# -- on a terminal -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 120])
def test_a_person_sees_a_header_a_live_line_and_the_end(play, columns):
    bad = {f"Loc{n:04d}": Place("not_installed") for n in range(0, 40, 8)}
    job = play(bad, latency_seconds=0.02)
    manifest = job.manifest(listing(40) + "Loc0001,again\n")
    with terminal(job, "run", manifest, "--output", job.output, "--rate", "60", columns=columns) as screen:
        code, text = screen.end()
    assert code == 1
    lines = text.splitlines()
    assert lines[0] == "40 of 40 installs to try, of 1 app; 1 repeated (line 42)"
    assert lines[1] == "no install is recovered yet"
    assert lines[2] == "80 requests at 60 a second at most: about 1s, if nothing fails"
    assert lines[3] == f"files go to {job.output}; Ctrl-C stops gracefully"
    drawn = {tuple(map(int, found)) for found in LIVE.findall(text)}
    assert len(drawn) > 1
    assert {total for _, total in drawn} == {40}
    assert text.count("not_installed: sub-account Loc") == 1
    assert "not_installed  5  customer" in text
    assert lines[-1] == "exit 1: finished; some installs failed"


def test_there_is_one_live_line_and_at_the_end_none(play):
    job = play({"Loc0003": Place("not_installed")}, latency_seconds=0.1)
    emulated = pyte.Screen(80, 40)
    stream = pyte.Stream(emulated)
    most = 0
    manifest = job.manifest(listing(16))
    with terminal(job, "run", manifest, "--output", job.output, "--workers", "2") as screen:
        screen.read()
        for part in re.split(r"(?=\r\x1b\[2K)", screen.raw):
            stream.feed(part)
            most = max(most, sum(bool(LIVE.search(row)) for row in emulated.display))
    shown = [row.rstrip() for row in emulated.display]
    assert most == 1
    assert not [row for row in shown if LIVE.search(row) or "writing the reports" in row]
    assert not [row for row in shown if "\x1b" in row]
    assert "exit 1: finished; some installs failed" in shown


def test_a_hold_is_shown_with_its_end_while_nothing_else_happens(play):
    job = play(limit=Limit(10, 5, "seconds"))
    with terminal(job, "run", job.manifest(listing(8)), "--output", job.output, columns=120) as screen:
        code, text = screen.end()
    assert code == 0
    holds = re.findall(r"held back by HighLevel until \d\d:\d\d:\d\d \w+ \(429\)", text)
    assert len(holds) > 3  # Drawn each second, though no install ends.


def test_the_first_install_is_shown_to_go_alone(play):
    job = play(latency_seconds=0.4)
    with terminal(job, "run", job.manifest(listing(3)), "--output", job.output) as screen:
        assert "trying one first" in screen.end()[1]


def test_ctrl_c_is_acknowledged_and_a_second_one_stops_at_once(play):
    job = play(latency_seconds=60)
    with terminal(job, "run", job.manifest(listing(300)), "--output", job.output) as screen:
        screen.read(until=lambda text: "trying one first" in text)
        screen.type(b"\x03")
        text = screen.read(until=lambda text: "stopping gracefully: 1 in flight" in text)
        assert "Ctrl-C again to stop now" in text
        screen.type(b"\x03")
        code, text = screen.end()
    assert code == 130
    assert text.splitlines()[-1].startswith("exit 130: stopped at once")


def test_ctrl_c_once_ends_with_what_was_in_flight_recorded(play):
    job = play(latency_seconds=0.2)
    with terminal(job, "run", job.manifest(listing(300)), "--output", job.output, "--rate", "50") as screen:
        # More than the first, which went alone: others are in flight.
        screen.read(until=lambda text: any(int(done) > 3 for done, _ in LIVE.findall(text)))
        screen.type(b"\x03")
        code, text = screen.end()
    assert code == 130
    assert "stopping gracefully" in text
    assert text.splitlines()[-1].startswith("exit 130: stopped by SIGINT")


def test_no_color_takes_the_colour_and_leaves_the_bar(play):
    job = play({"Loc0003": Place("not_installed")}, latency_seconds=0.1)
    manifest = job.manifest(listing(12))
    colour = re.compile(r"\x1b\[[0-9;]*(?:3[0-7]|38;5;\d+|9[0-7])m")
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        with terminal(
            job, "run", manifest, "--output", job.output, "--force", "--workers", "2", **environment
        ) as screen:
            screen.end()
        assert bool(colour.search(screen.raw)) is coloured
        assert "━" in screen.raw


@pytest.mark.parametrize("name", ["dumb", ""])
def test_a_terminal_that_cannot_draw_gets_lines(play, name):
    job = play()
    with terminal(job, "run", job.manifest(listing(3)), "--output", job.output, TERM=name) as screen:
        code, text = screen.end()
    assert code == 0
    assert "\x1b" not in screen.raw
    assert "run_started" in text


def test_what_a_server_or_a_file_name_says_is_text_and_nothing_else():
    stream = io.StringIO()
    net = Stream(stream)
    voice = Voice(net, quiet=False, as_json=False, screen=LiveScreen(console(net)))
    voice.tell(Event.WARNING, {}, "[bold]loud[/bold] \x1b]0;title\x07\u202e :smile:")
    shown = ANSI.sub("", stream.getvalue())
    assert shown == "[bold]loud[/bold] ]0;title :smile:\n"


@pytest.mark.parametrize(
    ("state", "sent", "words"),
    [
        (Delivery.WAITING, True, "it waits for the next run"),
        (Delivery.REFUSED, True, "the app's store refused it"),
        (Delivery.REFUSED, False, "it waits for an identity that opens it"),
    ],
)
def test_the_first_pair_that_was_not_delivered_is_told_with_what_becomes_of_it(state, sent, words):
    stream = io.StringIO()
    net = Stream(stream)
    watch = DeliveryWatch(Voice(net, quiet=False, as_json=False, screen=LiveScreen(console(net))), lambda: 0.0)
    watch.happened([News("pair-1", "Loc1", state, "why", sent), News("pair-2", "Loc2", state, "why", sent)])
    assert f"Loc1 was not delivered: why; {words}." in ANSI.sub("", stream.getvalue())
    assert "Loc2" not in stream.getvalue()


def opening(**more):
    plan = Plan(3, 3, 0, recovered=more.pop("recovered", 0), ledger=more.pop("ledger", None))
    values = {"ages": ("2026-11-20T12:00:00Z", "2026-11-24T11:54:30Z"), "to_try": 3} | more
    return Opening(Path("/in.csv"), Path("/out"), plan, 1, requests_per_second=10.0, **values)


def test_the_header_tells_how_old_is_what_is_left_alone():
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert header(opening(), now)[1] == "no install is recovered yet"
    many = header(opening(recovered=4969), now)
    assert many[1] == "4,969 recovered installs are left alone (recovered 5m 30s to 4 days ago)"


def test_the_time_in_the_header_is_that_of_what_is_tried_at_the_pace():
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert (
        header(opening(to_try=5000), now)[2]
        == "10,000 requests at 10 a second at most: about 16m 40s, if nothing fails"
    )


def test_the_header_names_a_ledger_in_a_database_and_where_it_was_last_used():
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    used = LastUse("the ledger out of postgresql://db/x, schema s", "2026-11-24T11:00:00Z", "host-b")
    lines = header(opening(ledger=used), now)
    assert lines[3] == f"{used.ledger}, was last used on host-b at 2026-11-24T11:00:00Z"
    assert header(opening(), now) == [*lines[:3], lines[4]]


# -- the live line -----------------------------------------------------------------------------------------------

SOME = Standing(1234, 5000, 1203, 31, 4, 8, 2500, 9.8, 10, 723.0)


def line(standing, width):
    bar, texts = fit(standing, width)
    return bar, "".join(text for text, _ in texts)


def test_the_live_line_says_all_at_80_and_120_columns():
    bar, words = line(SOME, 79)
    assert words == " 1,234/5,000 1,203 recovered 31 failed 4 waiting 9.8/10 req/s 12m 3s to go"
    assert bar >= 4
    bar, words = line(SOME, 119)
    assert words == "  1,234 of 5,000  1,203 recovered  31 failed  4 waiting  9.8 of 10 requests/s  12m 3s to go"
    assert bar >= 20


def test_a_hold_and_the_canary_stand_in_place_of_the_time_to_go():
    held = replace(SOME, held_until=datetime(2026, 11, 24, 12, 3, 10, tzinfo=UTC), held_status=429)
    for width in (79, 119):
        assert line(held, width)[1].endswith("held back by HighLevel until 12:03:10 UTC (429)")
        assert line(replace(held, held_status=0), width)[1].endswith("no request until 12:03:10 UTC")
        assert line(replace(SOME, alone=True), width)[1].endswith("trying one first")
        assert line(replace(held, stopping=True), width)[1].endswith("stopping gracefully: 8 in flight")


def test_the_live_line_says_why_the_pace_is_lowered():
    lowered = replace(SOME, rate=3.9, lowered=Lowered(4.04, "too_many_requests"))
    assert "  3.9 of 10 requests/s (429s: 4.04)" in line(lowered, 130)[1]
    assert " 3.9/10 req/s (429s) " in line(lowered, 79)[1]
    assert " (limit) " in line(replace(lowered, lowered=Lowered(4.04, "told_limit")), 79)[1]


@given(
    st.integers(50, 300),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.booleans(),
    st.one_of(st.none(), st.floats(0, 10**7)),
)
def test_the_live_line_fits_in_every_width(width, done, failed, held, to_go):
    until = datetime(2026, 11, 24, 12, 3, 10, tzinfo=UTC) if held else None
    standing = replace(SOME, done=done, total=done + 1, failed=failed, held_until=until, to_go=to_go)
    bar, words = line(standing, width)
    assert bar + len(words) <= width


def test_the_time_to_go_is_by_the_pace_first_and_then_by_what_was_measured():
    now = 0.0
    gauge = Gauge(10, lambda: now)
    assert gauge.to_go(0, 0, 1000) == 200  # two requests each, ten a second
    requests = 0
    for second in range(1, 121):  # it proves to be half as fast, with four requests an install
        now, requests = float(second), second * 5
        gauge.note(requests)
    done = requests // 4
    assert gauge.rate(requests) == pytest.approx(5)
    assert gauge.to_go(requests, done, 1000) == pytest.approx((1000 - done) * 4 / 5, rel=0.1)


def test_nobody_can_tell_the_time_to_go_while_nothing_moves():
    now = 0.0
    gauge = Gauge(10, lambda: now)
    for second in range(1, 200):
        now = float(second)
        gauge.note(40)
    assert gauge.to_go(40, 20, 1000) is None


# -- without a terminal ------------------------------------------------------------------------------------------


def test_a_pipe_gets_no_bar_and_no_control_code_whatever_the_environment_says(play):
    job = play({"Loc0001": Place("not_installed")})
    job.environment |= FORCED
    done = job.run(job.manifest(listing(3)))
    assert "\x1b" not in done.stdout + done.stderr
    assert "━" not in done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert "run_started" in lines[0]
    assert "to_try=3" in lines[0]
    assert sum(" recovered " in line for line in lines) == 2
    assert sum(" failed " in line and "Loc0001" in line for line in lines) == 1


class Told:
    """A watch with a clock in the hand, and the log that it writes."""

    def __init__(self):
        self.now = 0.0
        self.stream = io.StringIO()
        voice = Voice(Stream(self.stream), quiet=False, as_json=True, screen=None)
        self.watch = Watch(voice, 10.0, lambda: self.now)

    def see(self, ended=(), held=None, signalled=False, lowered=None):
        progress = Progress(list(ended), 20, 100, held, 3, 2, alone=False, lowered=lowered)
        self.watch.see(progress, ThisRun(attempted=10, recovered=9, failed=1), signalled=signalled, asked=False)

    @property
    def events(self):
        return objects(self.stream.getvalue())


def test_each_minute_there_is_a_heartbeat_also_when_nothing_ends():
    told = Told()
    for second in range(0, 181, 1):
        told.now = float(second)
        told.see()
    beats = told.events
    assert [beat["event"] for beat in beats] == ["progress"] * 3
    assert beats[0].items() >= {
        "done": 10, "total": 100, "recovered": 9, "failed": 1, "waiting": 2, "in_flight": 3
    }.items()  # fmt: skip


@pytest.mark.parametrize("as_json", [True, False])
def test_a_text_in_the_log_stays_on_its_line_and_sends_no_control_character(as_json):
    stream = io.StringIO()
    Voice(Stream(stream), quiet=False, as_json=as_json, screen=None).tell(
        Event.FAILED, {"message": "one\ntwo\x1b[31m\u202ered"}
    )
    (told,) = stream.getvalue().splitlines()
    assert "one two [31m red" in told


def test_a_line_of_the_log_says_when_how_grave_and_what_then_each_field_and_quotes_what_is_not_one_word():
    stream = io.StringIO()
    fields = {"id": "LocA", "message": "it's not there", "http_status": 422, "duplicate_lines": [2, 3], "trace_id": ""}
    Voice(Stream(stream), quiet=False, as_json=False, screen=None).tell(Event.FAILED, fields)
    when, rest = stream.getvalue().split(" ", 1)
    assert datetime.fromisoformat(when).tzinfo is not None
    assert (
        rest
        == '[warning  ] failed             id=LocA message="it\'s not there" http_status=422 duplicate_lines=[2, 3]\n'
    )


def test_a_hold_and_a_signal_are_told_once():
    told = Told()
    for second in range(5):
        told.now = float(second)
        told.see(held=Held(30.0, 429), signalled=second > 2)
    assert [event["event"] for event in told.events] == ["held_back", "stopping"]


def test_a_pace_below_the_one_that_was_set_is_told_with_its_reason_and_not_with_every_step():
    told = Told()
    paces = [None, Lowered(4.0, "too_many_requests")] + [Lowered(4.0 + n / 200, "too_many_requests") for n in range(90)]
    for second, lowered in enumerate([*paces, Lowered(2.5, "told_limit"), None, *[None] * 90]):
        told.now = float(second)
        told.see(lowered=lowered)
    changes = [event for event in told.events if event["event"] == "pace_changed"]
    assert [(each["requests_per_second"], each["set"], each["reason"]) for each in changes] == [
        (4.0, 10.0, "too_many_requests"), (2.5, 10.0, "told_limit"), (10.0, 10.0, None)
    ]  # fmt: skip


@pytest.mark.parametrize("until", [math.inf, math.nan, 1e300, -1e300, 99999999999999999.0])
def test_a_hold_of_any_length_can_be_shown(until):
    told = Told()
    told.see(held=Held(until, 429))
    assert told.events[0]["event"] == "held_back"


def test_every_failure_is_in_the_log_and_only_the_first_of_a_cause_on_the_screen():
    failed = Failed(Cause.NOT_INSTALLED, Stage.RECONNECT, "no such install", 400, "t1", 1, "")
    ended = [(Install(InstallKey(CLIENT_ID, Level.SUB_ACCOUNT, f"Loc{n}"), ""), failed) for n in range(3)]
    told = Told()
    told.see(ended)
    assert [event["id"] for event in told.events] == ["Loc0", "Loc1", "Loc2"]
    stream = io.StringIO()
    net = Stream(stream)
    watch = Watch(Voice(net, quiet=False, as_json=False, screen=LiveScreen(console(net))), 10.0, lambda: 0.0)
    watch.see(Progress(ended, 3, 3, None, 0, 0, alone=False), ThisRun(), signalled=False, asked=False)
    assert stream.getvalue().count("no such install") == 1


@pytest.mark.parametrize("manner", [(), ("--quiet",)])
def test_sigusr1_asks_for_a_line_of_progress_even_of_a_quiet_run(play, manner):
    job = play(latency_seconds=0.2)
    process = job.start("run", job.manifest(listing(500)), "--output", job.output, "--workers", "1", *manner)
    wait_until(lambda: len(job.sandbox.seen) >= 4)
    process.send_signal(signal.SIGUSR1)
    line = line_with("progress", process.stderr)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert "total=500" in line
    assert process.returncode == 143


# -- the JSON log ------------------------------------------------------------------------------------------------


def test_the_json_log_begins_and_ends_with_the_run(play):
    job = play({"Loc0001": Place("not_installed")})
    done = job.run(job.manifest(listing(3)), "--log-format", "json")
    told = objects(done.stderr)
    assert {event["event"] for event in told} <= set(Event)
    assert told[0]["event"] == "run_started"
    assert told[0]["to_try"] == 3
    last = told[-1]
    assert (last["event"], last["exit_code"], last["reason"]) == ("run_finished", 1, "some_failed")
    assert last["counts"] == job.summary()["counts"]
    assert last["failures_by_cause"] == {"not_installed": 1}
    assert done.stdout.splitlines()[-1] == "exit 1: finished; some installs failed"


def test_the_level_of_the_log_hides_neither_the_start_nor_the_end(play):
    job = play()
    job.environment["RECOVERY_LOG__LEVEL"] = "error"
    done = job.run(job.manifest(listing(2)), "--log-format=json")
    assert [event["event"] for event in objects(done.stderr)] == ["run_started", "run_finished"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["missing.csv"], "missing.csv"), ([], "Missing argument"), (["x.csv", "--no-such-option"], "no-such-option")],
)
def test_the_json_log_tells_also_of_a_run_that_could_not_start(play, arguments, says):
    job = play()
    done = job("run", *arguments, "--log-format", "json")
    told = objects(done.stderr)
    assert done.returncode == 2
    assert [event["event"] for event in told] == ["run_started", "error", "run_finished"]
    assert says in told[1]["message"]
    assert (told[-1]["exit_code"], told[-1]["reason"]) == (2, "cannot_start")
    assert set(told[-1]["counts"]) == {
        "rows",
        "installs",
        "duplicates",
        "recovered",
        "failed",
        "pending",
        "delivered",
        "undelivered",
        "purged",
    }


def test_the_json_log_tells_of_a_folder_that_another_run_holds(play):
    job = play(latency_seconds=0.2)
    manifest = job.manifest(listing(500))
    process = job.start("run", manifest, "--output", job.output, "--workers", "1")
    wait_until(lambda: len(job.sandbox.seen) >= 2)
    told = objects(job.run(manifest, "--log-format", "json").stderr)
    process.kill()
    process.communicate()
    assert [event["event"] for event in told] == ["run_started", "error", "run_finished"]
    assert (told[-1]["exit_code"], told[-1]["reason"]) == (11, "held")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_bug_is_told_with_its_traceback_without_secrets_and_the_code_last(play, log_format):
    job = play()
    run = ["run", job.manifest(listing(2)), "--output", job.output, "--log-format", log_format]
    process = job.start(*run, bug={"where": "jobs.recovery.runner.work", "at": 1, "said": f"the secret is {SECRET}"})
    out, err = process.communicate(timeout=60)
    assert process.returncode == 70
    assert SECRET not in out + err
    assert "RuntimeError: the secret is ****" in err
    if log_format == "json":
        told = objects(err)
        assert [event["event"] for event in told[-2:]] == ["bug", "run_finished"]
        assert (told[-1]["exit_code"], told[-1]["counts"]["pending"]) == (70, 2)
    else:
        assert err.splitlines()[-1].startswith("exit 70: a bug")


WARNING = """
import jobs.recover, jobs.recovery.runner, sys, warnings
def work(*_):
    warnings.warn("the secret is " + {secret!r})
    yield
jobs.recovery.runner.work = work
from jobs.cli import main
main(sys.argv[1:])
"""


def test_what_a_library_prints_is_an_object_too(play):
    job = play()
    command = [sys.executable, "-c", WARNING.format(secret=SECRET), "run", str(job.manifest(listing(2)))]
    command += ["--output", str(job.output), "--log-format", "json"]
    done = subprocess.run(command, cwd=PROJECT, env=job.environment, capture_output=True, text=True, check=False)
    told = objects(done.stderr)
    assert told[0]["event"] == "run_started"
    assert any("UserWarning: the secret is ****" in event.get("message", "") for event in told)


def test_a_quiet_json_log_says_nothing_where_all_is_well_and_how_it_ended_otherwise(play):
    job = play({"Loc0001": Place("not_installed")})
    fine = job.run(job.manifest(listing(1)), "--log-format", "json", "--quiet")
    assert (fine.returncode, fine.stdout, fine.stderr) == (0, "", "")
    bad = job.run(job.manifest(listing(2)), "--log-format", "json", "--quiet")
    assert (bad.returncode, bad.stdout) == (1, "")
    assert objects(bad.stderr)[-1]["event"] == "run_finished"


def test_a_run_that_cannot_start_says_why_in_one_line_and_the_code_in_the_last(play):
    job = play()
    done = job("run", "missing.csv")
    first, last = done.stderr.splitlines()
    assert first.startswith("error: missing.csv")
    assert last == "exit 2: could not start; nothing was sent"


# -- the net -----------------------------------------------------------------------------------------------------


def test_a_secret_in_two_writes_is_still_one():
    stream = io.StringIO()
    net = Stream(stream)
    net.guard([Secret("swordfish")])
    net.write("a sword")
    net.write("fish\n")
    net.drawing.write("a sword")
    net.drawing.write("fish\n")
    assert stream.getvalue() == "a ****\na ****\n"


def test_a_long_name_of_ours_is_not_a_secret_but_what_looks_like_one_is():
    stream = io.StringIO()
    net = Stream(stream)
    name = "installs-of-the-november-incident-all-agencies-2026"
    net.spare(f"/data/{name}.csv")
    net.write(f"/data/{name}.csv {'x1' * 20}\n")
    assert stream.getvalue() == f"/data/{name}.csv ****\n"


def test_a_reader_that_is_gone_costs_messages_and_no_install(play):
    job = play()
    reader, writer = os.pipe()
    os.close(reader)
    process = job.start_on(writer, "run", job.manifest(listing(20)), "--output", job.output)
    os.close(writer)
    assert process.wait(60) == 0
    assert job.summary()["counts"]["recovered"] == 20


def fill(kind):
    """Both ends of a stream of a kind that holds no more byte, and whose reader does not read."""
    if kind == "socket":
        reader, writer = (end.detach() for end in socket.socketpair())
    else:
        reader, writer = os.pipe() if kind == "pipe" else pty.openpty()
    os.set_blocking(writer, False)
    # A terminal that was full a moment ago takes more once the system has passed on what it holds.
    while select.select([], [writer], [], 0.2)[1]:
        with suppress(BlockingIOError):
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    return reader, writer


def test_a_log_on_a_full_disk_costs_messages_and_no_install(play):
    job = play()
    with Path("/dev/full").open("w") as full:
        process = job.start_on(full.fileno(), "run", job.manifest(listing(5)), "--output", job.output)
    assert process.wait(60) == 0
    assert job.summary()["counts"]["recovered"] == 5


STREAMS = ["pipe", "terminal", "socket"]


@pytest.mark.parametrize("kind", STREAMS)
def test_a_reader_that_does_not_read_costs_messages_and_no_install(play, kind):
    job = play()
    reader, writer = fill(kind)
    job.environment["TERM"] = "dumb"
    code = job.start_on(writer, "run", job.manifest(listing(30)), "--output", job.output).wait(100)
    os.close(writer)
    os.close(reader)
    assert code == 0
    assert job.summary()["counts"]["recovered"] == 30


@pytest.mark.parametrize("kind", STREAMS)
def test_a_signal_ends_a_run_whose_reader_does_not_read(play, kind):
    job = play(latency_seconds=0.05)
    reader, writer = fill(kind)
    job.environment["TERM"] = "dumb"
    process = job.start_on(writer, "run", job.manifest(listing(3_000)), "--output", job.output)
    wait_until(lambda: job.sandbox.codes.issued)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    os.close(writer)
    os.close(reader)
    assert job.summary()["stopped_because"] == "signal"


@pytest.mark.parametrize("kind", STREAMS)
def test_a_run_that_cannot_start_waits_for_no_reader_either(play, kind):
    job = play()
    reader, writer = fill(kind)
    code = job.start_on(writer, "run", "installs.csv", "--no-such-option").wait(30)
    os.close(writer)
    os.close(reader)
    assert code == 2


WITHOUT_THREADS = """
import sys, threading
def start(thread):
    raise RuntimeError("can't start new thread")
threading.Thread.start = start
from jobs.terminal.streams import Stream
net = Stream(sys.stderr)
net.unblock()
for _ in range(1000):
    net.write("a line\\n")
net.drain(1)
print(net.lost)
"""


@pytest.mark.parametrize("kind", STREAMS)
def test_where_no_thread_can_be_started_what_is_not_read_at_once_is_lost_and_nobody_waits(kind):
    reader, writer = fill(kind)
    command = [sys.executable, "-c", WITHOUT_THREADS]
    done = subprocess.run(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=writer, text=True, timeout=30, check=False
    )
    os.close(writer)
    os.close(reader)
    assert done.stdout == "1000\n"
    read = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=30, check=False)
    assert (read.stdout, read.stderr) == ("0\n", "a line\n" * 1000)


def test_messages_that_nobody_reads_are_bounded_and_counted_and_those_that_are_read_are_whole():
    reader, writer = fill("socket")
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        net = Stream(stream)
        net.unblock()
        line = "a word " * 142 + "\n"
        for _ in range(10_000):
            net.write(line)
        kept = 10_000 - net.lost
        assert 100 < kept < 1_000
        net.drain(0)
        read = bytearray()
        with os.fdopen(reader, "rb", buffering=0) as end:
            while read.count(b"\n") < kept:
                read += end.read(65_536)
        assert read.endswith((line * kept).encode())


# -- the command to run next -------------------------------------------------------------------------------------


def test_the_command_at_the_end_is_whole_and_does_what_it_says(play):
    job = play({"Loc0001": Place("server_error")})
    job.folder /= "a folder's name, which is long enough to be broken at eighty columns"
    job.folder.mkdir()
    manifest = job.manifest(listing(3), "my installs $5 [x].csv")
    with terminal(job, "run", manifest, "--output", job.output, "--rate", "400", "--limit", "2") as screen:
        text = screen.end()[1]
    command = text.splitlines()[-2].strip()
    assert shlex.split(command)[-6:] == ["run", str(manifest), "--output", str(job.output), "--rate", "400"]
    job.sandbox.world.installs.clear()
    done = subprocess.run(
        command, shell=True, cwd="/", env=job.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert job.summary()["counts"]["recovered"] == 3


def test_what_touches_recovered_installs_or_narrowed_a_run_is_not_run_again():
    given = [("--force", ""), ("--limit", "5"), ("--cause", "x"), ("--quiet", ""), ("--workers", "3"), ("--new", "")]
    command = next_command(Path("/in.csv"), Path("/out"), given)
    assert shlex.split(command)[-7:] == ["run", "/in.csv", "--output", "/out", "--workers", "3", "--new"]


def test_the_next_command_names_the_identity_from_any_folder_except_one_that_came_by_a_descriptor():
    for given_as, again in (
        ("key.txt", str(Path.cwd() / "key.txt")),
        ("/dev/fd/63", "FILE"),
        ("/proc/self/fd/3", "FILE"),
    ):
        command = next_command(Path("/in.csv"), Path("/out"), [("--identity", given_as)])
        assert shlex.split(command)[-2:] == ["--identity", again]
        assert command == next_command(Path("/in.csv"), Path("/out"), [("--identity", given_as)], sealed=True)


@given(st.binary(min_size=1).map(os.fsdecode))
def test_no_name_brings_a_control_character_onto_the_screen(name):
    assert quoted(name).isprintable()


def test_a_name_with_control_characters_is_what_bash_reads():
    name = "a\x1b[31m\n'b\\c é"
    done = subprocess.run(["bash", "-c", f"printf %s {quoted(name)}"], capture_output=True, check=True)
    assert done.stdout.decode() == name


def test_the_readme_lists_every_event_and_no_other():
    readme = (PROJECT / "config" / "README.md").read_text(encoding="utf-8")
    section = readme.split("## The log\n", 1)[1].split("\n## ", 1)[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(Event) == set(KINDS)
