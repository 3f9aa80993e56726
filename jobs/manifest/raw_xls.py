"""An xls: its size, and what its reader hides. xlrd holds one sheet at a time, and a text once for all its cells."""

from __future__ import annotations

import io
from contextlib import contextmanager
from functools import partial
from struct import unpack_from
from typing import TYPE_CHECKING, Any

from jobs.core.errors import UserError
from jobs.manifest.raw_cells import MOST_CELLS, Extent, HiddenCell
from jobs.manifest.raw_parts import damaged, has_password

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from typing import BinaryIO

_BOUNDSHEET, _DIMENSIONS = 0x85, 0x200
_RECORD_HEAD = 4
_LONG_DIMENSIONS = 14
_STREAM = 2  # The type of an entry that is not a folder.


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    """Turn whatever xlrd raises into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # A damaged file makes xlrd raise nearly anything.
        if "encrypted" in str(error):
            raise has_password(where) from None
        raise damaged(where) from error


def streams(file: BinaryIO, where: str) -> set[str]:
    """The names of the streams in an OLE file, none of which goes round in a circle: xlrd would follow it for ever."""
    from xlrd.compdoc import CompDoc

    with _one_line(where):
        file.seek(0)
        document = CompDoc(file.read(), logfile=io.StringIO())
        for entry in document.dirlist:
            short = entry.tot_size < document.min_size_std_stream
            if entry.etype == _STREAM and not _ends(document.SSAT if short else document.SAT, entry.first_SID):
                raise damaged(where)
        return {entry.name for entry in document.dirlist}


def _ends(following: Sequence[int], sector: int) -> bool:
    """Whether a chain of sectors has an end. `following` says which sector comes after which, and -2 is the end."""
    for _ in range(len(following)):
        if not 0 <= sector < len(following):
            return True
        sector = following[sector]
    return sector < 0


def _book(file: BinaryIO, where: str) -> Any:
    from xlrd import open_workbook

    with _one_line(where):
        file.seek(0)
        return open_workbook(logfile=io.StringIO(), file_contents=file.read(), on_demand=True, ragged_rows=True)


def _sheet(book: Any, place: int, where: str) -> Any:
    with _one_line(where):
        return book.sheet_by_index(place)


def _check_records(book: Any, where: str) -> None:
    """Raise UserError if sheets share their bytes, or one says that it is larger than a sheet can be.

    Each is read in full, so that a small file could take hours. The reader reserves memory for what a sheet says.
    """
    stream = memoryview(book.mem)[book.base : book.base + book.stream_len]
    left = len(stream)
    with _one_line(where):
        starts = [unpack_from("<I", data)[0] for code, data in _records(stream, 0) if code == _BOUNDSHEET]
        for start in starts:
            for code, data in _records(stream, start):
                left -= len(data) + _RECORD_HEAD
                if left < 0 or (code == _DIMENSIONS and _area(data) > MOST_CELLS):
                    raise damaged(where)


def _area(dimensions: memoryview) -> int:
    """How many cells a sheet says that it has."""
    top, bottom, left, right = map(
        int, unpack_from("<IIHH" if len(dimensions) >= _LONG_DIMENSIONS else "<HHHH", dimensions)
    )
    # As the reader counts: if an end comes before its beginning, that is nearly 2**32.
    return (bottom - top) % 2**32 * ((right - left) % 2**32)


def _records(stream: memoryview, start: int) -> Iterator[tuple[int, memoryview]]:
    """The code and the data of each record from `start` to the end of its sheet, as xlrd sees it: after the charts inside."""
    from xlrd.biffh import XL_EOF, bofcodes

    position, in_chart, at_end = start, False, False
    while not at_end:
        code, length = unpack_from("<HH", stream, position)
        at_end = code == XL_EOF and not in_chart
        in_chart = code != XL_EOF and (in_chart or (code in bofcodes and position > start))
        position += _RECORD_HEAD + length
        yield code, stream[position - length : position]


def measured(file: BinaryIO, where: str) -> Callable[[Collection[int]], Iterator[HiddenCell]]:
    """What looks up the errors and the formulas without a value of some sheets, in order.

    Raises UserError if the reader, which holds all sheets, would need too much memory.
    """
    with _book(file, where) as book:
        _check_records(book, where)
        extent = Extent(where)
        for place in range(book.nsheets):
            extent.start_sheet()
            sheet = _sheet(book, place, where)
            for row in range(sheet.nrows):
                if values := sheet.row_values(row):
                    text = sum(len(value) for value in values if isinstance(value, str))
                    extent.add(row + 1, 0, len(values) - 1, len(values) - values.count(""), text)
            book.unload_sheet(place)
    return partial(_hidden, file, where)


def _hidden(file: BinaryIO, where: str, sheets: Collection[int]) -> Iterator[HiddenCell]:
    from xlrd import XL_CELL_ERROR, error_text_from_code

    with _book(file, where) as book:
        for number in sorted(sheets):
            with _one_line(where):
                place = book._all_sheets_map[number]  # noqa: SLF001 - nothing else tells where charts stand among the sheets
            for row, column, kind, value in _cells(_sheet(book, place, where)) if place >= 0 else ():
                if kind == XL_CELL_ERROR:
                    yield HiddenCell(number, row, column, error_text_from_code.get(value, "#"))
                elif value == "":
                    yield HiddenCell(number, row, column, "")
            if place >= 0:
                book.unload_sheet(place)


def _cells(sheet: Any) -> Iterator[tuple[int, int, int, Any]]:
    """Row, column, type and value of every cell that is not empty."""
    from xlrd import XL_CELL_BLANK, XL_CELL_EMPTY

    for row in range(sheet.nrows):
        for column, (kind, value) in enumerate(zip(sheet.row_types(row), sheet.row_values(row), strict=True)):
            if kind not in {XL_CELL_EMPTY, XL_CELL_BLANK}:
                yield row + 1, column, kind, value
