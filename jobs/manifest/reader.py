"""Reads the manifest as a stream: a table of installs, with everything that a spreadsheet does to one.

This module decides what a line says about an install. If the line does not name its app, `start` decides that. Every line
of the file is a row, a broken line, a blank line, or a repeated header.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from jobs.core.errors import refuse
from jobs.core.formula_guard import unguard
from jobs.core.ids import as_seen, has_unseen, is_id
from jobs.core.model import ARMOR, Broken, Level, Row
from jobs.core.secret import STARS, Secret
from jobs.manifest.csv_file import SEPARATORS, UTF16, CsvFile, open_csv
from jobs.manifest.layout import (
    IDS,
    ROW_AS_READ,
    Layout,
    holds_ids,
    is_line_of_cells,
    layout_of,
    on_one_line,
    role_of,
    speaks_of_locations,
    unknown_locations,
)
from jobs.manifest.raw_sheets import kind_of
from jobs.manifest.sheet_choice import open_workbook
from jobs.manifest.source import Source
from jobs.manifest.warnings import ListWarnings
from jobs.manifest.workbook import Workbook

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from jobs.manifest.csv_records import Record
    from jobs.manifest.layout import Chosen
    from jobs.manifest.raw_sheets import Kind

__all__ = ["ROW_AS_READ", "SEPARATORS", "UTF16", "Manifest", "is_workbook", "open_manifest"]

_SHORTENED = re.compile(r"\d+(?:[.,]\d+)?[eE]\+?\d+")
_OTHER_SEPARATORS = re.compile(r"[|,;:\t^~ ]")
_LOOKED_AT = 2_000
_LOOKED_AT_FOR_HEADER = 20
# What other programs write into an empty cell.
_NOTHING = {"null", "none", "nan", "undefined", "\\n"}
_LONGEST_NOTHING = max(map(len, _NOTHING))
_LONGEST_ROLE = 20
_MARKUP = re.compile(r"<[!?A-Za-z]")
# What a report shows in place of an id of a workbook, such as `(a date)`.
_COULD_NOT_BE_READ = re.compile(r"\((?:an? |TRUE ).+\)")
_AS_FORMULA = re.compile(r'="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Manifest:
    """A readable manifest: a CSV or a workbook."""

    table: CsvFile | Workbook
    layout: Layout

    @property
    def path(self) -> Path:
        """The path of the list."""
        return self.table.source.path

    @property
    def data(self) -> bytes | None:
        """All of it if it came by a pipe."""
        return self.table.source.data

    @property
    def path_in_reports(self) -> str:
        """Its path for reports, which must be UTF-8 even if the path is not."""
        return os.fsencode(self.path).decode(errors="backslashreplace")

    @property
    def columns(self) -> tuple[str, ...]:
        """The user's columns."""
        return self.layout.columns

    @property
    def left_out(self) -> tuple[str, ...]:
        """The user's columns that have the name of a report's column."""
        return self.layout.left_out

    @property
    def with_companies(self) -> bool:
        """Whether it has a column for company ids."""
        return self.layout.company_id >= 0

    @property
    def with_old_pairs(self) -> bool:
        """Whether it has a column for the old tokens of installs. In the results of sealed pairs these are empty."""
        layout = self.layout
        return (layout.access_token >= 0 or layout.refresh_token >= 0) and not (layout.ours and layout.sealed >= 0)

    def rows(self, noticed: ListWarnings | None = None) -> Iterator[Row | Broken]:
        """Every line that is not blank, except the header. `noticed` collects what a person should check.

        Raises UserError if the rest of the file cannot be read.
        """
        seen, lines = ListWarnings() if noticed is None else noticed, _Lines(self.layout)
        if isinstance(self.table, Workbook):
            seen.sheets = self.table.which_sheets()
        for record in self.records():
            read = lines.read(record, seen)
            if read is not None:
                yield read

    def records(self) -> Iterator[Record]:
        """Every record after the header."""
        return self.table.records(self.layout.roles)


class _Lines:
    """Reads the lines of a manifest.

    After a torn line, a line counts as a row only if it surely is one. The first such row ends this. After the header of
    another list with its ids in other places, no line counts as a row until this list's header comes again.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._header = [as_seen(unguard(name) if layout.guarded else name) for name in layout.header]
        self._headers = {self._header[place] for place in (layout.location_id, layout.company_id) if place >= 0}
        self._torn_at = 0
        self._other_at = 0

    def read(self, record: Record, noticed: ListWarnings) -> Row | Broken | None:
        """What a line says, or None if it says nothing."""
        layout, cells = self._layout, record.cells
        if record.torn:
            self._torn_at = self._torn_at or record.line
            return self._torn(record, record.torn, noticed)
        if layout.guarded:
            cells = [unguard(cell) for cell in cells]
        missing = layout.width - len(cells)
        if missing:
            cells += [""] * missing
        location = _said(cells[layout.location_id]) if layout.location_id >= 0 else ""
        company = _said(cells[layout.company_id]) if layout.company_id >= 0 else ""
        if self._says_nothing(record, cells, location or company, noticed):
            return None
        if self._torn_at and not self._is_surely_a_row(missing, location, company, noticed):
            why = f"line {record.line} comes after the torn line {self._torn_at}"
            return self._torn(record, why, noticed)
        if why := self._why_no_row(record.line, cells, location or company, noticed):
            return self._broken(record, why)
        self._torn_at = 0
        if len(record.lines) > 1 and self._spans_rows(record):
            noticed.spans_rows(record.line, record.line + len(record.lines) - 1)
        return self._row(record, cells, location, company, noticed)

    def _says_nothing(self, record: Record, cells: Sequence[str], account: str, noticed: ListWarnings) -> bool:
        if account in self._headers and [*map(as_seen, cells)] == self._header:
            noticed.headers.add(record.line)
            self._other_at = 0
            return True
        if not account and not any(map(as_seen, cells)):
            noticed.blank += 1
            if record.unusable:
                noticed.formulas.add(record.line)
            return True
        return False

    def _row(
        self, record: Record, cells: Sequence[str], location: str, company: str, noticed: ListWarnings
    ) -> Row | Broken:
        layout, line = self._layout, record.line
        client = _said(cells[layout.client_id]) if layout.client_id >= 0 else ""
        own = tuple([cells[index] for index in layout.own])
        why = record.unusable or _why_broken(line, location, company, client)
        if why:
            if layout.row_as_read >= 0 and own[layout.row_as_read] and not (location or company):
                why = (
                    f"line {line} holds a line that could not be read (row_as_read): move its cells into their columns"
                )
            noticed.cannot_be_used(line, why)
            return Broken(line, location, company, client, own, why)
        if location:
            noticed.locations.add(location, line)
        elif layout.location_id >= 0 and as_seen(cells[layout.location_id]):
            noticed.emptied.add(line)
        elif layout.location_id >= 0 and not layout.ours:
            noticed.agencies.add(line)
        if company:
            noticed.companies.add(company, line)
        level = Level.SUB_ACCOUNT if location else Level.AGENCY
        access, refresh = (_secret(cells, place) for place in (layout.access_token, layout.refresh_token))
        if access is None and layout.sealed >= 0 and cells[layout.sealed].startswith(ARMOR):
            noticed.sealed.add(line)
        scope = _said(cells[layout.scope]) if layout.scope >= 0 else ""
        return Row(line, client, level, location or company, company, own, access, refresh, scope)

    def _why_no_row(self, line: int, cells: Sequence[str], account: str, noticed: ListWarnings) -> str:
        """Why the cells of a line do not fit the columns of this list. '' if they do."""
        if len(account) < _LONGEST_ROLE and self._is_another_header(line, cells, account):
            why = f"line {line} looks like the header of another list: move that list into its own file"
        elif self._other_at:
            noticed.behind_another.add(line)
            return f"line {line} comes after the header of another list in line {self._other_at}"
        elif any(cells[self._layout.width :]):
            why = f"line {line} has {len(cells)} cells, but the header has {self._layout.width}"
        else:
            return ""
        noticed.cannot_be_used(line, why)
        return why

    def _is_another_header(self, line: int, cells: Sequence[str], account: str) -> bool:
        """Whether a line names columns in place of ids. If it moves the ids, the lines after it are not read."""
        layout = self._layout
        roles = {role: place for place, cell in enumerate(cells) if (role := role_of(cell)) in IDS}
        places = {layout.location_id, layout.company_id, layout.client_id}
        if not roles or (places.isdisjoint(roles.values()) and (not account or account not in self._header)):
            return False
        elsewhere = any(getattr(layout, role) != place for role, place in roles.items())
        self._other_at = line if elsewhere else 0
        return True

    def _is_surely_a_row(self, missing: int, location: str, company: str, noticed: ListWarnings) -> bool:
        """Whether it cannot be the rest of a cell: it is as wide as the header, or has an id like those before."""
        if not is_id(location or company):
            return False
        like = location in noticed.locations if location else company in noticed.companies
        return like or (missing == 0 and self._layout.width > 1)

    def _spans_rows(self, record: Record) -> bool:
        """Whether a line inside a cell has an id of the same form, in the same place as the record's id."""
        layout = self._layout
        place = layout.location_id if layout.location_id >= 0 else layout.company_id
        usual = len(_said(record.cells[place]))
        for line in record.lines[1:]:
            cells = line.rstrip("\r\n").split(layout.separator)
            account = _said(cells[place].strip('"')) if place < len(cells) else ""
            if len(account) == usual and is_id(account) and (len(cells) > 1 or layout.width == 1):
                return True
        return False

    def _torn(self, record: Record, why: str, noticed: ListWarnings) -> Broken | None:
        if not as_seen(record.text):
            noticed.blank += 1
            return None
        noticed.torn_line(record.line, why)
        return self._broken(record, why)

    def _broken(self, record: Record, why: str) -> Broken:
        """A line whose cells cannot be told apart. It is kept as one cell, so that a later run reads the same line."""
        layout, text = self._layout, record.text
        if layout.access_token >= 0 or layout.refresh_token >= 0:
            # Any of the cells may be a token, and a token looks like an id.
            text = layout.separator.join(STARS if cell.strip() else "" for cell in text.split(layout.separator))
        own = [""] * len(layout.columns)
        if layout.row_as_read >= 0:
            own[layout.row_as_read] = text
        else:
            own.append(text)
        return Broken(record.line, "", "", "", tuple(own), why)


def _said(cell: str) -> str:
    """The id or token in a cell, without what a spreadsheet or a program adds to it or writes in its place."""
    if len(cell) > _LONGEST_NOTHING and cell.isalnum() and cell.isascii():
        return cell  # Almost always.
    text = as_seen(cell)
    if found := _AS_FORMULA.fullmatch(text):
        text = as_seen(found[1])
    return "" if text.casefold() in _NOTHING else text


def _secret(cells: Sequence[str], place: int) -> Secret | None:
    text = _said(cells[place]) if place >= 0 else ""
    return Secret(text) if text else None


def _why_broken(line: int, location: str, company: str, client: str) -> str:
    """Why a line with these ids cannot be used. '' if it can."""
    if not location and not company:
        return f"line {line} has no location id and no company id"
    for name, value in (("location id", location), ("company id", company), ("client id", client)):
        if value and not is_id(value):
            return f"line {line}: {_why_not_an_id(name, value)}"
    return ""


def _why_not_an_id(name: str, value: str) -> str:
    if _SHORTENED.fullmatch(value):
        return f"a spreadsheet shortened the {name}: format the column as text and export it again"
    if _COULD_NOT_BE_READ.fullmatch(value):
        return f"the {name} could not be read from an earlier workbook: enter it as text"
    if has_unseen(value):
        return f"the {name} holds a space or an invisible character"
    return f"the {name} is not a valid id (1 to 64 characters of A-Z a-z 0-9 _ . -)"


def open_manifest(
    path: Path, chosen: Chosen | None = None, data: bytes | None = None, sheet: str | None = None
) -> Manifest:
    """The manifest at `path`, or in `data` that came by that pipe. Raises UserError if it cannot be used at all.

    `chosen` says which column is which, whatever its header is. If it is given, even empty, a list in which the job could
    take sub-accounts for agencies is refused too. `sheet` is the one to read of a workbook.
    """
    table = _table(Source(path, data), chosen, sheet)
    header = table.header
    if not any(header):
        raise refuse("is empty", str(path), "use a list with a header and one line for each install")
    if not _names_an_id(header, chosen):
        _refuse_no_header(path, header, islice(table.records(), _LOOKED_AT_FOR_HEADER))
    layout = layout_of(path, header, table.separator, chosen, is_csv=isinstance(table, CsvFile))
    manifest = Manifest(table, layout)
    if chosen is not None and "location_id" not in chosen and not layout.ours:
        _refuse_unknown_locations(manifest)
    if layout.location_id < 0 and layout.company_id < 0:
        todo = "give one of its columns that name"
        more = ", or choose one with --column location_id=NAME" if chosen is not None else ""
        raise refuse("has no column location_id or company_id", str(path), todo + more)
    return manifest


def is_workbook(path: Path) -> bool:
    """Whether the list at `path` is not a CSV. Raises UserError if it cannot be read."""
    return _kind(Source(path)) is not None


def _kind(source: Source) -> Kind | None:
    """The kind of a workbook, or None for a CSV. The bytes decide it, whatever its name is."""
    with source.open() as file:
        return kind_of(file, str(source.path))


def _table(source: Source, chosen: Chosen | None, sheet: str | None) -> CsvFile | Workbook:
    """The table in a file."""
    kind = _kind(source)
    names_an_id = partial(_names_an_id, chosen=chosen)
    if kind is not None:
        return open_workbook(source, kind, names_an_id, sheet)
    if sheet is not None:
        raise refuse("is a CSV, which has no sheets", str(source.path), "leave out --sheet")
    return open_csv(source, names_an_id)


def _refuse_no_header(path: Path, header: Sequence[str], after: Iterable[Record]) -> None:
    """Refuse a first line that does not name columns: the option --column would not help. `after` are the lines after it."""
    if _MARKUP.match(as_seen(header[0])):
        raise refuse(
            "is HTML or XML, not a table", str(path), "open it in a spreadsheet and save it as a workbook or CSV"
        )
    if is_line_of_cells(header):
        todo = "add a first line that names each column, including location_id"
        raise refuse("has no header: its first line holds ids, tokens or addresses", str(path), todo)
    if len(header) == 1 and any(role_of(part) for part in _OTHER_SEPARATORS.split(header[0])):
        todo = "separate the cells with commas, semicolons or tabs, without quotes around whole lines"
        raise refuse(f"has only one column ({on_one_line(header[0])})", str(path), todo)
    if lower := next((record for record in after if any(role_of(cell) in IDS for cell in record.cells)), None):
        raise refuse(f"has its header in line {lower.line}, below other lines", str(path), "delete the lines above it")


def _names_an_id(header: Sequence[str], chosen: Chosen | None) -> bool:
    named = {as_seen(name) for name in (chosen or {}).values() if name}
    return any(role_of(name) in IDS or as_seen(name) in named for name in header)


def _refuse_unknown_locations(manifest: Manifest) -> None:
    """Refuse a list with an unused column that may hold the location ids."""
    path, layout = manifest.path, manifest.layout
    rows = [[*map(_said, record.cells)] for record in islice(manifest.records(), _LOOKED_AT)]
    if layout.location_id < 0 and (column := speaks_of_locations(layout)) is not None:
        raise unknown_locations(path, layout, column, rows)
    place = layout.location_id
    known = place >= 0 and any(len(row) > place and row[place] for row in rows)
    if not known and (column := holds_ids(layout, rows)) is not None:
        raise unknown_locations(path, layout, column, rows)
