"""Which sheets of a workbook are the list, and where the header of each is."""

from __future__ import annotations

from itertools import islice
from shlex import quote
from typing import TYPE_CHECKING

from jobs.core.errors import refuse
from jobs.core.ids import as_seen
from jobs.manifest.calamine_book import opened_book
from jobs.manifest.layout import (
    first_of,
    is_line_of_ids,
    is_of_failures,
    on_one_line,
    report_without_locations,
    role_of,
)
from jobs.manifest.raw_cells import cell_name
from jobs.manifest.sheet_cells import HiddenCells, has_no_text, text_of
from jobs.manifest.workbook import Sheet, Workbook, numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from python_calamine import SheetMetadata

    from jobs.manifest.calamine_book import Book
    from jobs.manifest.raw_sheets import Kind
    from jobs.manifest.source import Source

_LOOKED_AT_FOR_HEADER = 20


def open_workbook(
    source: Source, kind: Kind, names_an_id: Callable[[Sequence[str]], bool], name: str | None
) -> Workbook:
    """The sheet called `name`, or else the one visible sheet whose header names an id. Raises UserError.

    If the sheets are those of a report of failures, all of them are one list.
    """
    with opened_book(source, kind) as book:
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
    columns = dict.fromkeys(column for sheet in taken for column in numbered(sheet.header))
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


def _sheet(book: Book, place: int, last_hidden: int, names_an_id: Callable[[Sequence[str]], bool]) -> Sheet:
    """A sheet and its header: the first row that is not blank. `last_hidden` is its last row with a hidden cell."""
    name = book.calamine.sheets_metadata[place].name
    found = book.sheet(place)
    first_column = (found.start or (0, 0))[1]
    height = max(last_hidden, found.end[0] + 1 if found.end else 0)
    hidden = HiddenCells(book.hidden([place] if last_hidden else []))
    rows = enumerate(book.rows(found), start=1)
    for row, cells in rows:
        shown = hidden.take(first_column) if row == hidden.row_in(place) else {}
        header = tuple(shown[at].shown if at in shown else text_of(cell) for at, cell in enumerate(cells))
        if any(map(as_seen, header)):
            seen = range(len(header))
            odd = [at for at, one in shown.items() if at not in seen or has_no_text(one)]
            below = [[text_of(cell) for cell in cells] for _, cells in islice(rows, _LOOKED_AT_FOR_HEADER)]
            is_headless = not names_an_id(header) and (is_line_of_ids(header) or any(map(names_an_id, below)))
            unreadable = cell_name(row, first_column + odd[0]) if odd else ""
            return Sheet(place, name, height, row, first_column, header, last_hidden > 0, unreadable, is_headless)
    return Sheet(place, name, height, 0, 0, (), last_hidden > 0)
