"""What the README of the tests promises is held by tests that are there."""

from __future__ import annotations

import re

from tests.helpers.job import PROJECT

README = (PROJECT / "tests" / "README.md").read_text(encoding="utf-8")
PROMISES = README.partition("## What the job promises\n")[2].partition("\n## ")[0]
FILES = [*(PROJECT / "tests").rglob("test_*.py")]  # Two rooms may have files of the same name.
TOPICS = [
    "crash", "power", "bad_server", "disk", "environment", "locks", "secrets", "bad_lists", "deliver", "check", "leases",
    "ledger_copy", "in_database", "database_lost", "containers", "away", "workbooks", "workbook", "notebook", "metrics",
    "ping",
]  # fmt: skip


def names_in(files):
    return {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)}


def test_every_promise_names_a_test_and_every_test_that_is_named_is_there():
    promises = re.split(r"^- ", PROMISES, flags=re.MULTILINE)[1:]
    assert len(promises) >= 9
    known = names_in(FILES)
    for promise in promises:
        named = set(re.findall(r"`(test_\w+)`", promise))
        assert named, promise
        assert named <= known, named - known


def test_every_topic_is_among_the_promises():
    named = set(re.findall(r"`(test_\w+)`", PROMISES))
    for topic in TOPICS:
        assert named & names_in(file for file in FILES if file.stem == f"test_{topic}"), topic
