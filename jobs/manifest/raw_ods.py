"""An ods: its size, and what its reader hides. The reader holds all sheets at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from jobs.core.errors import refuse
from jobs.manifest.raw_cells import LONGEST_TEXT, MOST_COLUMNS, Extent, HiddenCell
from jobs.manifest.raw_parts import damaged, parsed, part, too_large, xml_parser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.parsers.expat import XMLParserType
    from zipfile import ZipFile

_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)
_ERROR = re.compile(r"#\S+|(?:Err|Error):\d+")
_CELLS = {"table:table-cell", "table:covered-table-cell"}
_VALUES = {"office:value", "office:string-value", "office:date-value", "office:time-value", "office:boolean-value"}
_OUTSIDE, _IN_SHEET, _IN_ROW, _IN_CELL = range(4)
# What a person sees for elements that are signs.
_SIGNS = {"text:tab": "\t", "text:line-break": "\n"}


def check(archive: ZipFile, where: str) -> None:
    """Raise UserError if the workbook has a password, or the reader would need too much memory to open it."""
    _check_password(archive, where)
    for _ in _scanned(archive, -1, where):
        pass


def hidden(archive: ZipFile, sheet: int, where: str) -> Iterator[HiddenCell]:
    """The errors and the formulas without a value in a sheet, in order."""
    return _scanned(archive, sheet, where)


def _check_password(archive: ZipFile, where: str) -> None:
    def start(tag: str, _: dict[str, str]) -> None:
        if tag == "manifest:encryption-data":
            raise refuse("has a password", where, "save it without one")

    parser = xml_parser(where)
    parser.StartElementHandler = start
    for _ in _read(archive, "META-INF/manifest.xml", parser, where):
        pass


def _read(archive: ZipFile, name: str, parser: XMLParserType, where: str) -> Iterator[None]:
    info = part(archive, name)
    if info is None:
        raise damaged(where)
    with archive.open(info) as stream:
        yield from parsed(stream, parser, where)


def _scanned(archive: ZipFile, sheet: int, where: str) -> Iterator[HiddenCell]:
    """The hidden cells of one sheet. All sheets are measured."""
    scan = _Scan(sheet, where)
    parser = xml_parser(where)
    parser.StartElementHandler = scan.start
    parser.EndElementHandler = scan.end
    parser.CharacterDataHandler = scan.text
    parser.StartCdataSectionHandler = scan.cdata
    for _ in _read(archive, "content.xml", parser, where):
        for first, rows, cells in scan.found:
            for row in range(first, first + rows):
                yield from (HiddenCell(row, column, shown) for column, shown in cells)
        scan.found.clear()


class _Scan:
    """Follows the sheets as the reader does, and collects in `found` what it hides of one: rows, and the cells in each of them."""

    def __init__(self, sheet: int, where: str) -> None:
        self.found: list[tuple[int, int, list[tuple[int, str]]]] = []
        self._wanted = sheet
        self._where = where
        self._extent = Extent(where)
        self._sheet = -1
        self._row = self._rows = 1
        self._column = self._characters = 0
        self._last = -1
        self._level = _OUTSIDE
        self._notes = 0
        self._cell: dict[str, str] = {}
        self._text = ""
        self._paragraphs = 0
        self._lost = False
        self._hidden: list[tuple[int, str]] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if self._level == _IN_CELL:
            self._start_inside_cell(tag, attributes)
        elif self._level == _IN_ROW and tag in _CELLS:
            self._level, self._cell = _IN_CELL, attributes
            self._text, self._paragraphs, self._lost = "", 0, False
        elif self._level == _IN_SHEET and tag == "table:table-row":
            self._level, self._column, self._hidden = _IN_ROW, 0, []
            self._last, self._characters = -1, 0
            repeated = attributes.get("table:number-rows-repeated")
            self._rows = 1 if repeated is None else self._number(repeated)
        elif tag == "table:table":
            self._start_sheet(attributes)

    def _start_sheet(self, attributes: dict[str, str]) -> None:
        if self._level != _OUTSIDE:
            raise damaged(self._where)
        if "table:name" in attributes:
            self._level, self._row = _IN_SHEET, 1
            self._sheet += 1
            self._extent.start_sheet()

    def _number(self, text: str) -> int:
        if not _DIGITS.fullmatch(text):
            raise damaged(self._where)
        return int(text)

    def _start_inside_cell(self, tag: str, attributes: dict[str, str]) -> None:
        if self._notes or tag == "office:annotation":
            self._notes += 1
        elif tag == "text:p":
            if self._paragraphs:
                self._add("\n")
            self._paragraphs += 1
        elif tag == "text:s":
            self._add(" ", self._number(attributes.get("text:c", "1")))
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
            self._extent.add(self._row, 0, self._last, self._characters, self._rows)
        if self._hidden and self._sheet == self._wanted:
            self.found.append((self._row, self._rows, self._hidden))
        self._row += self._rows
        self._level = _IN_SHEET

    def _end_cell(self) -> None:
        cell, text = self._cell, self._text
        repeated = cell.get("table:number-columns-repeated")
        columns = 1 if repeated is None else self._number(repeated)
        value = next((cell[name] for name in cell if name in _VALUES), None)
        is_text = value is None and cell.get("office:value-type") == "string"
        formula = "table:formula" in cell
        if is_text:
            value = text
        if text or formula or value is not None:
            self._fill(columns, len(value or ""))
            if not value or self._is_wrong(is_text=is_text):
                self._hide(columns, formula=formula)
        self._column += columns

    def _fill(self, columns: int, characters: int) -> None:
        self._last = self._column + columns - 1
        self._characters += characters * columns
        if self._last >= MOST_COLUMNS:
            raise too_large(self._where, "a sheet ends at column XFD")

    def _is_wrong(self, *, is_text: bool) -> bool:
        """Whether the cell has a value that a person does not see."""
        cell = self._cell
        if is_text:
            return self._lost or cell.get("calcext:value-type") == "error"
        return cell.get("calcext:value-type") == "error" or (
            "table:formula" in cell and bool(_ERROR.fullmatch(self._text))
        )

    def _hide(self, columns: int, *, formula: bool) -> None:
        if self._text or formula:
            self._hidden.extend((self._column + place, self._text) for place in range(columns))
