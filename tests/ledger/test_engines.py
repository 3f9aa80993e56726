"""Whatever the engine is, the ledger says the same."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from jobs.core.model import Broken, Cause, Level, Row
from jobs.ledger.failed_set import failed_set_changed
from jobs.ledger.tables import remembered
from tests.helpers.homes import home_in_database, home_in_folder
from tests.helpers.made import CLIENT_ID, COLUMNS, all_causes, broken, make_run, opened, place

FIRST, SECOND, THIRD = (f"2026-11-2{day}T02:31:00.000Z" for day in (1, 2, 3))
REPORTS = ("results.csv", "failures.csv", "failures.html", "failures.json", "summary.json")
TOKEN = "pit-1f2e3d4c-5b6a-7988-9a0b-1c2d3e4f5a6b"


@pytest.fixture
def homes(postgres, tmp_path):
    """The place of a new ledger in each engine. A schema of its own lets numbers begin at 1, as in a file."""
    yield (
        home_in_folder(tmp_path / "sqlite"),
        home_in_database(postgres, tmp_path / "postgresql", schema="of_its_own"),
    )
    postgres.execute("drop schema of_its_own cascade")


def left(home):
    """What each report of the folder holds."""
    return {name: (home.folder / name).read_bytes() for name in REPORTS if (home.folder / name).exists()}


def failed_set(home):
    """The fingerprint of what failed, which a copy takes along: it must not change with the engine."""
    ledger = opened(home)
    try:
        assert failed_set_changed(ledger)
        assert not failed_set_changed(ledger)
        return ledger.ask(lambda connection: remembered(connection, "failed_set"))
    finally:
        ledger.close()


def test_every_report_is_the_same_from_both(homes, postgres):
    """There are all causes, broken lines, secrets under stars that come back, and columns that come and go."""
    long = Random(7).randbytes(10_000).hex()  # It cannot be compressed.
    first = [*all_causes(), (broken(40, TOKEN, long), Cause.INVALID_ROW), (place(41, "Ünïcode", TOKEN, "é\n\"'"), None)]
    second = [
        (place(0, "CoHarborAgency000001", "Harbor Agency", level=Level.AGENCY), None),
        *((place(number, "", f"name {number}"), None if number % 3 else Cause.SERVER_ERROR) for number in range(1, 20)),
        (broken(40, long), Cause.INVALID_ROW),
        (broken(41, "a line\0with a sign that PostgreSQL does not know", why="bad \\N sign\t"), Cause.INVALID_ROW),
        (place(50, "", "\0\\N\t\r\n"), Cause.NOT_INSTALLED),
    ]
    wide = [long[number * 30 : (number + 1) * 30] for number in range(300)]
    nul = Broken(60, "Loc\0A", "C\0", "\0", (long,), "line 60: the location id holds an invisible character")
    second.append((nul, Cause.INVALID_ROW))
    third = [(replace(row, cells=(*row.cells, "0")), cause) for row, cause in second]
    for home in homes:
        make_run(home, COLUMNS, first, at=FIRST)
        make_run(home, ("name",), second, at=SECOND)
        if home.in_database:
            postgres.execute("analyze")  # It counts by hashes from now on, which keep no order.
        make_run(home, ("name", *wide), third, at=THIRD)
    in_file, in_database = map(left, homes)
    assert in_file.keys() == in_database.keys() >= {"results.csv", "failures.html"}
    for name, words in in_file.items():
        assert in_database[name] == words, name


def test_the_fingerprint_of_what_failed_is_the_same_from_both(homes):
    """Its order is that of bytes, not of a language."""
    names = ["b", "B", "a_1", "a-1", "A1", "aB", "ab", "_"]
    rows = [
        (Row(number, CLIENT_ID, Level.SUB_ACCOUNT, name, "", ()), Cause.NOT_INSTALLED)
        for number, name in enumerate(names, 2)
    ]
    lines = [(broken(number, name), Cause.INVALID_ROW) for number, name in enumerate([*names, "é", "z", "Z"], 20)]
    for home in homes:
        make_run(home, ("name",), [*((replace(row, cells=("x",)), cause) for row, cause in rows), *lines], at=FIRST)
    in_file, in_database = map(failed_set, homes)
    assert in_file == in_database
