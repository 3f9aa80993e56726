"""The target that is a command: a real process that reads slowly or not at all, floods, ends when it likes, and is killed."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from jobs.config.settings import DeliverSettings, Words
from jobs.core.errors import UserError
from jobs.outgoing.deliver import opening
from jobs.outgoing.deliver.command import CommandCourier
from tests.helpers.deliveries import most_memory, played, waiting
from tests.helpers.waiting import wait_until

BEGIN = "import json, os, sys, time, pathlib\nhere = pathlib.Path.cwd()\n"
ECHO = """
for line in sys.stdin:
    print(json.dumps({"pair_id": json.loads(line)["pair_id"]}), flush=True)
"""


def courier_of(waits, folder, program, seconds=20, clock=time.monotonic):
    (folder / "program.py").write_text(BEGIN + program)
    command = (sys.executable, str(folder / "program.py"))
    return CommandCourier(waits.store, command, folder, seconds, clock)


def test_each_pair_is_a_json_object_a_line_and_an_answer_a_line_says_that_it_is_stored(tmp_path):
    keeps = "got = (here / 'got').open('w')\n" + ECHO.replace("    print", "    got.write(line)\n    print")
    with waiting(tmp_path, 3) as waits:
        courier = courier_of(waits, tmp_path, keeps)
        news = played(courier)
        assert waits.count("delivered") == 3
    got = [json.loads(line) for line in (tmp_path / "got").read_text().splitlines()]
    assert [one["location_id"] for one in got] == [f"Loc{number:017}" for number in range(3)]
    assert got[0]["refresh_token"] == "refresh+0/0"
    assert got[0]["columns"] == {"plan": "gold"}
    assert got[0]["company_id"] is None
    assert [one.pair_id for one in news] == [one["pair_id"] for one in got]
    report = courier.report
    assert (report.target, report.attempted, report.delivered, report.failed) == ("command", 3, 3, 0)
    assert report.rested_because is None


def test_answers_may_come_all_at_the_end_and_in_any_order(tmp_path):
    at_the_end = """
ids = [json.loads(line)["pair_id"] for line in sys.stdin]
for one in reversed(ids):
    print(json.dumps({"pair_id": one}))
"""
    with waiting(tmp_path, 700) as waits:
        courier = courier_of(waits, tmp_path, at_the_end)
        played(courier)
        assert waits.count("delivered") == 700
    assert courier.report.delivered == 700


def test_an_error_is_a_no_whose_words_are_shown_without_the_pairs_secrets(tmp_path):
    refuses = """
for line in sys.stdin:
    pair = json.loads(line)
    error = f"the row of {pair['access_token']} is locked\\n\\x1b[2Jby {'x' * 500}"
    print(json.dumps({"pair_id": pair["pair_id"], "error": error}), flush=True)
"""
    with waiting(tmp_path, 1) as waits:
        courier = courier_of(waits, tmp_path, refuses)
        (news,) = played(courier)
        ((state, why, _),) = waits.states().values()
    assert state == "refused"
    assert why == news.why
    assert re.fullmatch(r"the row of \*{4} is locked \[2Jby .{,200}", why)
    assert len(why) <= 200
    assert (courier.report.delivered, courier.report.failed) == (0, 1)


@pytest.mark.parametrize("none", ["null", "false"])
def test_an_empty_error_is_a_yes(tmp_path, none):
    program = ECHO.replace('["pair_id"]}', f'["pair_id"], "error": json.loads("{none}")}}')
    with waiting(tmp_path, 1) as waits:
        played(courier_of(waits, tmp_path, program))
        assert waits.count("delivered") == 1


def test_what_it_has_not_acknowledged_when_it_ends_early_waits_on_and_delivery_rests(tmp_path):
    ends_early = """
for number, line in enumerate(sys.stdin):
    print(json.dumps({"pair_id": json.loads(line)["pair_id"]}), flush=True)
    if number == 2:
        sys.exit(3)
"""
    with waiting(tmp_path, 500) as waits:
        courier = courier_of(waits, tmp_path, ends_early)
        news = played(courier)
        assert waits.count("delivered") == 3
        assert waits.count("waiting") == 497
        assert [one.why for one in news if not one.pair_id] == [courier.report.rested_because]
        assert "ended with 3, and has not acknowledged" in courier.report.rested_because
        waits.take_over()
        again = courier_of(waits, tmp_path, ECHO)
        played(again)
        assert waits.count("delivered") == 500
        assert again.report.delivered == 497


def test_one_process_serves_a_whole_run_and_is_started_when_the_first_pair_is_there(tmp_path):
    marks = "(here / f'started-{os.getpid()}').touch()\n" + ECHO
    with waiting(tmp_path, 2) as waits:
        waits.execute("update deliveries set turn = 'try'")
        courier = courier_of(waits, tmp_path, marks)
        courier.start()
        assert not courier.ended(1)
        assert not [*tmp_path.glob("started-*")]
        waits.execute("update deliveries set turn = '' where install = 2")
        courier.nudge()
        wait_until(lambda: waits.count("delivered") == 1)
        waits.execute("update deliveries set turn = ''")
        courier.nudge()
        wait_until(lambda: waits.count("delivered") == 2)
        assert len([*tmp_path.glob("started-*")]) == 1
        courier.finish()
        assert courier.ended(20)
    assert courier.report.rested_because is None


def test_no_process_is_started_if_nothing_waits(tmp_path):
    with waiting(tmp_path, 0) as waits:
        courier = courier_of(waits, tmp_path, "(here / 'started').touch()")
        assert not played(courier)
    assert not (tmp_path / "started").exists()


def test_a_command_that_cannot_be_run_lets_delivery_rest(tmp_path):
    with waiting(tmp_path, 1) as waits:
        courier = CommandCourier(waits.store, ("./no-such-program",), tmp_path, 5)
        played(courier)
        assert waits.count("waiting") == 1
    assert "./no-such-program cannot be run (No such file or directory)" in courier.report.rested_because


@contextmanager
def child_of_the_program(folder):
    """Whether the child process that the program wrote down is still there."""

    def lives():
        with suppress(ProcessLookupError, FileNotFoundError, ValueError):  # Or it is not written down yet.
            pid = int((folder / "child").read_text())
            return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return False

    yield lives
    wait_until(lambda: not lives())  # The system takes a moment to end what was killed.


def test_a_command_that_neither_reads_nor_answers_is_killed_with_its_children(tmp_path):
    hangs = """
import subprocess
child = subprocess.Popen(["sleep", "600"])
(here / "child").write_text(str(child.pid))
time.sleep(600)
"""
    with child_of_the_program(tmp_path) as lives, waiting(tmp_path, 300) as waits:
        courier = courier_of(waits, tmp_path, hangs, seconds=1)
        courier.start()
        wait_until(lives)
        courier.finish()
        assert courier.ended(30)
        assert waits.count("waiting") == 300
    assert "neither read nor answered for 1 s and was killed" in courier.report.rested_because
    assert courier.report.failed == courier.report.attempted > 0


@pytest.mark.parametrize(
    ("count", "piece"), [(300, 4096), (8, 700)], ids=["much in pieces", "what a pipe holds at once"]
)
def test_a_command_that_reads_slowly_is_waited_for_as_long_as_something_moves(tmp_path, count, piece):
    slow = f"""
text = b""
while piece := os.read(0, {piece}):
    text += piece
    time.sleep({3 * piece / (count * 700)})
for line in text.splitlines():
    print(json.dumps({{"pair_id": json.loads(line)["pair_id"]}}))
"""
    with waiting(tmp_path, count) as waits:  # It takes three seconds.
        courier = courier_of(waits, tmp_path, slow, seconds=1.5)
        played(courier)
        assert waits.count("delivered") == count
    assert courier.report.rested_because is None


def test_everything_that_it_said_before_it_ended_counts(tmp_path):
    says_much = """
import fcntl
fcntl.fcntl(1, 1031, 1 << 20)  # Its pipe holds a megabyte.
ids = [json.loads(line)["pair_id"] for line in sys.stdin]
os.write(1, "\\n".join(json.dumps({"pair_id": one, "more": "x" * 300}) for one in ids).encode())  # No newline at the end.
"""
    with waiting(tmp_path, 1_000) as waits:
        courier = courier_of(waits, tmp_path, says_much)
        played(courier)
        assert waits.count("delivered") == 1_000


def test_an_answer_to_a_pair_that_it_was_not_given_does_not_count(tmp_path):
    guesses = """
for line in sys.stdin:
    one = json.loads(line)["pair_id"]
    print(json.dumps({"pair_id": one.replace("-1-", "-2-")}))
    print(json.dumps({"pair_id": one}), flush=True)
"""
    with waiting(tmp_path, 2) as waits:
        waits.execute("update deliveries set turn = 'try' where install = 2")
        courier = courier_of(waits, tmp_path, guesses)
        played(courier)
        assert [state for state, *_ in waits.states().values()] == ["delivered", "waiting"]
    assert (courier.report.attempted, courier.report.delivered) == (1, 1)


def test_a_command_that_answers_in_time_but_never_ends_is_killed_and_nothing_is_lost(tmp_path):
    stays = ECHO + "time.sleep(600)"
    with waiting(tmp_path, 5) as waits:
        courier = courier_of(waits, tmp_path, stays, seconds=1)
        played(courier)
        assert waits.count("delivered") == 5
    assert courier.report.rested_because is None


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("piece", ["x" * 99_999, "x\\n" * 9_999, "{}\\n" * 9_999], ids=["no line", "lines", "objects"])
def test_a_command_that_floods_its_outputs_is_bounded_and_what_it_acknowledged_counts(tmp_path, stream, piece):
    floods = f"""
line = sys.stdin.readline()
print(json.dumps({{"pair_id": json.loads(line)["pair_id"]}}), flush=True)
while True:
    sys.{stream}.write("{piece}")
"""
    with waiting(tmp_path, 300) as waits:
        courier = courier_of(waits, tmp_path, floods, seconds=1)
        played(courier)
        assert waits.count("delivered") == 1
        assert waits.count("waiting") == 299
    assert "neither read nor answered" in courier.report.rested_because
    said = courier.said()
    assert len(said) <= 1_001
    assert max(map(len, said), default=0) <= 200


def test_a_flood_of_answers_to_no_pair_changes_nothing(tmp_path):
    floods = """
ids = [json.loads(sys.stdin.readline())["pair_id"] for _ in range(2)]
while True:
    print(json.dumps({"pair_id": ids[0]}), json.dumps({"pair_id": "led-ger-7-1"}), sep="\\n", flush=True)
"""
    with waiting(tmp_path, 2) as waits:
        courier = courier_of(waits, tmp_path, floods, seconds=1)
        played(courier)
        assert (waits.count("delivered"), waits.count("waiting")) == (1, 1)
    assert (courier.report.delivered, courier.report.failed) == (1, 1)


def test_what_it_says_goes_to_the_log_line_by_line_without_the_tokens(tmp_path):
    talks = """
pair = json.loads(sys.stdin.readline())
print("connected\\tto the store", file=sys.stderr)
print(f"storing {pair['access_token']} and {pair['refresh_token']}", file=sys.stderr, flush=True)
print("this is no answer", flush=True)
print(json.dumps({"pair_id": pair["pair_id"]}), flush=True)
"""
    with waiting(tmp_path, 1) as waits:
        courier = courier_of(waits, tmp_path, talks)
        played(courier)
        assert waits.count("delivered") == 1
    assert sorted(courier.said()) == ["connected to the store", "storing **** and ****", "this is no answer"]


def test_no_credentials_of_the_job_are_in_its_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HIGHLEVEL_CLIENT_SECRET", "canary")
    monkeypatch.setenv("RECOVERY_DELIVER__SECRET", "canary")
    tells = "(here / 'environment').write_text(json.dumps(dict(os.environ)))\n" + ECHO
    with waiting(tmp_path, 1) as waits:
        played(courier_of(waits, tmp_path, tells))
    environment = json.loads((tmp_path / "environment").read_text())
    assert "canary" not in environment.values()
    assert environment["PATH"] == os.environ["PATH"]
    # The C library and Python set a few by themselves.
    assert {*environment} <= {"PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "LC_CTYPE"}


def test_a_stop_ends_it_after_what_is_in_flight_and_cuts_no_line(tmp_path):
    slow = """
(here / "reads").touch()
while not (here / "go").exists():
    time.sleep(0.01)
for line in sys.stdin:
    print(json.dumps({"pair_id": json.loads(line)["pair_id"]}), flush=True)
"""
    with waiting(tmp_path, 90, cells=("gold" * 2_000,)) as waits:  # A pipe holds eight of them.
        looks = []
        courier = courier_of(waits, tmp_path, slow, clock=lambda: looks.append(1) or time.monotonic())
        courier.start()
        wait_until((tmp_path / "reads").exists)
        courier.stop()
        before = len(looks)
        wait_until(lambda: len(looks) > before + 6)  # Two turns: it has seen the stop.
        (tmp_path / "go").touch()
        assert courier.ended(20)
        taken = waits.count("delivered")
        assert 0 < taken < 20
    assert (courier.report.attempted, courier.report.delivered) == (taken, taken)
    assert courier.report.rested_because is None
    assert not courier.said()


def test_an_answer_to_a_pair_that_was_overtaken_meanwhile_settles_nothing_and_the_newer_one_is_handed_over(tmp_path):
    waits_for_go = """
for number, line in enumerate(sys.stdin):
    pair = json.loads(line)
    (here / f"read-{number}").write_text(pair["refresh_token"])
    while not (here / "go").exists():
        time.sleep(0.01)
    print(json.dumps({"pair_id": pair["pair_id"]}), flush=True)
"""
    with waiting(tmp_path, 1) as waits:
        courier = courier_of(waits, tmp_path, waits_for_go)
        courier.start()
        wait_until((tmp_path / "read-0").exists)
        waits.recover(0)
        (tmp_path / "go").touch()
        courier.finish()
        assert courier.ended(20)
        assert waits.count("delivered") == 1
    assert (tmp_path / "read-1").read_text() == "refresh+0/1"
    assert courier.report.delivered == 1


def test_memory_is_bounded_however_many_it_has_and_has_not_answered(tmp_path):
    at_the_end = """
ids = [json.loads(line)["pair_id"] for line in sys.stdin]
for one in ids:
    print(json.dumps({"pair_id": one}))
"""
    with waiting(tmp_path, 3_000, cells=("gold" * 1_000,)) as waits:
        courier = courier_of(waits, tmp_path, at_the_end)
        peak = most_memory(courier)
        assert waits.count("delivered") == 3_000
    assert peak < 6_000_000  # The command was given 14 MB.


def test_a_command_that_is_not_there_is_refused_at_the_start(tmp_path):
    for name in ("no-such-program-anywhere", "./missing", "/nowhere/at/all"):
        with pytest.raises(UserError, match=f"deliver.command: names a program that is not there \\({name}\\)"):
            opening.check_target(DeliverSettings(command=Words([name])), (), {}, tmp_path)
    (tmp_path / "mine").write_text("#!/bin/sh\ncat\n")
    with pytest.raises(UserError):  # It cannot be run.
        opening.check_target(DeliverSettings(command=Words(["./mine"])), (), {}, tmp_path)
    (tmp_path / "mine").chmod(0o755)
    assert opening.check_target(DeliverSettings(command=Words(["./mine"])), (), {}, tmp_path) is None
    cat = DeliverSettings(command=Words(["cat", "secret=1"]))
    assert opening.check_target(cat, (), {}, tmp_path) is None
    assert opening.where(cat) == "cat"


@pytest.mark.parametrize(
    ("program", "works", "lines"),
    [
        (ECHO, True, ["acknowledged test-", "ended with 0"]),
        (ECHO.replace('"]}', '"], "error": "no such row"}'), False, ["refused test-", "no such row", "ended with 0"]),
        (
            "print('hello', file=sys.stderr)\nsys.exit(4)",
            False,
            ["did not acknowledge test-", "says: hello", "ended with 4"],
        ),
        ("time.sleep(600)", False, ["did not acknowledge test-", "neither read nor answered for 1 s and was killed"]),
    ],
    ids=["yes", "no", "ends", "hangs"],
)
def test_a_test_gives_it_one_made_up_line_and_shows_its_answer(tmp_path, program, works, lines):
    (tmp_path / "program.py").write_text(BEGIN + program)
    settings = DeliverSettings(command=Words([sys.executable, "program.py"]), timeout_seconds=1)
    tested = opening.test_target(settings, ("plan",), {}, tmp_path)
    assert tested.works is works
    for words in lines:
        assert words in " ".join(tested.lines)


def test_no_thread_is_left_when_it_has_ended(tmp_path):
    before = threading.active_count()
    with waiting(tmp_path, 1) as waits:
        played(courier_of(waits, tmp_path, ECHO))
    assert threading.active_count() == before
