"""What the README of the tests promises is held by tests that are there."""

from __future__ import annotations

import re

from tests.helpers.job import PROJECT

README = (PROJECT / "tests" / "README.md").read_text(encoding="utf-8")
PROMISES = README.partition("## What the job promises\n")[2].partition("\n## ")[0]
TESTS = {file.stem.removeprefix("test_"): file for file in (PROJECT / "tests").rglob("test_*.py")}
TOPICS = ["crash", "power", "bad_server", "disk", "environment", "locks", "secrets", "bad_lists", "deliver", "check"]


def names_in(topic):
    return set(re.findall(r"^def (test_\w+)", TESTS[topic].read_text(encoding="utf-8"), re.MULTILINE))


def test_every_promise_names_a_test_and_every_test_that_is_named_is_there():
    promises = re.split(r"^- ", PROMISES, flags=re.MULTILINE)[1:]
    assert len(promises) >= 9
    known = set().union(*map(names_in, TESTS))
    for promise in promises:
        named = set(re.findall(r"`(test_\w+)`", promise))
        assert named, promise
        assert named <= known, named - known


def test_every_topic_is_among_the_promises():
    named = set(re.findall(r"`(test_\w+)`", PROMISES))
    assert all(named & names_in(topic) for topic in TOPICS)
