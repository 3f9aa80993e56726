"""Cells that a spreadsheet would run as a formula: made harmless, reversibly."""

from __future__ import annotations

import re

_TRIGGER = "=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20"
_RUNS = re.compile(f"'*[{_TRIGGER}]")
_GUARDED = re.compile(f"'+[{_TRIGGER}]")


def guard(cell: str) -> str:
    """`cell` as a spreadsheet shows it and does not run it."""
    return "'" + cell if _RUNS.match(cell) else cell


def unguard(cell: str) -> str:
    """The cell that `guard` was given."""
    return cell[1:] if _GUARDED.match(cell) else cell
