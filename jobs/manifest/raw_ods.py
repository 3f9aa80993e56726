"""An ods: its size, and what its reader hides. The reader holds all sheets at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from jobs.manifest.raw_cells import LONGEST_TEXT, MOST_COLUMNS, Extent, HiddenCell
from jobs.manifest.raw_parts import damaged, has_password, number, parsed, too_large, xml_parser

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from zipfile import ZipFile

# A number as spreadsheets show it, in any language. Its format may also make TRUE, a date or an error of it.
_NUMBER = re.compile(r"[-+]?(?!0\d)[\d.,'\u2019\s]+(?:E[-+]?\d+)?")
# The reader shows such a duration as it is written in the file.
_OVER_A_DAY = re.compile(r"PT(?:\d{3,}|2[4-9]|[3-9]\d)H", re.ASCII)
_CELLS = {"table:table-cell", "table:covered-table-cell"}
_VALUES = {"office:value", "office:string-value", "office:date-value", "office:time-value", "office:boolean-value"}
_OUTSIDE, _IN_SHEET, _IN_ROW, _IN_CELL = range(4)
# What a person sees for elements that are signs.
_SIGNS = {"text:tab": "\t", "text:line-break": "\n"}


def measured(archive: ZipFile, where: str) -> Callable[[Collection[int]], Iterator[HiddenCell]]:
    """What looks up the errors and the formulas without a value of some sheets, in order, in one pass for all.

    Raises UserError if the workbook has a password, or the reader would need too much memory to open it.
    """
    _check_password(archive, where)
    with_hidden = {found.sheet for batch in _scanned(archive, where) for found in batch}

    def hidden(sheets: Collection[int]) -> Iterator[HiddenCell]:
        wanted = with_hidden.intersection(sheets)
        for batch in _scanned(archive, where) if wanted else ():
            for sheet, first, rows, cells in batch:
                for row in range(first, first + rows) if sheet in wanted else ():
                    yield from (HiddenCell(sheet, row, *cell) for cell in cells)

    return hidden


def _check_password(archive: ZipFile, where: str) -> None:
    def start(tag: str, _: dict[str, str]) -> None:
        if tag == "manifest:encryption-data":
            raise has_password(where)

    parser = xml_parser(where)
    parser.StartElementHandler = start
    for _ in parsed(archive, "META-INF/manifest.xml", parser, where):
        pass


class _Rows(NamedTuple):
    """Equal rows with hidden cells: the first, how many there are, and the cells in each, by their columns."""

    sheet: int
    first: int
    rows: int
    cells: list[tuple[int, str, bool]]


def _scanned(archive: ZipFile, where: str) -> Iterator[list[_Rows]]:
    """What the reader hides in all sheets, in order, a piece of the part at a time. All sheets are measured."""
    scan = _Scan(where)
    parser = xml_parser(where)
    parser.StartElementHandler = scan.start
    parser.EndElementHandler = scan.end
    parser.CharacterDataHandler = scan.text
    parser.StartCdataSectionHandler = scan.cdata
    for _ in parsed(archive, "content.xml", parser, where):
        yield scan.found
        scan.found.clear()


class _Scan:
    """Follows the sheets as the reader does, and collects in `found` what it hides."""

    def __init__(self, where: str) -> None:
        self.found: list[_Rows] = []
        self._where = where
        self._extent = Extent(where)
        self._sheet = -1
        self._row = self._rows = 1
        self._column = self._filled = self._characters = 0
        self._last = -1
        self._level = _OUTSIDE
        self._notes = 0
        self._cell: dict[str, str] = {}
        self._text = ""
        self._paragraphs = 0
        self._lost = False
        self._hidden: list[tuple[int, str, bool]] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if self._level == _IN_CELL:
            self._start_inside_cell(tag, attributes)
        elif self._level == _IN_ROW and tag in _CELLS:
            self._level, self._cell = _IN_CELL, attributes
            self._text, self._paragraphs, self._lost = "", 0, False
        elif self._level == _IN_SHEET and tag == "table:table-row":
            self._level, self._column, self._hidden = _IN_ROW, 0, []
            self._last, self._filled, self._characters = -1, 0, 0
            repeated = attributes.get("table:number-rows-repeated")
            self._rows = 1 if repeated is None else number(repeated, self._where)
        elif tag == "table:table":
            self._start_sheet(attributes)

    def _start_sheet(self, attributes: dict[str, str]) -> None:
        if self._level != _OUTSIDE:
            raise damaged(self._where)
        if "table:name" in attributes:
            self._level, self._row = _IN_SHEET, 1
            self._sheet += 1
            self._extent.start_sheet()

    def _start_inside_cell(self, tag: str, attributes: dict[str, str]) -> None:
        if self._notes or tag == "office:annotation":
            self._notes += 1
        elif tag == "text:p":
            if self._paragraphs:
                self._add("\n")
            self._paragraphs += 1
        elif tag == "text:s":
            self._add(" ", number(attributes.get("text:c", "1"), self._where))
        elif tag in _SIGNS:
            self._add(_SIGNS[tag])
            self._lost = True

    def _add(self, text: str, times: int = 1) -> None:
        if len(self._text) + len(text) * times > LONGEST_TEXT:
            raise too_large(self._where, f"a cell holds more than {LONGEST_TEXT:,} characters")
        self._text += text * times

    def text(self, text: str) -> None:
        if self._level == _IN_CELL and not self._notes:
            self._add(text)

    def cdata(self) -> None:
        """A form of text that the reader leaves out."""
        self._lost = self._lost or self._level == _IN_CELL

    def end(self, tag: str) -> None:
        if self._level == _IN_CELL:
            if self._notes:
                self._notes -= 1
            elif tag in _CELLS:
                self._end_cell()
                self._level = _IN_ROW
        elif self._level == _IN_ROW and tag == "table:table-row":
            self._end_row()
        elif self._level == _IN_SHEET and tag == "table:table":
            self._level = _OUTSIDE

    def _end_row(self) -> None:
        if self._last >= 0:
            self._extent.add(self._row, 0, self._last, self._filled, self._characters, self._rows)
        if self._hidden:
            self.found.append(_Rows(self._sheet, self._row, self._rows, self._hidden))
        self._row += self._rows
        self._level = _IN_SHEET

    def _end_cell(self) -> None:
        cell, text = self._cell, self._text
        repeated = cell.get("table:number-columns-repeated")
        columns = 1 if repeated is None else number(repeated, self._where)
        value = next((cell[name] for name in cell if name in _VALUES), None)
        is_text = value is None and cell.get("office:value-type") == "string"
        formula = "table:formula" in cell
        if is_text:
            value = text
        if text or formula or value is not None:
            self._fill(columns, len(value or ""))
            if not value or self._is_wrong(is_text=is_text):
                self._hide(columns, formula=formula, is_text=is_text or value is None)
        self._column += columns

    def _fill(self, columns: int, characters: int) -> None:
        self._last = self._column + columns - 1
        self._filled += columns
        self._characters += characters * columns
        if self._last >= MOST_COLUMNS:
            raise too_large(self._where, "a sheet ends at column XFD")

    def _is_wrong(self, *, is_text: bool) -> bool:
        """Whether the cell has a value that a person does not see."""
        cell, text = self._cell, self._text
        if is_text or cell.get("calcext:value-type") == "error":
            return self._lost or cell.get("calcext:value-type") == "error"
        if cell.get("office:value-type") == "time":
            return bool(_OVER_A_DAY.match(cell.get("office:time-value", "")))
        return "office:value" in cell and bool(text) and not _NUMBER.fullmatch(text)

    def _hide(self, columns: int, *, formula: bool, is_text: bool) -> None:
        if self._text or formula:
            self._hidden.extend((self._column + place, self._text, is_text) for place in range(columns))
