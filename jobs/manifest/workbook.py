"""The rows of a workbook as records.

calamine reads the cells. It shows nothing for an error and for a formula without a value, and an agency is a row without a
location id. So `raw_sheets` looks for such cells a second time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from jobs.core.errors import refuse
from jobs.manifest.calamine_book import opened_book
from jobs.manifest.csv_records import Record
from jobs.manifest.layout import first_of, on_one_line
from jobs.manifest.raw_cells import cell_name
from jobs.manifest.sheet_cells import HiddenCells, text_of, why_not_an_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from jobs.manifest.calamine_book import Book
    from jobs.manifest.raw_sheets import HiddenCell, Kind
    from jobs.manifest.sheet_cells import Cell
    from jobs.manifest.source import Source


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
        with opened_book(self.source, self.kind) as book:
            if book.stamp != self.stamp:
                raise refuse("was changed while it was read", book.where, "run the command again")
            hidden = HiddenCells(book.hidden([sheet.place for sheet in self.sheets if sheet.has_hidden_cells]))
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
        here = {column: place for place, column in enumerate(numbered(sheet.header))}
        places = [here.get(column, -1) for column in numbered(header)]
        self._places = None if places == [*range(len(header))] else places
        self._roles = [(role, places[role]) for role in roles if places[role] >= 0]

    def record(self, row: int, number: int, cells: list[Cell], hidden: Mapping[int, HiddenCell]) -> Record:
        """The record of a row. If a cell of an id or a token cannot be used, the record says why, but not what is in it."""
        texts = [cell if type(cell) is str else text_of(cell) for cell in cells]
        for place, cell in hidden.items():
            if 0 <= place < len(texts):
                texts[place] = cell.shown
        if self._places is not None:
            texts = [texts[place] if place >= 0 else "" for place in self._places]
        why, is_blank = "", not any(texts)
        for role, place in self._roles:
            if (type(cells[place]) is not str or place in hidden) and (
                found := why_not_an_id(cells[place], hidden.get(place))
            ):
                what, todo = found
                why = why or f"{self._name(row, place)} holds {what}: {todo}"
                # Whatever it was, it must not become an id when a report is read again.
                texts[role] = "" if is_blank else f"({what})"
        return Record(number, texts, (), unusable=why)

    def _name(self, row: int, place: int) -> str:
        return cell_name(row, self._first_column + place) + self._of_sheet


def _rows(book: Book, sheet: Sheet, hidden: HiddenCells) -> Iterator[tuple[int, list[Any], dict[int, HiddenCell]]]:
    """Every row of a sheet, from 1, with its cells, and with those that calamine does not show."""
    for row, cells in enumerate(book.rows(book.sheet(sheet.place)), start=1):
        yield row, cells, hidden.take(sheet.first_column) if row == hidden.row_in(sheet.place) else {}
    while row := hidden.row_in(sheet.place):  # These come after the last row that calamine shows.
        yield row, [""] * len(sheet.header), hidden.take(sheet.first_column)


def numbered(header: Iterable[str]) -> list[tuple[str, int]]:
    """Each column with a number among those of the same name."""
    seen: Counter[str] = Counter()
    columns = []
    for name in header:
        columns.append((name, seen[name]))
        seen[name] += 1
    return columns
