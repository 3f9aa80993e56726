"""Every text that a person reads is in plain English: the phrases below are not used, and each has a plain one beside it."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from itertools import pairwise
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent

# A phrase that is not used, and what to write instead. Normal English must pass: see the two lists of examples.
PHRASES = {
    r"\bmend(?:s|ed|ing)?\b": "fix, correct",
    r"\bbut for\b|\bsave for\b": "except",
    r"(?<![Tt]here )(?<!than )\b(?:is|are|was|were) no (?!longer\b|more\b|such\b|doubt\b)(?=[\w{])": "is not a ...",
    r"(?<![Tt]here )\b(?:is|are|was|were) none\b(?! of (?:them|these|those)\b)": "is not one",
    r"\bof it is made\b": "is made of",
    r"\bbears?\b|\bbore\b": "has, carries",
    r"\blacking\b": "missing",
    r"\b(?:is|are|was|were) to be\b": "must be, will be",
    r"\banew\b": "again",
    r"\bstands in\b|\bstands? (?:behind|below|above|beside|there|under|where)\b": "is in, comes after",
    r"\blies? (?:in|behind|beside|there|below|under)\b": "is in, comes after",
    r"\b[Rr]aises? (?:[\w`]+[, ]+)*where\b": "raises ... if",
    r"(?:\bNone|''|`\"\"`|\b[Ee]mpty|\bFalse|\bTrue|\belse|-1) where\b": "None if",
    r"\bwhere (?:it|one|there|they|he|that|this) (?:is|are|was|were|has|have|had|does|do) (?:not|none|no)\b": "if ... not",
    r"; else\b(?! if)": "otherwise",
    r"\bWhere (?:no|nothing|nobody|there|it|one|a|an)\b(?! to\b)[^?]*(?!\?)\Z": "If ...",
    r"\b(?:if|where) need be\b": "if needed",
    r"\bfor who\b": "for somebody who",
    r"\bsa(?:y|ys|id) of\b": "say about",
    r"\bof the user's(?:[^\w\s]| (?:that|which|where|whose|is|are)\b)": "the user's own",
    r"\b(?:the|an) own\b": "its own",
    r"\bthe \w+ there (?:is|are)\b": "the ... that exists",
    r"\bvery pair\b": "the client id and secret that the app was installed with",
    r"\bgently\b": "gracefully",
    r"\bin the place of\b": "in place of",
    r"\b(?:what|which) (?:is|was) \w+ed is \w+ed\b": "the job ... what is ...",
    r"\A\W*Of (?!course\b)": "a sentence that begins with its subject",
}
PLAIN = [
    "The job no longer runs.", "There is no lock.", "It has no header.", "There are none.", "If there is none, stop.",
    "There are no more than ten.", "An install is no more than a row.", "Is the folder in place of the file?",
    "a bearer token", "Nothing is left but the ledger.", "for whoever reads it", "None of these are used.",
    "It raises UserError if the file is missing.", "the folder where it is", "Of course.", "It stands for an id.",
    "the ledger beside it", "The user's own columns are kept.", "columns of the user's list", "its own file", "commend it",
    "Two of them are none of these.", "If not, or else.", "Where is it?", "Where to add a column", "the folder where it is kept",
]  # fmt: skip
FOREIGN = [
    "is to be mended", "every column but for the ids", "is no valid id", "'x' is no {}", "a ledger that is none that is slow",
    "a name that a report bears", "three of them are lacking", "it is to be looked at", "draw the line anew",
    "the cause stands in its row", "it lies in the future", "Raises UserError where it is held.", "None where it was not told.",
    "the end, where it has not ended", "for who has it alone", "what answers say of limits", "cells of the user's, in order",
    "the own reader", "it keeps the pair there is", "check the very pair", "stops gently", "a row in the place of another",
    "what is recovered is skipped", "a list; else the run stops", "Where it is held, the job waits.", "quotes if need be", "Of a window, kept free.",
]  # fmt: skip


def _in_python(source: str, *, only_docs: bool) -> list[tuple[int, str]]:
    """The texts of a module by line: its comments and strings, or only comments, docstrings and names of tests."""
    tree = ast.parse(source)
    parts = [part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values]
    found = [(node.lineno, _text(node)) for node in ast.walk(tree) if _is_text(node) and node not in parts]
    if only_docs:
        of_docs = (ast.Module, ast.ClassDef, ast.FunctionDef)
        documented = [node for node in ast.walk(tree) if isinstance(node, of_docs)]
        found = [(getattr(node, "lineno", 1), ast.get_docstring(node) or "") for node in documented]
        found += [
            (node.lineno, node.name.replace("_", " ")) for node in documented if isinstance(node, ast.FunctionDef)
        ]
    return found + _comments(source)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _text(node: ast.AST) -> str:
    """A string as it reads, with `{}` for what a run fills in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return node.value


def _comments(source: str) -> list[tuple[int, str]]:
    """The comments of a module. Comments on lines that follow each other are one text."""
    found: list[tuple[int, str]] = []
    before = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, words = token.start[0], token.string.lstrip("# ")
            alone = token.line.lstrip().startswith("#")
            if alone and before == line - 1:
                found[-1] = (found[-1][0], f"{found[-1][1]} {words}")
            else:
                found.append((line, words))
            before = line if alone else -1
    return found


def _texts(file: Path) -> list[tuple[int, str]]:
    source = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        return _in_python(source, only_docs=file.is_relative_to(PROJECT / "tests"))
    if file.suffix == ".md":
        # A sentence may go on in the next line, so a paragraph is one text.
        starts = [0, *(match.end() for match in re.finditer(r"\n\s*\n", source)), len(source)]
        return [(source.count("\n", 0, a) + 1, source[a:b]) for a, b in pairwise(starts)]
    return [(number, line.lstrip("# ")) for number, line in enumerate(source.splitlines(), start=1)]


def _foreign(text: str) -> list[str]:
    """The phrases of a text that are not used, each with what to write instead."""
    plain = " ".join(text.split())
    return [f"{found[0]!r}: write {instead}" for way, instead in PHRASES.items() if (found := re.search(way, plain))]


def _files() -> list[Path]:
    inside = [file for folder in ("jobs", "config", "tests") for file in (PROJECT / folder).rglob("*")]
    kinds = {".py", ".toml", ".txt", ".j2", ".js", ".css", ".md"}
    named = [PROJECT / name for name in ("Makefile", ".ci/run", "data/README.md")]
    return [*named, *sorted(file for file in inside if file.suffix in kinds)]


def _place(file: Path) -> str:
    return str(file.relative_to(PROJECT))


def _wrong(file: Path) -> list[str]:
    return [f"{_place(file)}:{line}: {wrong}" for line, text in _texts(file) for wrong in _foreign(text)]


@pytest.mark.parametrize("file", _files(), ids=_place)
def test_a_text_for_a_person_is_in_plain_english(file):
    assert not _wrong(file)


@pytest.mark.parametrize("sentence", PLAIN)
def test_normal_english_passes(sentence):
    assert not _foreign(sentence)


@pytest.mark.parametrize("sentence", FOREIGN)
def test_a_phrase_that_is_not_used_is_found(sentence):
    assert _foreign(sentence)
