"""No text, however it was made, takes more than a moment: every pattern is linear in the length of the text."""

from __future__ import annotations

import ast
import importlib
import itertools
import pkgutil
import re
import time
from pathlib import Path
from types import BuiltinMethodType, ModuleType

import pytest

import jobs
from jobs.core.absence import names_absence
from jobs.core.causes import CLOSINGS, RULES, diagnose
from jobs.core.model import Answer, Stage
from jobs.core.secret import plain, scrub
from jobs.highlevel.middleboxes import looks, text_of

LONGEST_TEXT = 40_000  # Characters of a page; of a text that is kept for recognition there are 2,000.
LONGEST_SAID = 2_000
PIECES = [
    "nginx/. ", "nginx/", "404 ", "not found ", "<", "<a ", "<a b='", "<script>", "</script", "<!--", "<style><", "&#9",
    "location ", "no location ", "location not ", "no installation for ", "cannot find ", "can't ", "a.", ".", "; ", "|",
    "A_", "aB", "1", "1.", "1e", "0,", "'", "''", "=", "a=", "@", "a@a.", "-", "a-", ":", "/", "%", "eyJ", "eyJa.", " ",
    "\t", "\r", "\r\n", "X: y\r\n", "HTTP/1.1 200 OK\r\n", "\x00", "\u200b", "sign in to the ", "request was ", "at line 1",
    "network ", "1h", "1m", "error ", "page", "was ", "gone", "a", "a" * 39 + " ", "a" * 24 + " ",
]  # fmt: skip
ENDS = ["", "zzz", "!", "\x00", "\n", "'"]


def modules():
    for found in pkgutil.walk_packages(jobs.__path__, "jobs."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def patterns():
    """Every compiled pattern that a module of the job holds, in a table or in a function of one, by its text."""
    found, seen, todo = {}, set(), [value for module in modules() for value in vars(module).values()]
    while todo:
        value = todo.pop()
        if id(value) in seen or isinstance(value, ModuleType | str | bytes):
            continue
        seen.add(id(value))
        if isinstance(value, BuiltinMethodType) and isinstance(value.__self__, re.Pattern):
            value = value.__self__
        if isinstance(value, re.Pattern):
            found[value.pattern] = value
        elif isinstance(value, dict):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            todo += value
        elif getattr(type(value), "__module__", "").startswith("jobs.") and hasattr(value, "__dataclass_fields__"):
            todo += [getattr(value, name) for name in value.__dataclass_fields__]
        elif isinstance(value, type) and value.__module__.startswith("jobs."):
            todo += vars(value).values()
    return found


PATTERNS = patterns()


def adversarial(length):
    """Texts of `length` that make a pattern try again and again: one piece or two, over and over, and an end that fits none."""
    pairs = [(one, two) for one, two in itertools.permutations(PIECES[:24], 2)]
    for pieces in [*((one,) for one in PIECES), *pairs]:
        unit = "".join(pieces)
        text = (unit * (length // len(unit) + 1))[:length]
        for end in ENDS if len(pieces) == 1 else ENDS[1:2]:
            yield text[: length - len(end)] + end


def only_at_the_beginning():
    """The patterns that are asked for at the beginning of a text alone: to look for one anywhere would be another matter."""
    found = set()
    for module in modules():
        held = {name: value for name, value in vars(module).items() if isinstance(value, re.Pattern)}
        uses = [
            (node.value.id, node.attr)
            for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in held
        ]
        for name, pattern in held.items():
            asked = {how for used, how in uses if used == name}
            if asked and asked <= {"match", "fullmatch"}:
                found.add(pattern.pattern)
    return found


AT_THE_BEGINNING = only_at_the_beginning()


def seconds_of(pattern, text):
    subject = text.encode(errors="replace") if isinstance(pattern.pattern, bytes) else text
    began = time.thread_time()
    pattern.fullmatch(subject)
    pattern.match(subject)
    if pattern.pattern not in AT_THE_BEGINNING:
        for _ in pattern.finditer(subject):
            pass
    return time.thread_time() - began


def test_every_pattern_of_the_job_is_found_here():
    made: list[str] = []
    for file in Path(jobs.__path__[0]).rglob("*.py"):
        tree = ast.parse(file.read_text())
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
        of_re = [
            call.func.attr for call in calls if isinstance(call.func.value, ast.Name) and call.func.value.id == "re"
        ]
        assert set(of_re) <= {"compile", "escape"}, f"{file.name} has a pattern that no module holds"
        made += [file.name] * of_re.count("compile")
    assert len(PATTERNS) >= len(made), made


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=[str(number) for number in range(len(PATTERNS))])
def test_every_pattern_is_linear_on_texts_that_were_made_against_it(pattern):
    for text in adversarial(LONGEST_SAID):
        assert seconds_of(pattern, text) < 1, (pattern.pattern, text[:40])
    for piece in PIECES:
        text = (piece * LONGEST_TEXT)[:LONGEST_TEXT] + "zzz"
        assert seconds_of(pattern, text) < 2, (pattern.pattern, piece)


def test_what_a_text_means_is_known_at_once_whatever_the_text():
    began = time.thread_time()
    count = 0
    for text in adversarial(LONGEST_SAID):
        count += 1
        names_absence(text)
        for rule in RULES:
            rule.says(text)
        for *_, says in CLOSINGS:
            says(text)
    assert (time.thread_time() - began) / count < 0.1


@pytest.mark.parametrize("piece", PIECES)
def test_the_words_of_any_page_are_read_at_once(piece):
    page = (piece * LONGEST_TEXT)[: 1 << 20]
    began = time.thread_time()
    words = text_of(page)
    looks(page, words)
    plain(scrub(page), 2_000)
    assert time.thread_time() - began < 2


def test_the_text_that_once_hung_the_process_has_a_cause_at_once():
    began = time.thread_time()
    diagnose(Answer(Stage.RECONNECT, 404, "nginx/. " * 240 + "zzz"))
    diagnose(Answer(Stage.RECONNECT, 400, "location " * 220))
    text_of("<" * (1 << 20))
    assert time.thread_time() - began < 1
