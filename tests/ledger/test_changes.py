"""Since the last report: fixed, new, still open. The last report is that of the last run which left one."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, event, text

from jobs.core.model import Cause
from jobs.ledger import tables
from jobs.ledger.changes import Changes, changes
from jobs.ledger.counts import under_way
from jobs.ledger.refusals import usual_wait
from jobs.ledger.support_queries import by_company, fixed
from jobs.report import report_again
from jobs.start import PROJECT
from tests.helpers.homes import environment_of, home_in_folder
from tests.helpers.made import as_place, broken, make_run, place, render_again, with_version_1

FIRST, SECOND, THIRD = (f"2026-11-2{day}T02:31:00.000Z" for day in (1, 2, 3))
GONE = Cause.NOT_INSTALLED


def made(**causes):
    return [(place(int(name[1:]), "Co1", "x"), cause) for name, cause in causes.items()]


def since(where):
    ledger = as_place(where).open_beside(usual_wait())
    try:
        return ledger.ask(changes)
    finally:
        ledger.close()


@pytest.fixture
def writer(home):
    """`writer(statement)` changes the ledger as a run does that goes on meanwhile."""
    ledgers = []

    def write(statement, **values):
        if not ledgers:
            ledgers.append(home.open_beside(usual_wait()))
        return ledgers[0].write(lambda connection: connection.execute(text(statement), values).rowcount)

    yield write
    for ledger in ledgers:
        ledger.close()


def test_the_first_report_has_none_before_it(home):
    make_run(home, ("name",), made(n1=GONE), at=FIRST)
    assert since(home) is None
    assert "Since the last report" not in render_again(home)


def test_fixed_new_and_still_open_are_told_apart_also_when_the_reports_are_rendered_again(home):
    make_run(home, ("name",), made(n1=GONE, n2=GONE, n3=None, n4=GONE), at=FIRST)
    make_run(home, ("name",), made(n1=None, n2=Cause.SERVER_ERROR, n3=None, n4=GONE, n5=GONE), at=SECOND)
    for _ in range(3):
        page = render_again(home)
        assert since(home) == Changes(FIRST, fixed=1, new=1, still_open=2)
        assert page.count('<span class="tag">new</span></td>') == 1
    ledger = home.open_beside(usual_wait())
    with ledger.at_one_moment() as connection:
        assert [record.location_id for record in fixed(connection)] == [place(1).account_id]
        marks = {listed.record.location_id: listed.is_new for listed in by_company(connection, GONE)}
    assert marks == {place(4).account_id: False, place(5).account_id: True}
    ledger.close()


def test_what_a_killed_run_did_counts_as_the_next_ones_since_it_left_no_report(home):
    make_run(home, ("name",), made(n1=GONE, n2=GONE), at=FIRST)
    make_run(home, ("name",), made(n1=None, n2=GONE, n3=GONE), at=SECOND, killed=True)
    make_run(home, ("name",), made(n2=None, n3=GONE), at=THIRD)
    assert since(home) == Changes(FIRST, fixed=2, new=1, still_open=0)


def test_a_broken_line_is_known_by_its_words_wherever_it_stands(home):
    torn = (broken(3, "torn"), Cause.INVALID_ROW)
    make_run(home, ("name",), [*made(n1=None), torn], at=FIRST)
    moved, other = (broken(8, "torn"), Cause.INVALID_ROW), (broken(9, "other"), Cause.INVALID_ROW)
    make_run(home, ("name",), [*made(n1=None), moved, other], at=SECOND)
    assert since(home) == Changes(FIRST, fixed=0, new=1, still_open=1)


def test_a_ledger_of_the_first_version_is_taken_on_and_nothing_is_lost(tmp_path):
    make_run(tmp_path, ("name",), made(n1=GONE, n2=None), at=FIRST)
    before = (tmp_path / "results.csv").read_bytes()
    with_version_1(tmp_path)
    assert "Since the last report" not in render_again(tmp_path)
    assert (tmp_path / "results.csv").read_bytes() == before
    make_run(tmp_path, ("name",), made(n1=None, n2=None), at=SECOND)
    assert since(tmp_path) == Changes(FIRST, fixed=1, new=0, still_open=0)
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    assert version == tables.VERSION


def test_whole_runs_tell_it_and_a_rerun_with_nothing_to_do_changes_nothing(play):
    from jobs.sandbox.world import Place

    job = play({"LocA": Place("not_installed"), "LocB": Place("location_inactive")})
    manifest = job.manifest("location_id\nLocA\nLocB\nLocC\n")
    assert job.run(manifest).returncode == 1
    job.sandbox.world.installs.pop("LocA")
    assert job.run(manifest).returncode == 1
    told = since(home_in_folder(job.output, ""))
    assert (told.fixed, told.new, told.still_open) == (1, 0, 1)
    assert job("report", job.output).returncode == 0
    assert since(home_in_folder(job.output, "")) == told


def test_the_pages_order_is_company_by_company_and_ids_of_agencies_are_their_companies(home):
    rows = [place(1, "CoB"), place(2), place(3, "CoA"), place(4, "CoB")]
    make_run(home, (), [(row, GONE) for row in rows], at=FIRST)
    ledger = home.open_beside(usual_wait())
    with ledger.at_one_moment() as connection:
        listed = by_company(connection, GONE)
        found = [(one.company, one.record.location_id[-1], one.of_company) for one in listed]
        if not home.in_database:
            assert connection.scalar(text("PRAGMA temp_store")) == 1  # sorted on disk, not in memory
    ledger.close()
    assert found == [("CoA", "3", 1), ("CoB", "1", 2), ("CoB", "4", 2), ("", "2", 1)]
    with (home.folder / "failures.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [row["location_id"][-1] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]


def test_what_a_run_did_so_far_is_counted_at_one_moment_while_it_goes_on(home, writer):
    untried = [place(number, "Co1", "x") for number in range(2, 12)]
    run = make_run(home, ("name",), made(n1=None), at=FIRST, untried=untried, killed=True)
    one_more = """UPDATE installs SET status = 'recovered', attempts = 1, recovered_at = :at, last_tried_at = :at
        WHERE id = (SELECT min(id) FROM installs WHERE status = 'pending')"""
    ledger = home.open_beside(usual_wait())
    event.listen(ledger.engine, "after_cursor_execute", lambda *_: writer(one_more, at=FIRST))
    with ledger.at_one_moment() as connection:
        seen = under_way(connection, run)
    ledger.close()
    assert seen.this_run.attempted == seen.this_run.recovered == seen.counts.recovered
    assert seen.counts.recovered + seen.counts.pending == 11
    assert writer("UPDATE installs SET line = line WHERE status = 'recovered'") > 2


@contextmanager
def meanwhile(act):
    """Call `act` after each statement of any ledger in the block, except its own."""
    acting = []

    def goes_on(*_):
        if not acting:
            acting.append(True)
            act()
            acting.clear()

    event.listen(Engine, "after_cursor_execute", goes_on)
    try:
        yield
    finally:
        event.remove(Engine, "after_cursor_execute", goes_on)


def test_head_and_sections_of_a_page_are_of_one_moment_while_a_run_goes_on(home, writer):
    failed = made(**{f"n{number}": GONE for number in range(1, 101)})
    make_run(home, ("name",), failed, at=FIRST, killed=True)
    one_back = """UPDATE installs SET status = 'recovered', cause = NULL, attempts = 1, recovered_at = :at, last_tried_at = :at
        WHERE id = (SELECT min(id) FROM installs WHERE status = 'failed')"""
    with meanwhile(lambda: writer(one_back, at=FIRST)):
        report_again(home.folder, PROJECT, environment_of(home), print)
    left = writer("UPDATE installs SET line = line WHERE status = 'failed'")
    page = (home.folder / "failures.html").read_text(encoding="utf-8")
    told = int(re.search(r"<h1>(\d+) of 100", page)[1])
    assert left < told < 100  # it went on meanwhile
    assert page.count('<tr class="i') == told
    with (home.folder / "failures.csv").open(encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.DictReader(file))) == told
    with (home.folder / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        assert sum(row["status"] == "failed" for row in csv.DictReader(file)) == told
    assert json.loads((home.folder / "summary.json").read_text())["counts"]["failed"] == told
