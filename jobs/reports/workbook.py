"""failures.xlsx: the failures as a workbook for support staff, with a sheet for each owner who acts.

Every cell is text, so nothing in it becomes a formula, a link, a number or a date.
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO

from jobs.core.causes import ADVICE
from jobs.core.model import Cause
from jobs.core.secret import STARS
from jobs.reports.cards import SECTIONS
from jobs.reports.columns import FAILURES
from jobs.reports.tables import own_cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from xlsxwriter import Workbook
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

    from jobs.core.model import App, Record, Run
    from jobs.reports.page import Worklist

MOST_FAILURES = 100_000
MOST_COLUMNS = 16_384
"""A sheet of Excel has no more."""
NO_FAILURES = "No failures"
_FIRST = ("next_step", "reinstall_url")
COLUMNS = (
    *(column for name in _FIRST for column in FAILURES if column.name == name),
    *(column for column in FAILURES if column.name not in _FIRST),
)
_OPTIONS = {"constant_memory": True, "use_zip64": True}
_LONGEST = 32_767  # UTF-16 units of a cell, in Excel
# Widths in characters. What is read as a sentence is wrapped, and nobody reads a link.
_WRAPPED = {"next_step": 60, "message": 45}
_NARROWEST, _WIDEST = 10, {**_WRAPPED, "reinstall_url": 30}
_WIDEST_ELSE = 40
_LINE_HEIGHT, _MOST_LINES = 15, 6  # points
_FOR_FILTER = 4  # Its button covers the end of the name.
_TEXT = {"num_format": "@", "valign": "top"}
_HEADER = {"num_format": "@", "valign": "vcenter", "bold": True, "bg_color": "#1F3A5F", "font_color": "#FFFFFF"}
_HEADER_HEIGHT = 24  # points


def why_left_out(columns: Sequence[str], worklist: Worklist) -> str:
    """Why there is no workbook of these failures. '' if there is one."""
    if sum(tally.count for tally in worklist.tallies) > MOST_FAILURES:
        return f"it holds at most {MOST_FAILURES:,} failures"
    if len(COLUMNS) + len(columns) > MOST_COLUMNS:
        return f"it holds at most {MOST_COLUMNS:,} columns"
    return ""


def write(
    file: BinaryIO, run: Run, columns: Sequence[str], worklist: Worklist, apps: Mapping[str, App], scratch: Path
) -> None:
    """Write the workbook. Its temporary files are in `scratch`, which must be private. Raises OSError."""
    import xlsxwriter
    from xlsxwriter.exceptions import FileCreateError

    output = _Output(file)
    book = xlsxwriter.Workbook(output, {**_OPTIONS, "tmpdir": os.fspath(scratch)})
    # Not the time of writing, so that a report that is made again is the same.
    book.set_properties({"created": datetime.fromisoformat(run.started_at)})
    names = [*(column.name for column in COLUMNS), *columns]
    for title, records in _sheets(worklist):
        rows = ([*(column.of(record, apps) for column in COLUMNS), *own_cells(record, columns)] for record in records)
        _write_sheet(book, title, names, rows)
    try:
        book.close()
    except FileCreateError as error:
        output.file = None
        raise error.args[0] from None  # The OSError itself.


class _Output:
    """Writes to a file as long as there is one. The library leaves an archive open when an error ends it, and such an archive
    writes its end when it is collected: later, and with a traceback on standard error if it cannot.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file: BinaryIO | None = file

    def write(self, data: bytes) -> int:
        return self.file.write(data) if self.file else len(data)

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        return self.file.seek(place, whence) if self.file else 0

    def tell(self) -> int:
        return self.file.tell() if self.file else 0

    def flush(self) -> None:
        if self.file:
            self.file.flush()


def _sheets(worklist: Worklist) -> Iterator[tuple[str, Iterable[Record]]]:
    """The title and the failures of each sheet, in the order of the page."""
    found = {tally.cause for tally in worklist.tallies}
    for owner, section in SECTIONS.items():
        causes = [cause for cause in Cause if cause in found and ADVICE[cause].owner is owner]
        if causes:
            yield section.title, (listed.record for cause in causes for listed in worklist.by_company(cause))
    if not found:
        yield NO_FAILURES, ()


def _write_sheet(book: Workbook, title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from xlsxwriter.utility import xl_range

    sheet = book.add_worksheet(title)
    text, wrapped = book.add_format(_TEXT), book.add_format({**_TEXT, "text_wrap": True})
    looks = [wrapped if name in _WRAPPED else text for name in names]
    sheet.set_row(0, _HEADER_HEIGHT)
    _write_row(sheet, 0, names, [book.add_format(_HEADER)] * len(names))
    widths, count = [len(name) + _FOR_FILTER for name in names], 0
    for count, row in enumerate(rows, 1):
        sheet.set_row(count, _height(names, row))
        _write_row(sheet, count, row, looks)
        widths = [max(pair) for pair in zip(widths, map(len, row), strict=True)]
    for place, (name, width, look) in enumerate(zip(names, widths, looks, strict=True)):
        # The look is also that of cells that are empty now.
        sheet.set_column(place, place, min(max(width + 1, _NARROWEST), _WIDEST.get(name, _WIDEST_ELSE)), look)
    sheet.freeze_panes(1, 0)
    sheet.autofilter(0, 0, count, len(names) - 1)
    sheet.ignore_errors({"number_stored_as_text": xl_range(0, 0, count, len(names) - 1)})


def _height(names: Sequence[str], row: Sequence[str]) -> int:
    """The height that shows the wrapped cells of a row. LibreOffice does not find it by itself."""
    lines = [-(-len(cell) // _WRAPPED[name]) for name, cell in zip(names, row, strict=True) if name in _WRAPPED]
    return _LINE_HEIGHT * min(max(1, *lines), _MOST_LINES)


def _write_row(sheet: Worksheet, number: int, cells: Sequence[str], looks: Sequence[Format]) -> None:
    for place, (cell, look) in enumerate(zip(cells, looks, strict=True)):
        if cell.startswith("<r>") and cell.endswith("</r>") and _fits(cell):
            # The library takes such a text for XML of its own, unless it comes in parts.
            sheet.write_rich_string(number, place, cell[:1], look, cell[1:], look)
        elif cell:
            sheet.write_string(number, place, cell if _fits(cell) else STARS, look)


def _fits(cell: str) -> bool:
    """Whether Excel can hold this text."""
    if "\ufffe" in cell or "\uffff" in cell:
        return False
    return len(cell) <= _LONGEST // 2 or len(cell.encode("utf-16-le")) // 2 <= _LONGEST
