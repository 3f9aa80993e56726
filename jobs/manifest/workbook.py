"""The rows of a workbook as records. Cells are text, as a person sees them.

calamine reads the cells. It shows nothing for an error and for a formula without a value, and an agency is a row without a
location id. So `raw_sheets` looks for such cells a second time.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import islice
from shlex import quote
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from jobs.core.errors import refuse
from jobs.core.ids import as_seen
from jobs.manifest.csv_records import Record
from jobs.manifest.layout import (
    first_of,
    is_line_of_ids,
    is_of_failures,
    on_one_line,
    report_without_locations,
    role_of,
)
from jobs.manifest.raw_cells import cell_name
from jobs.manifest.raw_parts import damaged
from jobs.manifest.raw_sheets import measured

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    from python_calamine import CalamineSheet, CalamineWorkbook, SheetMetadata

    from jobs.manifest.raw_sheets import HiddenCell, Kind
    from jobs.manifest.source import Source

    Cell = str | float | bool | date | datetime | time | timedelta

_STDERR = 2
_LOOKED_AT_FOR_HEADER = 20
_PANIC = re.compile(rb"\n?thread '[^']*' (?:\(\d+\) )?panicked at ")
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


class RowOfSheet(int):
    """The number of a row in a list of several sheets. Its text also says where the row is, for a person."""

    name: str

    @classmethod
    def numbered(cls, before: int, row: int, sheet: str) -> RowOfSheet:
        """Row `row` of a sheet, with so many rows in the sheets before it."""
        made = cls(before + row)
        made.name = f"{before + row} [row {row} of the sheet {sheet!r}]"
        return made

    def __str__(self) -> str:
        return self.name


class Sheet(NamedTuple):
    """A sheet with installs: its place among all sheets, from 0, how many rows it has, and where its header is.

    `first_column` is the place of its first cell, from 0. `has_hidden_cells` is whether calamine does not show some of its cells.
    `unreadable` is a cell of its header without a text to go by. `is_headless` is whether it seems to hold installs, but its
    header names no id.
    """

    place: int
    name: str
    rows: int
    header_row: int
    first_column: int
    header: tuple[str, ...]
    has_hidden_cells: bool
    unreadable: str = ""
    is_headless: bool = False


@dataclass(frozen=True, slots=True)
class Workbook:
    """The sheets of a workbook that are one list, and the columns of that list. `unread` names sheets that a person may miss."""

    source: Source
    kind: Kind
    stamp: tuple[int, ...]
    sheets: tuple[Sheet, ...]
    header: tuple[str, ...]
    unread: tuple[str, ...]
    separator: ClassVar[str] = ","

    def which_sheets(self) -> str:
        """Which sheets are read and which are not, for a person. '' if none is missed."""
        read = first_of([on_one_line(sheet.name) for sheet in self.sheets])
        return f"INPUT has several sheets. Read: {read}. Not read: {first_of(self.unread)}" if self.unread else ""

    def records(self, roles: Collection[int] = ()) -> Iterator[Record]:
        """Every row after the header. The columns of `roles` hold ids and tokens. Raises UserError."""
        before, several = 0, len(self.sheets) > 1
        with _opened(self.source, self.kind) as book:
            if book.stamp != self.stamp:
                raise refuse("was changed while it was read", book.where, "run the command again")
            hidden = _HiddenCells(book.hidden([sheet.place for sheet in self.sheets if sheet.has_hidden_cells]))
            for sheet in self.sheets:
                reads = _RowReader(sheet, self.header, roles, of_several=several)
                for row, cells, shown in _rows(book, sheet, hidden):
                    if row > sheet.header_row:
                        number = RowOfSheet.numbered(before, row, sheet.name) if several else row
                        yield reads.record(row, number, cells, shown)
                before += sheet.rows

    def line(self, number: int) -> int:
        """The number of a row. If the list has several sheets, its text says where the row is."""
        before = 0
        for sheet in self.sheets if len(self.sheets) > 1 else ():
            if number <= before + sheet.rows:
                return RowOfSheet.numbered(before, number - before, sheet.name)
            before += sheet.rows
        return number


class _RowReader:
    """Makes records of the rows of a sheet."""

    def __init__(self, sheet: Sheet, header: Sequence[str], roles: Collection[int], *, of_several: bool) -> None:
        self._first_column = sheet.first_column
        self._of_sheet = f" of the sheet {sheet.name!r}" if of_several else ""
        here = {column: place for place, column in enumerate(_numbered(sheet.header))}
        places = [here.get(column, -1) for column in _numbered(header)]
        self._places = None if places == [*range(len(header))] else places
        self._roles = [(role, places[role]) for role in roles if places[role] >= 0]

    def record(self, row: int, number: int, cells: list[Cell], hidden: Mapping[int, HiddenCell]) -> Record:
        """The record of a row. If a cell of an id or a token cannot be used, the record says why, but not what is in it."""
        texts = [cell if type(cell) is str else _text(cell) for cell in cells]
        for place, cell in hidden.items():
            if 0 <= place < len(texts):
                texts[place] = cell.shown
        if self._places is not None:
            texts = [texts[place] if place >= 0 else "" for place in self._places]
        why, is_blank = "", not any(texts)
        for role, place in self._roles:
            if (type(cells[place]) is not str or place in hidden) and (
                found := _why_not_an_id(cells[place], hidden.get(place))
            ):
                what, todo = found
                why = why or f"{self._name(row, place)} holds {what}: {todo}"
                # Whatever it was, it must not become an id when a report is read again.
                texts[role] = "" if is_blank else f"({what})"
        return Record(number, texts, (), unusable=why)

    def _name(self, row: int, place: int) -> str:
        return cell_name(row, self._first_column + place) + self._of_sheet


def _why_not_an_id(cell: Cell, hidden: HiddenCell | None) -> tuple[str, str] | None:
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


def _is_exact(cell: float) -> bool:
    """Whether a number is whole and has all its digits."""
    return abs(cell) < _MOST_EXACT and cell == int(cell)


def _text(cell: Cell) -> str:
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


def open_workbook(
    source: Source, kind: Kind, names_an_id: Callable[[Sequence[str]], bool], name: str | None
) -> Workbook:
    """The sheet called `name`, or else the one visible sheet whose header names an id. Raises UserError.

    If the sheets are those of a report of failures, all of them are one list.
    """
    with _opened(source, kind) as book:
        tables = book.calamine.sheets_metadata
        candidates = _candidates(tables, name, book.where)
        # To its end, also because a sheet that is too large must not get to calamine.
        last_hidden = {cell.sheet: cell.row for cell in book.hidden(candidates)}
        sheets = [_sheet(book, place, last_hidden.get(place, 0), names_an_id) for place in candidates]
    taken = sheets if name is not None else _those_of_the_list(sheets, names_an_id, book.where)
    for sheet in taken:
        if sheet.unreadable:
            what = f"has a header with a cell that cannot be read: {sheet.unreadable} of the sheet {on_one_line(sheet.name)!r}"
            raise refuse(what, book.where, "enter the name of the column as text")
    unread = [] if name is not None else _unread(tables, candidates, [sheet for sheet in sheets if sheet not in taken])
    columns = dict.fromkeys(column for sheet in taken for column in _numbered(sheet.header))
    return Workbook(source, kind, book.stamp, tuple(taken), tuple(column for column, _ in columns), tuple(unread))


def _unread(tables: Sequence[SheetMetadata], visible: Sequence[int], left: Sequence[Sheet]) -> list[str]:
    """The names of the sheets that are `left` out, except those without a cell, and of the hidden ones."""
    from python_calamine import SheetTypeEnum

    hidden = [
        f"{on_one_line(sheet.name)} (hidden)"
        for place, sheet in enumerate(tables)
        if place not in visible and sheet.typ == SheetTypeEnum.WorkSheet
    ]
    return [*(on_one_line(sheet.name) for sheet in left if sheet.header), *hidden]


def _candidates(sheets: Sequence[SheetMetadata], name: str | None, where: str) -> list[int]:
    """The places of the sheets that may be the list: the one called `name`, or else all that are visible."""
    from python_calamine import SheetTypeEnum, SheetVisibleEnum

    tables = {index: sheet for index, sheet in enumerate(sheets) if sheet.typ == SheetTypeEnum.WorkSheet}
    visible = [index for index, sheet in tables.items() if sheet.visible == SheetVisibleEnum.Visible]
    named = [index for index, sheet in tables.items() if name is not None and _same(sheet.name, name)]
    if name is None and (visible or not tables):
        return visible
    if named:
        return named[:1]
    what = "has only hidden sheets" if name is None else f"has no sheet {name!r}"
    raise refuse(what, where, _choose(sheet.name for sheet in tables.values()))


def _same(name: str, asked: str) -> bool:
    """Whether two names are those of one sheet. A spreadsheet allows no two that differ only in case."""
    return on_one_line(name).casefold() == on_one_line(asked).casefold()


def _choose(names: Iterable[str]) -> str:
    return f"choose one with --sheet: {first_of([quote(on_one_line(name)) for name in names])}"


def _those_of_the_list(
    sheets: Sequence[Sheet], names_an_id: Callable[[Sequence[str]], bool], where: str
) -> Sequence[Sheet]:
    with_ids = [
        sheet for sheet in sheets if names_an_id(sheet.header) or is_of_failures(sheet.header) or sheet.is_headless
    ]
    if any(is_of_failures(sheet.header) for sheet in with_ids) and all(
        is_of_failures(sheet.header) or sheet.is_headless for sheet in with_ids
    ):
        _check_report(with_ids, where)
        return with_ids
    if len(with_ids) == 1:
        return with_ids
    if with_ids:
        raise refuse("has several sheets with installs", where, _choose(sheet.name for sheet in with_ids))
    filled = [sheet for sheet in sheets if sheet.header]
    if len(filled) > 1:
        what = "has no sheet with a column location_id or company_id"
        raise refuse(what, where, f"rename a column in one, or {_choose(sheet.name for sheet in filled)}")
    return filled


def _check_report(sheets: Sequence[Sheet], where: str) -> None:
    """Refuse a report of failures if the installs of one of its sheets would be lost, or would become agencies."""
    for sheet in sheets:
        if not is_of_failures(sheet.header):
            what = f"is a report of the job, but its header is not in the first row of the sheet {on_one_line(sheet.name)!r}"
            raise refuse(what, where, "put it back, and delete the rows above it")
        if not any(role_of(column) == "location_id" for column in sheet.header):
            raise report_without_locations(where, sheet.name)


def _sheet(book: _Book, place: int, last_hidden: int, names_an_id: Callable[[Sequence[str]], bool]) -> Sheet:
    """A sheet and its header: the first row that is not blank. `last_hidden` is its last row with a hidden cell."""
    name = book.calamine.sheets_metadata[place].name
    found = book.sheet(place)
    first_column = (found.start or (0, 0))[1]
    height = max(last_hidden, found.end[0] + 1 if found.end else 0)
    hidden = _HiddenCells(book.hidden([place] if last_hidden else []))
    rows = enumerate(book.rows(found), start=1)
    for row, cells in rows:
        shown = hidden.take(first_column) if row == hidden.row_in(place) else {}
        header = tuple(shown[at].shown if at in shown else _text(cell) for at, cell in enumerate(cells))
        if any(map(as_seen, header)):
            seen = range(len(header))
            odd = [at for at, one in shown.items() if at not in seen or not one.shown or _ERROR.fullmatch(one.shown)]
            below = [[_text(cell) for cell in cells] for _, cells in islice(rows, _LOOKED_AT_FOR_HEADER)]
            is_headless = not names_an_id(header) and (is_line_of_ids(header) or any(map(names_an_id, below)))
            unreadable = cell_name(row, first_column + odd[0]) if odd else ""
            return Sheet(place, name, height, row, first_column, header, last_hidden > 0, unreadable, is_headless)
    return Sheet(place, name, height, 0, 0, (), last_hidden > 0)


class _HiddenCells:
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


def _rows(book: _Book, sheet: Sheet, hidden: _HiddenCells) -> Iterator[tuple[int, list[Any], dict[int, HiddenCell]]]:
    """Every row of a sheet, from 1, with its cells, and with those that calamine does not show."""
    for row, cells in enumerate(book.rows(book.sheet(sheet.place)), start=1):
        yield row, cells, hidden.take(sheet.first_column) if row == hidden.row_in(sheet.place) else {}
    while row := hidden.row_in(sheet.place):  # These come after the last row that calamine shows.
        yield row, [""] * len(sheet.header), hidden.take(sheet.first_column)


def _numbered(header: Iterable[str]) -> list[tuple[str, int]]:
    """Each column with a number among those of the same name."""
    seen: Counter[str] = Counter()
    columns = []
    for name in header:
        columns.append((name, seen[name]))
        seen[name] += 1
    return columns


@dataclass(frozen=True, slots=True)
class _Book:
    """A workbook that is open. Whatever is wrong with it is a UserError. `hidden` looks up what calamine does not show."""

    calamine: CalamineWorkbook
    hidden: Callable[[Collection[int]], Iterator[HiddenCell]]
    stamp: tuple[int, ...]
    where: str

    def sheet(self, place: int) -> CalamineSheet:
        """A sheet, by its place among all."""
        with _without_backtrace(), _one_line(self.where):
            return self.calamine.get_sheet_by_index(place)

    def rows(self, sheet: CalamineSheet) -> Iterator[list[Any]]:
        """The cells of each row of a sheet."""
        rows = sheet.iter_rows()
        while True:
            with _one_line(self.where):
                cells = next(rows, None)
            if cells is None:
                return
            yield cells


@contextmanager
def _opened(source: Source, kind: Kind) -> Iterator[_Book]:
    """The workbook, until the block ends."""
    import pandas as pd  # slow to import, and needed only for a workbook

    where = str(source.path)
    with source.open() as file, measured(file, kind, where) as hidden:
        file.seek(0)
        with _without_backtrace(), _one_line(where):
            opened = pd.ExcelFile(file, engine="calamine")
        with opened:
            yield _Book(opened.book, hidden, _stamp(file, source), where)


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    """Turn whatever calamine raises into a UserError."""
    from python_calamine import CalamineError

    try:
        yield
    except OverflowError:
        what = "holds a duration that is longer than two million years"
        raise refuse(what, where, "format the cells of durations as text") from None
    except (CalamineError, OSError, ValueError) as error:
        raise damaged(where) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise damaged(where) from error


@contextmanager
def _without_backtrace() -> Iterator[None]:
    """Leave out what Rust writes to standard error by itself if calamine fails. What others write there comes later."""
    kept = os.dup(_STDERR)
    with TemporaryFile() as held:
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
            held.seek(0)
            if said := _PANIC.split(held.read(), maxsplit=1)[0]:
                with suppress(OSError):
                    os.write(_STDERR, said)


def _stamp(file: BinaryIO, source: Source) -> tuple[int, ...]:
    """What changes when the file does."""
    if source.data is not None:
        return ()
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns
