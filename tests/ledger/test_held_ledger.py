"""A ledger that another program holds: it is waited for, who holds it is said, and nothing in hand is thrown away."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.core.clock import utc
from jobs.core.model import Install, InstallKey, Level, Recovered, Route, Tokens
from jobs.core.secret import Secret
from jobs.ledger.opening import open_ledger
from jobs.ledger.reads import records
from jobs.ledger.refusals import HeldError, Wait
from jobs.manifest.reader import open_manifest
from jobs.pace.gate import Gate, Stopped
from jobs.recovery.recorder import Recorder
from jobs.recovery.runner import _intend
from jobs.recovery.stop import Stop
from jobs.system.lock_holders import Patience
from tests.helpers.job import pairs
from tests.helpers.lists import listing
from tests.helpers.made import enrol, line_up
from tests.helpers.waiting import wait_until

HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
db.execute("ROLLBACK")
"""


class Viewer:
    """Another program with a change in the ledger that it does not write down."""

    def __init__(self, output):
        command = [sys.executable, "-c", HOLD, output / "ledger.sqlite3"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "held\n"

    def let_go(self):
        if self.process.poll() is None:
            self.process.communicate("\n")


@pytest.fixture
def hold():
    viewers = []

    def held(output):
        viewers.append(Viewer(output))
        return viewers[-1]

    yield held
    for viewer in viewers:
        viewer.let_go()


def test_a_ledger_that_another_program_holds_is_waited_for_and_named_and_nothing_is_sent_meanwhile(play, hold):
    job = play()
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "50"
    process = job.start("run", job.manifest(listing(100)), "--output", job.output)
    wait_until(lambda: len(job.sandbox.codes.issued) > 5)
    viewer = hold(job.output)
    said = iter(process.stderr.readline, "")
    told = next(line for line in said if "waiting for the ledger" in line)
    assert f"(process {viewer.process.pid}) holds it" in told
    calls = len(job.sandbox.seen)
    assert calls < 200
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    assert len(job.sandbox.seen) == calls
    viewer.let_go()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in out + err
    assert pairs(job.output) == job.issued()
    assert len(job.sandbox.codes.issued) == 100


BASE = "https://api.example.test"


@pytest.fixture
def recorder(tmp_path):
    """A book on a ledger that is waited for briefly, what it says, how often the gate was told what, and one new pair."""
    (tmp_path / "installs.csv").write_text("location_id,client_id\nLocA,app-1\n")
    manifest = open_manifest(tmp_path / "installs.csv")
    said, gate = [], []
    wait = Wait(Patience(0.4, 0.1, said.append), lambda: gate.append("pause"), lambda: gate.append("go on"))
    ledger = open_ledger(tmp_path, BASE, wait)
    enrol(ledger, manifest.rows(), manifest.columns, "2026-11-25T00:00:00.000Z")
    stop = Stop(time.monotonic)
    yield Recorder(ledger, stop, lambda: None, lambda: gate.append("nothing out")), said, gate
    ledger.close()


def new_pair():
    tokens = Tokens(Secret("access-1"), Secret("refresh-1"), "Bearer", "", "", "Location", "", "", "LocA", "")
    install = Install(InstallKey("app-1", Level.SUB_ACCOUNT, "LocA"), "")
    return install, Recovered(tokens, Route.RECONNECT, 1, "2026-11-25T00:00:00.000Z")


def test_a_ledger_that_is_let_go_of_in_time_takes_the_pair_and_sending_goes_on(recorder, hold, tmp_path):
    recorder, said, gate = recorder
    viewer = hold(tmp_path)
    recorder.ledger.wait.patience.say = lambda words: (said.append(words), viewer.let_go())
    assert len(recorder.write([new_pair()])) == 1
    assert pairs(tmp_path) == {"LocA": "refresh-1"}
    assert gate == ["pause", "go on"]
    assert len(said) == 1
    assert not recorder.stop.because


def test_a_ledger_that_is_held_for_too_long_stops_the_run_and_its_pair_is_kept_until_it_is_let_go_of(
    recorder, hold, tmp_path
):
    recorder, _, gate = recorder
    viewer = hold(tmp_path)
    assert recorder.write([new_pair()]) == []
    assert recorder.write([]) == []
    assert gate[:2] == ["pause", "nothing out"]
    assert "go on" not in gate
    assert (recorder.stop.because, recorder.stop.code) == ("ledger", 3)
    assert f"(process {viewer.process.pid}) holds it" in recorder.stop.met
    recorder.ledger.wait.patience.say = lambda _: viewer.let_go()
    recorder.close()
    assert pairs(tmp_path) == {"LocA": "refresh-1"}
    assert "lost" not in recorder.stop.met
    assert "could not be stored" not in recorder.stop.met


@pytest.mark.parametrize("because", ["time_limit", "signal"])
def test_a_run_that_stops_anyway_waits_for_the_ledger_as_long_with_a_pair_in_hand(recorder, hold, tmp_path, because):
    recorder, said, _ = recorder
    viewer = hold(tmp_path)
    recorder.stop.ask(because, 4)
    assert recorder.write([new_pair()]) == []
    recorder.ledger.wait.patience.say = lambda words: (said.append(words), viewer.let_go())
    recorder.close()
    assert pairs(tmp_path) == {"LocA": "refresh-1"}
    assert any("new pairs not yet stored: 1" in words for words in said)
    assert recorder.stop.because == because


def test_a_spend_that_cannot_be_written_down_lets_no_code_out_though_the_run_stops_already(recorder, hold, tmp_path):
    recorder, _, _ = recorder
    pace = Gate(10, 600, clock=time.monotonic, now=utc, backoff=float)
    recorder.ledger.wait.pause, recorder.ledger.wait.go_on = pace.pause, pace.go_on
    recorder.stop.ask("signal", 143)
    hold(tmp_path)
    install = Install(InstallKey("app-1", Level.SUB_ACCOUNT, "LocA"), "", old=Secret("old-1"))
    pace.pause()
    with ThreadPoolExecutor() as threads:
        code_in_hand = threads.submit(pace.enter, urgent=True)
        wait_until(lambda: pace.waiting)
        try:
            assert not _intend(recorder.ledger, recorder.stop, pace, install)
            with pytest.raises(Stopped):
                code_in_hand.result(5)
        finally:
            pace.stop(also_codes=True)


def test_where_it_is_never_let_go_of_what_is_lost_is_said_with_a_number(recorder, hold, tmp_path):
    recorder, said, _ = recorder
    hold(tmp_path)
    recorder.last_wait = 0.2
    recorder.write([new_pair()])
    recorder.close()
    assert any("new pairs not yet stored: 1" in words for words in said)
    assert recorder.stop.because == "ledger"
    assert "1 new pairs could not be stored" in recorder.stop.met


def test_a_start_that_finds_the_ledger_held_says_who_holds_it_and_has_sent_nothing(recorder, hold, tmp_path):
    ledger = recorder[0].ledger
    viewer = hold(tmp_path)
    with pytest.raises(HeldError, match=rf"\(process {viewer.process.pid}\) holds it: end that program"):
        line_up(ledger, ["app-1"])


def test_a_reader_is_never_kept_waiting_by_a_writer(recorder, hold, tmp_path):
    ledger = recorder[0].ledger
    hold(tmp_path)
    assert ledger.last_run() is None
    with ledger.engine.connect() as connection:
        assert len(list(records(connection))) == 1
