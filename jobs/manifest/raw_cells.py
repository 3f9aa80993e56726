"""The cells that a workbook's reader shows in another way than a person sees them, and how much of a sheet it can hold."""

from __future__ import annotations

from typing import NamedTuple

from jobs.manifest.raw_parts import damaged, too_large

MOST_ROWS = 2**20
MOST_COLUMNS = 2**14
# The reader holds a sheet as a full rectangle, 32 bytes a cell, and each cell's text on its own: 1 GiB of each.
MOST_CELLS = 2**25
MOST_TEXT = 2**30
# Beyond this area, a sheet must not be nearly empty: a single cell far from a small table would take a minute and a GiB.
_MOST_SPARSE, _MOST_PER_CELL = 2**22, 64

# Twice what Excel allows.
LONGEST_TEXT = 2**16


class HiddenCell(NamedTuple):
    """A cell that the reader shows as an empty one, or otherwise wrongly.

    `sheet` is the place of its sheet among all sheets of the workbook, from 0. `row` is the sheet's number, from 1. `column`
    counts from 0. `shown` is what a person sees: an error such as `#N/A`, a text, or '' for a formula without a value. `is_text`
    is whether it is a text, and not a number or the like that is shown so.
    """

    sheet: int
    row: int
    column: int
    shown: str
    is_text: bool = True


def cell_name(row: int, column: int) -> str:
    """The name of a cell. Row 1 and column 0 are A1, and column 26 is AA."""
    letters = ""
    while column >= 0:
        column, last = divmod(column, 26)
        letters = chr(ord("A") + last) + letters
        column -= 1
    return f"{letters}{row}"


class Extent:
    """How much of a sheet its cells fill. Raises UserError if the reader could not hold it.

    Rows must come in order: one that comes twice has no certain value.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._before = self._area = self._text = self._cells = 0
        self.start_sheet()

    def start_sheet(self) -> None:
        """Begin with another sheet, which the reader holds beside those before."""
        self._before += self._area
        self._area = 0
        self._top = self._bottom = 0
        self._left = MOST_COLUMNS
        self._right = -1

    def add(self, row: int, first: int, last: int, cells: int, text: int, rows: int = 1) -> None:
        """One more row, or equal rows: from which column to which, how many cells are filled, and their characters in each row."""
        bottom = row + rows - 1
        if row <= self._bottom:
            raise damaged(self._where)
        if bottom > MOST_ROWS or last >= MOST_COLUMNS:
            raise too_large(self._where, f"a sheet ends at row {MOST_ROWS:,} and column XFD")
        self._bottom = bottom
        self._top = self._top or row
        self._left, self._right = min(self._left, first), max(self._right, last)
        self._area = (bottom - self._top + 1) * (self._right - self._left + 1)
        self._text += text * rows
        self._cells += cells * rows
        if self._before + self._area > MOST_CELLS:
            raise too_large(self._where, f"its cells fill an area of more than {MOST_CELLS:,}")
        if self._before + self._area > _MOST_SPARSE + _MOST_PER_CELL * self._cells:
            raise too_large(self._where, f"{cell_name(bottom, last)} is far from its other cells")
        if self._text > MOST_TEXT:
            raise too_large(self._where, f"its cells hold more than {MOST_TEXT:,} characters")
