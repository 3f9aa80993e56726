"""The cells of a sheet as text, as a person sees them, and why one cannot be an id or a token."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobs.manifest.raw_cells import HiddenCell

    Cell = str | float | bool | date | datetime | time | timedelta

_MOST_EXACT = 2**53  # From here on a number of a spreadsheet is no longer exact, so its digits may be wrong.
_ERROR = re.compile(r"#[A-Z0-9/_?!]{0,20}|Err:[0-9]{1,5}")
_AGAIN = "format the column as text, and enter it again"
_NOT_AN_ID: dict[type, str] = {
    float: "a number that is not whole or has too many digits",
    int: "a number that has too many digits",
    bool: "TRUE or FALSE",
    datetime: "a date",
    date: "a date",
    time: "a time",
    timedelta: "a duration",
}


def text_of(cell: Cell) -> str:
    """A cell as a person sees it."""
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, (date, time)):
        return cell.isoformat()
    if isinstance(cell, timedelta):
        minutes, seconds = divmod(round(cell.total_seconds()), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    if isinstance(cell, (int, float)):
        return str(int(cell)) if _is_exact(cell) else f"{cell:.15g}"  # A spreadsheet has no more digits.
    return cell


def _is_exact(cell: float) -> bool:
    """Whether a number is whole and has all its digits."""
    return abs(cell) < _MOST_EXACT and cell == int(cell)


def has_no_text(cell: HiddenCell) -> bool:
    """Whether a cell that calamine does not show holds an error, or a formula without a value."""
    return not cell.shown or bool(_ERROR.fullmatch(cell.shown))


def why_not_an_id(cell: Cell, hidden: HiddenCell | None) -> tuple[str, str] | None:
    """What a cell holds in place of an id or a token, and what to do. None if it is one."""
    if hidden is not None and hidden.shown == "":
        return "a formula without a value", "replace it by its value"
    if hidden is not None and _ERROR.fullmatch(hidden.shown):
        return "an error", "correct it"
    if hidden is not None:
        return None if hidden.is_text or hidden.shown.isdigit() else ("a number, a date or a duration", _AGAIN)
    if isinstance(cell, (int, float)) and not isinstance(cell, bool) and _is_exact(cell):
        return None
    return _NOT_AN_ID[type(cell)], _AGAIN


class HiddenCells:
    """The cells that calamine does not show. They are asked for in their order."""

    def __init__(self, cells: Iterable[HiddenCell]) -> None:
        self._cells = iter(cells)
        self._next = next(self._cells, None)

    def row_in(self, sheet: int) -> int:
        """The next row with such cells in a sheet. 0 if there is none."""
        return self._next.row if self._next and self._next.sheet == sheet else 0

    def take(self, first_column: int) -> dict[int, HiddenCell]:
        """Those of the next row, by their places after `first_column`."""
        found: dict[int, HiddenCell] = {}
        first = cell = self._next
        while first and cell and (cell.sheet, cell.row) == (first.sheet, first.row):
            found[cell.column - first_column] = cell
            cell = next(self._cells, None)
        self._next = cell
        return found
