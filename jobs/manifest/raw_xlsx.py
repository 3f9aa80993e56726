"""An xlsx: its size, and what its reader hides. The places and names of parts are looked up as the reader does."""

from __future__ import annotations

import re
from array import array
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING

from jobs.core.errors import refuse
from jobs.core.secret import plain
from jobs.manifest.raw_cells import LONGEST_TEXT, MOST_CELLS, MOST_TEXT, Extent, HiddenCell, cell_name
from jobs.manifest.raw_parts import MOST_PARTS, damaged, normal_name, number, parsed, part, too_large, xml_parser

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from zipfile import ZipFile

    from jobs.core.errors import UserError

_PLACE = re.compile(r"([A-Za-z]{1,3})([0-9]{1,7})", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)
_MOST_NAMES = 1000
_INLINE = ("inlineStr", "is")
_ERRORS = {"#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!"}
# A value of these types is an empty cell if it has no text. Of others, an empty text.
_EMPTY_WITHOUT_TEXT = (None, "n", "s")


@lru_cache(_MOST_NAMES)
def _local(name: str) -> str:
    """The name of an element or an attribute without its prefix."""
    return name.rpartition(":")[2]


def measured(archive: ZipFile, where: str) -> Callable[[Collection[int]], Iterator[HiddenCell]]:
    """What looks up the errors and the formulas without a value of some sheets, in order.

    Raises UserError if the reader would need too much memory to open the workbook.
    """
    root = _root(archive, where)
    parts = _parts_of_sheets(archive, root, where)
    texts = root + "sharedStrings.xml"
    lengths = cache(partial(_lengths_of_texts, archive, texts, where))
    if info := part(archive, texts):
        if info.file_size > MOST_TEXT:
            raise too_large(where, f"its texts take more than {MOST_TEXT:,} bytes")
        count = next(_elements(archive, texts, "sst", where), {}).get("uniqueCount", "0")
        if not _DIGITS.fullmatch(count) or int(count) > MOST_CELLS:
            raise _too_many_texts(where)
        if info.file_size > MOST_CELLS * len("<si/>"):
            lengths()  # There may be more of them than it says.

    def hidden(sheets: Collection[int]) -> Iterator[HiddenCell]:
        for sheet in sorted(sheets):
            if sheet >= len(parts):
                raise damaged(where)
            title, name = parts[sheet]
            scan = _SheetScan(sheet, title, lengths(), where)
            for _ in _read(archive, name, scan, where):
                yield from scan.found
                scan.found.clear()

    return hidden


def _too_many_texts(where: str) -> UserError:
    return too_large(where, f"it has more than {MOST_CELLS:,} texts")


def _elements(archive: ZipFile, name: str, wanted: str, where: str) -> Iterator[dict[str, str]]:
    """The attributes of each element with this name in a part. Raises UserError if they are more than a workbook has parts."""
    found: list[dict[str, str]] = []
    left = MOST_PARTS

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal left
        if _local(tag) == wanted:
            found.append(attributes)
            left -= 1
            if left < 0:
                raise too_large(where, f"it has more than {MOST_PARTS:,} parts")

    parser = xml_parser(where)
    parser.StartElementHandler = start
    for _ in parsed(archive, name, parser, where):
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


def _parts_of_sheets(archive: ZipFile, root: str, where: str) -> list[tuple[str, str]]:
    """The name of each sheet, and that of its part."""
    listed = [*_elements(archive, root + "workbook.xml", "sheet", where)]
    targets = {
        one.get("Id"): one.get("Target", "")
        for one in _elements(archive, root + "_rels/workbook.xml.rels", "Relationship", where)
    }
    parts = [_target(one, targets, root) for one in listed]
    # A name or a part that comes twice would leave open which sheet is meant.
    names = [one.get("name", "") for one in listed]
    if min(len({*map(str.casefold, names)}), len({*map(normal_name, parts)})) < len(listed):
        raise damaged(where)
    return [*zip(names, parts, strict=True)]


def _target(sheet: Mapping[str, str], targets: Mapping[str | None, str], root: str) -> str:
    """The name of the part that a sheet of the workbook is in. '' if it is not told."""
    ids = [value for name, value in sheet.items() if _local(name) == "id"]
    target = targets.get(ids[-1], "") if ids else ""
    return target.removeprefix("/") if target.startswith("/") or not target else root + target


def _lengths_of_texts(archive: ZipFile, name: str, where: str) -> array[int]:
    """The length of each text that cells share."""
    scan = _TextsScan(where)
    if part(archive, name):
        for _ in _read(archive, name, scan, where):
            pass
    return scan.lengths


def _read(archive: ZipFile, name: str, scan: _TextsScan | _SheetScan, where: str) -> Iterator[None]:
    """Give a part to `scan`, a piece at a time."""
    parser = xml_parser(where)
    parser.StartElementHandler = scan.start
    parser.EndElementHandler = scan.end
    parser.CharacterDataHandler = scan.text
    parser.CommentHandler = parser.StartCdataSectionHandler = parser.ProcessingInstructionHandler = scan.comment
    return parsed(archive, name, parser, where)


class _TextsScan:
    """Counts the characters of each shared text."""

    def __init__(self, where: str) -> None:
        self.lengths = array("I")
        self._where = where
        self._length = 0

    def start(self, tag: str, _: dict[str, str]) -> None:
        if _local(tag) == "si":
            self._length = 0

    def text(self, text: str) -> None:
        self._length += len(text)

    def end(self, tag: str) -> None:
        if _local(tag) == "si":
            self.lengths.append(self._length)
            if len(self.lengths) > MOST_CELLS:
                raise _too_many_texts(self._where)

    def comment(self, *_: object) -> None:
        """A comment changes no text."""


class _SheetScan:
    """Follows a sheet as the reader does, cell by cell, and collects in `found` what the reader hides.

    The reader takes the last part of a cell as its value: `v`, `is`, or the formula `f`, which has none. A cell that comes
    twice has no certain value.
    """

    def __init__(self, sheet: int, title: str, lengths: array[int], where: str) -> None:
        self.found: list[HiddenCell] = []
        self._sheet, self._title = sheet, title
        self._lengths = lengths
        self._where = where
        self._extent = Extent(where)
        self._inside: bool | None = None  # None before the cells
        self._row, self._column = 1, 0
        self._place = (0, 0)
        self._filled = (
            0,
            0,
            -1,
            0,
            0,
        )  # The row of the last filled cell, its first and last column, how many, and their text.
        self._type: str | None = None
        self._in_cell = self._formula = self._lost = self._phonetic = False
        self._part = self._text = self._value = ""
        self._length: int | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = _local(tag)
        if self._in_cell:
            if not self._part:
                self._part, self._text = name, ""
                if name == "f":
                    self._formula = True
            elif name == "rPh":
                self._phonetic = True
        elif self._inside:
            if name == "c":
                self._start_cell(attributes)
            elif name == "row" and "r" in attributes:
                self._row = number(attributes["r"], self._where)
        elif name == "sheetData" and self._inside is None:
            self._inside = True

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
        if self._part and self._part != "f" and not self._phonetic:
            self._text += text
            if len(self._text) > LONGEST_TEXT:
                raise too_large(self._where, f"a cell holds more than {LONGEST_TEXT:,} characters")

    def comment(self, *_: object) -> None:
        """A comment or the like, which the reader takes for the end of a value."""
        self._lost = self._lost or self._part == "v"

    def end(self, tag: str) -> None:
        name = _local(tag)
        if self._in_cell:
            if name == self._part:
                self._end_part(name)
            elif name == "rPh":
                self._phonetic = False
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
        if self._type == "e":
            self._value = self._error_of(self._value)
        if length is None and not self._formula and not self._value:
            return
        row, column = self._place
        filled, first, last, cells, text = self._filled
        if row != filled:
            self._end_row()
            first, cells, text = column, 0, 0
        elif column <= last:
            raise damaged(self._where)
        self._filled = row, first, column, cells + 1, text + (length or 0)
        if not length or self._type == "e" or self._lost:
            self._hide(row, column)

    def _error_of(self, name: str) -> str:
        """An error as a person sees it. Raises UserError if the reader would refuse the sheet for it."""
        if name and name not in _ERRORS:
            cell = cell_name(self._place[0], self._place[1])
            what = f"holds {plain(name, 40)} in {cell} of the sheet {self._title!r}, which cannot be read"
            raise refuse(what, self._where, "replace it by a value")
        return name or "#"

    def _hide(self, row: int, column: int) -> None:
        if self._formula or self._value:
            self.found.append(HiddenCell(self._sheet, row, column, self._value))

    def _end_row(self) -> None:
        row, first, last, cells, text = self._filled
        if row:
            self._extent.add(row, first, last, cells, text)


@cache
def _column(letters: str) -> int:
    """The number of a column from 0. A is 0, and AA is 26."""
    number = 0
    for letter in letters.upper():
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1
