"""Cells that a spreadsheet would run as a formula, made harmless in a way that can be undone; and cells by column name."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIGNS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
_TRIGGER = re.escape(_SIGNS)
_RUNS = re.compile(f"'*[{_TRIGGER}]")
_SHOWS = re.compile(r"[+\-@\uff0b\uff0d\uff20]?[\w .,&\-]*")
_GUARDED = re.compile(f"'+[{_TRIGGER}]")


def guard(cell: str) -> str:
    """`cell`, changed so that a spreadsheet shows it and does not run it."""
    return "'" + cell if _RUNS.match(cell) else cell


def unguard(cell: str) -> str:
    """The cell that `guard` was given."""
    return cell[1:] if _GUARDED.match(cell) else cell


def without_formula(cell: str) -> str:
    """`cell` without the signs at its beginning, if a spreadsheet would run it. For a file that cannot use `guard`.

    A phone number, or a name that begins with a plus, stays as it is: a spreadsheet does not run it.
    """
    return cell if _SHOWS.fullmatch(cell) else cell.lstrip(_SIGNS)


def under(columns: Sequence[str], named: Sequence[tuple[str, str]]) -> list[str]:
    """The cells of `named` (column, cell) in the order of `columns`. If two columns share a name, each keeps its own cell."""
    if [name for name, _ in named] == [*columns]:
        return [cell for _, cell in named]
    seen: Counter[str] = Counter()
    cells: dict[tuple[str, int], str] = {}
    for name, cell in named:
        cells[name, seen[name]] = cell
        seen[name] += 1
    asked: Counter[str] = Counter()
    row = []
    for name in columns:
        row.append(cells.get((name, asked[name]), ""))
        asked[name] += 1
    return row
