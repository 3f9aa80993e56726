"""An xlsx: its size, and what its reader hides. The places and names of parts are looked up as the reader does."""

from __future__ import annotations

import re
from array import array
from functools import cache
from typing import TYPE_CHECKING

from jobs.manifest.raw_cells import LONGEST_TEXT, MOST_CELLS, MOST_TEXT, Extent, HiddenCell
from jobs.manifest.raw_parts import damaged, parsed, part, too_large, xml_parser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from zipfile import ZipFile

_PLACE = re.compile(r"([A-Za-z]{1,3})([0-9]{1,7})", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)
_MOST_NAMES = 1000
_INLINE = ("inlineStr", "is")
# A value of these types is an empty cell if it has no text. Of others, an empty text.
_EMPTY_WITHOUT_TEXT = (None, "n", "s")


class _WithoutPrefix(dict[str, str]):
    """The names of elements and attributes without their prefixes."""

    def __missing__(self, name: str) -> str:
        local = name.rpartition(":")[2]
        if len(self) < _MOST_NAMES:
            self[name] = local
        return local


_LOCAL = _WithoutPrefix()


def check(archive: ZipFile, where: str) -> None:
    """Raise UserError if the reader would need too much memory for its texts, or for as many as it says it has."""
    name = _root(archive, where) + "sharedStrings.xml"
    if texts := part(archive, name):
        if texts.file_size > MOST_TEXT:
            raise too_large(where, f"its texts take more than {MOST_TEXT:,} bytes")
        count = next(_elements(archive, name, "sst", where), {}).get("uniqueCount", "0")
        if not _DIGITS.fullmatch(count) or int(count) > MOST_CELLS:
            raise too_large(where, f"it says that it has more than {MOST_CELLS:,} texts")


def hidden(archive: ZipFile, sheet: int, where: str) -> Iterator[HiddenCell]:
    """The errors and the formulas without a value in a sheet, in order."""
    root = _root(archive, where)
    lengths = _lengths_of_texts(archive, root, where)
    name = _part_of_sheet(archive, root, sheet, where)
    scan = _SheetScan(lengths, where)
    for _ in _read(archive, name, scan, where):
        yield from scan.found
        scan.found.clear()


def _elements(archive: ZipFile, name: str, wanted: str, where: str) -> Iterator[dict[str, str]]:
    """The attributes of each element with this name in a part."""
    found: list[dict[str, str]] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if _LOCAL[tag] == wanted:
            found.append(attributes)

    parser = xml_parser(where)
    parser.StartElementHandler = start
    info = part(archive, name)
    if info is None:
        raise damaged(where)
    with archive.open(info) as stream:
        for _ in parsed(stream, parser, where):
            yield from found
            found.clear()


def _root(archive: ZipFile, where: str) -> str:
    """The folder of the workbook's parts, such as `xl/`."""
    targets = [
        one.get("Target", "")
        for one in _elements(archive, "_rels/.rels", "Relationship", where)
        if one.get("Type", "").endswith("/relationships/officeDocument")
    ]
    if not targets:
        raise damaged(where)
    return (targets[-1].rpartition("/")[0] + "/").removeprefix("/")


def _part_of_sheet(archive: ZipFile, root: str, sheet: int, where: str) -> str:
    """The name of the part that holds a sheet."""
    sheets = [*_elements(archive, root + "workbook.xml", "sheet", where)]
    if len({one.get("name", "").casefold() for one in sheets}) < len(sheets) or sheet >= len(sheets):
        raise damaged(where)
    ids = [value for name, value in sheets[sheet].items() if _LOCAL[name] == "id"]
    targets = {
        one.get("Id"): one.get("Target", "")
        for one in _elements(archive, root + "_rels/workbook.xml.rels", "Relationship", where)
    }
    target = targets.get(ids[-1]) if ids else None
    if target is None:
        raise damaged(where)
    return target.removeprefix("/") if target.startswith("/") else root + target


def _lengths_of_texts(archive: ZipFile, root: str, where: str) -> array[int]:
    """The length of each text that cells share."""
    scan = _TextsScan()
    if part(archive, root + "sharedStrings.xml"):
        for _ in _read(archive, root + "sharedStrings.xml", scan, where):
            pass
    return scan.lengths


def _read(archive: ZipFile, name: str, scan: _TextsScan | _SheetScan, where: str) -> Iterator[None]:
    """Give a part to `scan`, a piece at a time."""
    info = part(archive, name)
    if info is None:
        raise damaged(where)
    parser = xml_parser(where)
    parser.StartElementHandler = scan.start
    parser.EndElementHandler = scan.end
    parser.CharacterDataHandler = scan.text
    parser.CommentHandler = parser.StartCdataSectionHandler = parser.ProcessingInstructionHandler = scan.odd
    with archive.open(info) as stream:
        yield from parsed(stream, parser, where)


class _TextsScan:
    """Counts the characters of each shared text."""

    def __init__(self) -> None:
        self.lengths = array("I")
        self._length = 0

    def start(self, tag: str, _: dict[str, str]) -> None:
        if _LOCAL[tag] == "si":
            self._length = 0

    def text(self, text: str) -> None:
        self._length += len(text)

    def end(self, tag: str) -> None:
        if _LOCAL[tag] == "si":
            self.lengths.append(self._length)

    def odd(self, *_: object) -> None:
        """A comment changes no text."""


class _SheetScan:
    """Follows a sheet as the reader does, cell by cell, and collects in `found` what the reader hides.

    The reader takes the last part of a cell as its value: `v`, `is`, or the formula `f`, which has none. A cell that comes
    twice has no certain value.
    """

    def __init__(self, lengths: array[int], where: str) -> None:
        self.found: list[HiddenCell] = []
        self._lengths = lengths
        self._where = where
        self._extent = Extent(where)
        self._inside: bool | None = None  # None before the cells
        self._row, self._column = 1, 0
        self._place = (0, 0)
        self._filled = (0, 0, -1, 0)  # The row of the last filled cell, its first and last column, and its text.
        self._type: str | None = None
        self._in_cell = self._formula = self._lost = self._spoken = False
        self._part = self._text = self._value = ""
        self._length: int | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = _LOCAL[tag]
        if self._in_cell:
            if not self._part:
                self._part, self._text = name, ""
                if name == "f":
                    self._formula = True
            elif name == "rPh":
                self._spoken = True
        elif self._inside:
            if name == "c":
                self._start_cell(attributes)
            elif name == "row" and "r" in attributes:
                self._row = self._number(attributes["r"])
        elif name == "sheetData" and self._inside is None:
            self._inside = True

    def _number(self, text: str) -> int:
        if not _DIGITS.fullmatch(text):
            raise damaged(self._where)
        return int(text)

    def _start_cell(self, attributes: dict[str, str]) -> None:
        row, column = self._row, self._column
        if place := attributes.get("r"):
            found = _PLACE.fullmatch(place)
            if found is None:
                raise damaged(self._where)
            row, column = int(found[2]), _column(found[1])
        self._place = row, column
        self._column = column + 1
        self._type = attributes.get("t")
        self._in_cell = True
        self._formula = self._lost = False
        self._value = ""
        self._length = None

    def text(self, text: str) -> None:
        if self._part and self._part != "f" and not self._spoken:
            self._text += text
            if len(self._text) > LONGEST_TEXT:
                raise too_large(self._where, f"a cell holds more than {LONGEST_TEXT:,} characters")

    def odd(self, *_: object) -> None:
        """A comment or the like, which the reader takes for the end of a value."""
        self._lost = self._lost or self._part == "v"

    def end(self, tag: str) -> None:
        name = _LOCAL[tag]
        if self._in_cell:
            if name == self._part:
                self._end_part(name)
            elif name == "rPh":
                self._spoken = False
            elif name == "c" and not self._part:
                self._end_cell()
        elif name == "row":
            self._row += 1
            self._column = 0
        elif name == "sheetData" and self._inside:
            self._end_row()
            self._inside = False

    def _end_part(self, name: str) -> None:
        self._part, text = "", self._text
        self._length = None
        if name == "f":
            return
        if name == "v" and self._type == "s" and text:
            self._length = self._length_of(text)
            return
        self._value = text or self._value
        if name == "is" or (self._type not in _INLINE and (text or self._type not in _EMPTY_WITHOUT_TEXT)):
            self._length = len(text)

    def _length_of(self, number: str) -> int:
        if self._lost or not _DIGITS.fullmatch(number) or int(number) >= len(self._lengths):
            raise damaged(self._where)  # The reader would show another text.
        return self._lengths[int(number)]

    def _end_cell(self) -> None:
        self._in_cell = False
        length = self._length
        if length is None and not self._formula and not self._value:
            return
        row, column = self._place
        filled, first, last, text = self._filled
        if row != filled:
            self._end_row()
            first, text = column, 0
        elif column <= last:
            raise damaged(self._where)
        self._filled = row, first, column, text + (length or 0)
        if not length or self._type == "e" or self._lost:
            self._hide(row, column)

    def _hide(self, row: int, column: int) -> None:
        if self._formula or self._value:
            self.found.append(HiddenCell(row, column, self._value))

    def _end_row(self) -> None:
        row, first, last, text = self._filled
        if row:
            self._extent.add(row, first, last, text)


@cache
def _column(letters: str) -> int:
    """The number of a column from 0. A is 0, and AA is 26."""
    number = 0
    for letter in letters.upper():
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1
