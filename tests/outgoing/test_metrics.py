"""The file of metrics: what is in it, when it is written, and what becomes of one that cannot be written."""

from __future__ import annotations

import os
import time
from contextlib import closing, contextmanager

import pytest

from jobs import __version__
from jobs.config.settings import MetricsSettings, load_settings
from jobs.core.causes import ADVICE
from jobs.core.errors import Exit, Problem, UserError
from jobs.core.model import Cause, Counts, Install, InstallKey, Level, Run, ThisRun
from jobs.ledger.refusals import AwayError
from jobs.monitor import Latest, Monitor, figures_of, monitor_of, noting_refusals
from jobs.outgoing.metrics import GAUGES, Figures, MetricsFile
from jobs.pace.gate import Held
from jobs.system.signals import Interrupted
from tests.helpers.made import CLIENT_ID, URL, as_place, make_run, opened, outcome, place
from tests.helpers.metrics import Soon, told
from tests.helpers.waiting import wait_until

COUNTS = Counts(4, 4, 0, 2, 1, 1, undelivered=1)
DID = {"counts": COUNTS, "this_run": ThisRun(requests=9), "failures_by_cause": {"not_installed": 1}, "rate_limited": 2}
ENDED = Run("ab", "in.csv", URL, "2026-11-26T01:00:00.000Z", "2026-11-26T01:00:30.000Z", 0, **DID)
UNDER_WAY = Run("ac", "in.csv", URL, "2026-11-26T02:00:00.000Z", **DID)
AT = {"01:00:00": 1795654800.0, "02:00:00": 1795658400.0}
NOW = AT["02:00:00"] + 90


class Heard(list):
    """Warnings."""

    def __call__(self, text):
        self.append(text)


def install(number):
    row = place(number)
    return Install(InstallKey(CLIENT_ID, Level.SUB_ACCOUNT, row.account_id), "")


def file_in(folder, name="night", warn=print):
    return MetricsFile(folder / "night.prom", name, warn, lambda: NOW)


def written(folder, figures, name="night"):
    file_in(folder, name).write(figures)
    return told(folder / "night.prom")


def test_a_run_that_has_ended_is_told_with_its_times_its_code_and_its_counts(tmp_path):
    found = written(tmp_path, Figures(ENDED, hold_until=NOW + 5))
    assert found["running"] == 0
    assert found["last_start_timestamp_seconds"] == AT["01:00:00"]
    assert found["last_end_timestamp_seconds"] == found["last_success_timestamp_seconds"] == AT["01:00:00"] + 30
    assert (found["last_exit_code"], found["duration_seconds"]) == (0, 30)
    assert found.by("installs") == {("recovered",): 2, ("failed",): 1, ("pending",): 1}
    assert found.by("failures") == {("not_installed", "customer"): 1}
    assert (found["undelivered_installs"], found["requests"], found["rate_limited_requests"]) == (1, 9, 2)
    assert found["hold_until_timestamp_seconds"] == NOW + 5
    assert found.by("build_info") == {(__version__,): 1}


def test_a_run_under_way_leaves_how_the_one_before_it_ended(tmp_path):
    before = Run("aa", "in.csv", URL, "2026-11-26T01:00:00.000Z", "2026-11-26T01:00:30.000Z", 3)
    found = written(tmp_path, Figures(UNDER_WAY, before, "2026-11-26T01:00:00.000Z"))
    assert (found["running"], found["duration_seconds"], found["last_exit_code"]) == (1, 90, 3)
    assert found["last_start_timestamp_seconds"] == AT["02:00:00"]
    assert found["last_end_timestamp_seconds"] == AT["01:00:00"] + 30
    assert found["last_success_timestamp_seconds"] == AT["01:00:00"]
    assert found["hold_until_timestamp_seconds"] == 0


def test_every_metric_every_cause_and_every_state_is_there_also_before_anything_happened(tmp_path):
    found = written(tmp_path, Figures(Run("ab", "in.csv", URL, "")))
    assert found.labels == {name: tuple(sorted(gauge.labels)) for name, gauge in GAUGES.items()}
    there = {key[1:] for key in found.values if key[0] == "failures"}
    assert there == {(cause.value, ADVICE[cause].owner.value) for cause in Cause}
    assert {key[1] for key in found.values if key[0] == "installs"} == {"recovered", "failed", "pending"}


@pytest.mark.parametrize(
    "name", ['a "quoted" name', "back\\slash", "two\nlines", "Zoë", "a{b}=c,d", os.fsdecode(b"\xff.d")], ids=ascii
)
def test_a_folder_of_any_name_is_a_label(tmp_path, name):
    found = written(tmp_path, Figures(ENDED), name)
    assert found.lists == {name.encode(errors="replace").decode()}


def test_the_file_is_whole_at_any_moment_and_anybody_may_read_it(tmp_path):
    before = os.umask(0o077)
    try:
        written(tmp_path, Figures(ENDED))
        with (tmp_path / "night.prom").open() as as_scraped:
            written(tmp_path, Figures(UNDER_WAY))
            assert "running" in as_scraped.read()
    finally:
        os.umask(before)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o644


def test_what_a_killed_run_left_half_written_goes_with_the_next_run(tmp_path):
    for name in (".new-night.prom-0123abcd", ".new-other.prom-0123abcd"):
        (tmp_path / name).write_text("half")
    file_in(tmp_path).begin(Figures(UNDER_WAY))
    assert {file.name for file in tmp_path.iterdir()} == {"night.prom", ".new-other.prom-0123abcd"}


def test_a_file_that_cannot_be_written_is_one_warning(tmp_path):
    heard = Heard()
    file = file_in(tmp_path / "gone", warn=heard)
    file.begin(Figures(UNDER_WAY))
    file.write(Figures(UNDER_WAY))
    file.write(Figures(ENDED))
    (said,) = heard
    assert said == (
        f"metrics.textfile: {tmp_path}/gone/night.prom cannot be written (No such file or directory); "
        "the run goes on without it"
    )


@pytest.mark.parametrize(
    "name", ["installs.csv", "out/ledger.sqlite3", ".env", "/", "night.prom/", "a\0b.prom"], ids=ascii
)
def test_no_other_file_than_one_that_node_exporter_reads_is_ever_written(tmp_path, name):
    with pytest.raises(UserError, match=r"RECOVERY_METRICS__TEXTFILE: has an invalid value .*\.prom"):
        load_settings(tmp_path / "none.toml", {"RECOVERY_METRICS__TEXTFILE": name}, {})


def test_a_device_or_a_pipe_is_neither_read_nor_replaced(tmp_path):
    heard = Heard()
    os.mkfifo(tmp_path / "night.prom")
    file = file_in(tmp_path, warn=heard)
    file.begin(Figures(UNDER_WAY))
    file.amend(REFUSED)
    assert len(heard) == 1
    assert (tmp_path / "night.prom").is_fifo()


# -- what is told beside a run -----------------------------------------------------------------------------------------

REFUSED = {"last_exit_code": 2.0, "last_end_timestamp_seconds": NOW}


def test_what_is_told_beside_a_run_changes_these_values_alone(tmp_path):
    before = written(tmp_path, Figures(UNDER_WAY, ENDED, hold_until=NOW))
    file_in(tmp_path).amend(REFUSED)
    assert told(tmp_path / "night.prom").values == before.values | REFUSED
    file_in(tmp_path).amend({"running": 0.0})
    assert told(tmp_path / "night.prom").values == before.values | REFUSED | {"running": 0.0}


@pytest.mark.parametrize("left", [None, ""], ids=["lost", "made by an administrator"])
def test_a_file_without_a_run_tells_what_is_known_and_leaves_out_the_rest(tmp_path, left):
    if left is not None:
        (tmp_path / "night.prom").write_text(left)
    file_in(tmp_path).amend(REFUSED)
    assert told(tmp_path / "night.prom").values == REFUSED | {("build_info", __version__): 1.0}
    file_in(tmp_path).amend({"last_exit_code": 70.0})
    assert told(tmp_path / "night.prom")["last_exit_code"] == 70


@pytest.mark.parametrize("text", ["\n", "not a metric {", "\x00", 'other_metric{list="night"} 1\n'], ids=ascii)
def test_a_file_that_is_not_of_this_list_is_left_alone_except_by_a_run(tmp_path, text):
    written(tmp_path, Figures(ENDED), "another list")
    file = tmp_path / "night.prom"
    for before in (file.read_text(), text):
        file.write_text(before)
        file_in(tmp_path).amend(REFUSED)
        assert file.read_text() == before
    assert written(tmp_path, Figures(ENDED)).lists == {"night"}


@pytest.mark.parametrize("name", ["two\nlines", "a\rb", 'a "quoted" name'], ids=ascii)
def test_the_file_of_a_list_of_any_name_is_known_again(tmp_path, name):
    written(tmp_path, Figures(ENDED), name)
    file_in(tmp_path, name).amend(REFUSED)
    assert told(tmp_path / "night.prom")["last_exit_code"] == 2


class Refused:
    """A project whose list is refused. A run left its summary beside that list."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "kept").mkdir()
        (folder / "kept" / "summary.json").write_text('{"run_id": "ab", "base_url": "x", "counts": {}}')

    def by(self, error, **settings):
        environment = {"RECOVERY_METRICS__TEXTFILE": "night.prom"} | settings
        kept = self.folder / "kept" / "list.csv"
        with pytest.raises(type(error)), noting_refusals(kept, None, self.folder, environment, print):
            raise error
        return told(self.folder / "night.prom")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, {"list"}),
        ({"RECOVERY_LEDGER__URL": "postgresql://x/x"}, {"kept"}),
        ({"RECOVERY_LEDGER__NAME": "x" * 201}, {"list"}),
    ],
    ids=["ledger in a folder", "ledger in a database", "wrong settings"],
)
def test_a_refused_start_is_told_under_the_name_that_the_run_would_have_had(tmp_path, settings, names):
    assert Refused(tmp_path).by(UserError(Problem("is wrong", "x", "correct it")), **settings).lists == names


@pytest.mark.parametrize("error", [Interrupted(Exit.SIGTERM), RuntimeError()], ids=lambda error: type(error).__name__)
def test_a_start_that_a_signal_or_a_bug_ends_is_told_too(tmp_path, error):
    code = {"Interrupted": 143, "RuntimeError": 70}[type(error).__name__]
    assert Refused(tmp_path).by(error)["last_exit_code"] == code


def test_links_in_a_circle_and_a_folder_that_is_gone_are_a_refused_start_and_one_warning(tmp_path):
    heard = Heard()
    (tmp_path / "list.csv").symlink_to("list.csv")
    refused, environment = UserError(Problem("is wrong", "x", "y")), {"RECOVERY_METRICS__TEXTFILE": "gone/night.prom"}
    with pytest.raises(UserError), noting_refusals(tmp_path / "list.csv", None, tmp_path, environment, heard):
        raise refused
    (said,) = heard
    assert "gone/night.prom cannot be written (No such file or directory)" in said


# -- when it is written ------------------------------------------------------------------------------------------------


class AwayLedger:
    """A ledger whose database goes away after the run has begun."""

    def ask(self, _question):
        return Figures(UNDER_WAY)

    @contextmanager
    def at_a_glance(self):
        raise AwayError(Problem("is away", "the database", "wait"))
        yield


def test_the_file_is_written_each_minute_also_while_the_ledger_is_away(tmp_path):
    seen = []
    file = MetricsFile(tmp_path / "night.prom", "night", print, lambda: seen.append(1) or NOW + len(seen))
    latest, ending = Latest(UNDER_WAY), Soon()
    with Monitor(file, AwayLedger(), latest, ending=ending):
        first = told(tmp_path / "night.prom")["duration_seconds"]
        wait_until(lambda: told(tmp_path / "night.prom")["duration_seconds"] > first + 2)
        latest.run = Run("ac", "in.csv", URL, UNDER_WAY.started_at, this_run=ThisRun(requests=77))
        wait_until(lambda: told(tmp_path / "night.prom")["requests"] == 77)
        assert told(tmp_path / "night.prom").by("installs") == {("recovered",): 2, ("failed",): 1, ("pending",): 1}
        latest.run = ENDED
    assert told(tmp_path / "night.prom")["running"] == 0
    assert ending.waits == {60}


def test_while_a_run_is_under_way_the_file_has_the_counts_of_the_ledger(home):
    run = make_run(home, (), [(place(1), None), (place(2), Cause.NOT_INSTALLED)], untried=[place(3)], killed=True)
    file = home.folder / "night.prom"
    metrics = MetricsFile(file, "night", print, lambda: NOW)
    latest = Latest(run)
    with closing(opened(home)) as ledger, Monitor(metrics, ledger, latest, ending=Soon()):
        assert sum(told(file).by("installs").values()) == 3
        ledger.record([(install(3), outcome(Cause.LOCATION_INACTIVE, 3, "2026-11-26T01:00:00.000Z", {}))])
        wait_until(lambda: len(told(file).by("failures")) == 2)
        assert told(file).by("installs") == {("recovered",): 1, ("failed",): 2}
        latest.held = Held(time.monotonic() + 1_000, 429)
        wait_until(lambda: told(file)["hold_until_timestamp_seconds"])
        assert abs(told(file)["hold_until_timestamp_seconds"] - time.time() - 1_000) < 100
        latest.held = Held(time.monotonic() - 1, 429)
        wait_until(lambda: not told(file)["hold_until_timestamp_seconds"])


class SlowLedger:
    """A ledger in which a look takes five seconds. It counts the looks."""

    def __init__(self, ledger):
        self.ledger, self.now, self.looks = ledger, 0.0, 0
        self.ask = ledger.ask

    @contextmanager
    def at_a_glance(self):
        self.now, self.looks = self.now + 5, self.looks + 1
        with self.ledger.at_a_glance() as connection:
            yield connection


def test_counting_a_long_list_takes_one_percent_of_the_time_at_most(tmp_path):
    run = make_run(tmp_path, (), [(place(1), None)], killed=True)
    writes = []
    with closing(opened(as_place(tmp_path))) as ledger:
        slow = SlowLedger(ledger)
        file = MetricsFile(tmp_path / "night.prom", "night", print, lambda: writes.append(1) or NOW)
        with Monitor(file, slow, Latest(run), lambda: slow.now, Soon()):
            wait_until(lambda: len(writes) > 5)
            assert slow.looks == 1
            slow.now = 501
            wait_until(lambda: slow.looks == 2)


def test_the_ledger_remembers_the_last_success_and_the_last_end(home):
    ends = [("2026-11-26T01:00:00.000Z", 0), ("2026-11-26T02:00:00.000Z", 3), ("2026-11-26T03:00:00.000Z", 1)]
    for at, code in ends:
        make_run(home, (), [(place(1), None)], at=at, exit_code=code)
    run = make_run(home, (), [(place(1), None)], at="2026-11-26T04:00:00.000Z", killed=True)
    with closing(opened(home)) as ledger:
        found = ledger.ask(lambda connection: figures_of(connection, run))
    assert found.succeeded_at == ends[0][0]
    assert (found.ended.finished_at, found.ended.exit_code) == ends[2]


def test_a_ledger_without_a_run_that_has_ended_remembers_none(home):
    run = make_run(home, (), [(place(1), None)], killed=True)
    with closing(opened(home)) as ledger:
        assert ledger.ask(lambda connection: figures_of(connection, run)) == Figures(run)


def test_a_bug_ends_the_run_in_the_file_too(tmp_path):
    file = file_in(tmp_path)
    with pytest.raises(RuntimeError), Monitor(file, AwayLedger(), Latest(UNDER_WAY)):
        raise RuntimeError
    found = told(tmp_path / "night.prom")
    assert (found["running"], found["last_exit_code"]) == (0, 70)


def test_a_relative_path_is_in_the_projects_folder_and_no_path_means_no_file(tmp_path):
    for name in ("night.prom", ""):
        with monitor_of(MetricsSettings(name), tmp_path, tmp_path / "out", AwayLedger(), Latest(UNDER_WAY), print):
            pass
    assert {file.name for file in tmp_path.iterdir()} == {"night.prom"}
    assert told(tmp_path / "night.prom").lists == {"out"}
