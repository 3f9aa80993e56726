"""The house stays small, and what the README says is true."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from jobs.errors import Exit
from jobs.model import Cause
from jobs.reports.columns import FAILURES, RESULTS

PROJECT = Path(__file__).resolve().parent.parent
ROOMS = sorted(PROJECT.glob("jobs/**/*.py"))
README = (PROJECT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(PROJECT)))
def test_a_room_is_small_and_so_are_its_functions(room):
    text = room.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno <= 40, node.name


def test_the_sandbox_imports_nothing_of_the_job():
    for room in (PROJECT / "jobs" / "sandbox").glob("*.py"):
        for node in ast.walk(ast.parse(room.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jobs"):
                assert node.module.startswith("jobs.sandbox")


def test_the_readme_names_every_cause_column_and_exit_code():
    for cause in Cause:
        assert f"`{cause.value}`" in README
    for code in Exit:
        assert f"| {int(code)} |" in README
    for column in (*RESULTS, *FAILURES):
        assert f"`{column.name}`" in README
