"""A million rows are no problem: what is not held in memory, and what is not written again."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from jobs.model import Broken, Level, Row
from jobs.opening import open_ledger

ROW = Row(2, "app-1", Level.SUB_ACCOUNT, "LocA", "CoA", ("Customer A", "gold"))


@pytest.fixture
def ledger(tmp_path):
    ledger = open_ledger(tmp_path, "https://api.example.test")
    yield ledger
    ledger.close()


def enrol(ledger, rows):
    """The rows of the ledger that were written for it."""
    connection = ledger._connection.connection.driver_connection
    ledger.stage(rows)
    before = connection.total_changes
    ledger.enrol(("name", "plan"), "2026-11-24T10:00:00.000Z", with_companies=True)
    return connection.total_changes - before


def test_an_install_whose_line_is_as_it_was_is_not_written_again(ledger):
    rows = [replace(ROW, line=number, account_id=f"Loc{number}") for number in range(2, 102)]
    assert enrol(ledger, rows) >= 100
    assert enrol(ledger, rows) < 10
    changed = [replace(rows[0], cells=("Customer A", "silver")), *rows[1:50]]
    assert 51 <= enrol(ledger, changed) < 61  # one is changed, and fifty are no longer listed


def test_lines_that_cannot_be_used_are_not_held_in_memory(ledger):
    wrong = (Broken(line, "bad id", "", "", ("x" * 200,), "it is bad") for line in range(2, 5_002))
    tracemalloc.start()
    assert ledger.stage(wrong) == 5_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ledger.broken_lines == 5_000
    assert peak < 2_000_000
