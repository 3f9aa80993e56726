"""Cells that a spreadsheet would run as a formula: made harmless, reversibly."""

from __future__ import annotations

import re

_SIGNS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
_TRIGGER = re.escape(_SIGNS)
_RUNS = re.compile(f"'*[{_TRIGGER}]")
_SHOWS = re.compile(r"[+\-@\uff0b\uff0d\uff20]?[\w .,&\-]*")
_GUARDED = re.compile(f"'+[{_TRIGGER}]")


def guard(cell: str) -> str:
    """`cell` as a spreadsheet shows it and does not run it."""
    return "'" + cell if _RUNS.match(cell) else cell


def unguard(cell: str) -> str:
    """The cell that `guard` was given."""
    return cell[1:] if _GUARDED.match(cell) else cell


def without_formula(cell: str) -> str:
    """`cell` for a list that stays as it is: where a spreadsheet would run it, without the signs at its beginning.

    A phone number, or a name with a plus before it, runs nothing.
    """
    return cell if _SHOWS.fullmatch(cell) else cell.lstrip(_SIGNS)
