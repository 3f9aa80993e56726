"""The manifest: a CSV of installs, with everything that a spreadsheet does to one. Read as a stream.

What a line says of an install is decided here; which app it belongs to, where it does not say, is `plan`'s.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from jobs.cells import unguard
from jobs.errors import UserError, refuse
from jobs.ids import is_id
from jobs.model import Broken, Level, Row
from jobs.secret import STARS, Secret

if TYPE_CHECKING:
    from _csv import Reader as _Reader
    from collections.abc import Iterator, Sequence
    from typing import TextIO

ROW_AS_READ = "row_as_read"
_ID_COLUMNS = {
    "locationid": "location_id",
    "companyid": "company_id",
    "clientid": "client_id",
    "clientkey": "client_id",
}
_OLD_PAIR = {"accesstoken": "access_token", "refreshtoken": "refresh_token"}
_REPORT_COLUMNS = frozenset(
    [
        "status",
        "token_type",
        "expires_at",
        "scope",
        "user_type",
        "user_id",
        "route",
        "cause",
        "message",
        "trace_id",
        "attempts",
        "recovered_at",
        "owner",
        "next_step",
        "stage",
        "http_status",
        "first_failed_at",
        "last_tried_at",
        "reinstall_url",
    ]
)
_OWN_REPORT = {"cause", "owner", "next_step", "reinstall_url"}
_OWN_RESULTS = {"status", "access_token", "refresh_token", "route", "recovered_at"}
_SHORTENED = re.compile(r"\d+(?:[.,]\d+)?[eE]\+?\d+")
SEPARATORS = ",;\t"
_LONGEST_HEADER = 1_048_576
_NO_CSV = {"UTF-16": (b"\xff\xfe", b"\xfe\xff"), "a workbook": (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the cells of a line belong: positions of the ids and the old pair (-1: no such column), and the user's columns."""

    separator: str
    width: int
    location_id: int
    company_id: int
    client_id: int
    access_token: int
    refresh_token: int
    own: tuple[int, ...]
    row_as_read: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A readable manifest. `columns` are the user's, `left_out` those of a user's that bear the name of a report's."""

    path: Path
    columns: tuple[str, ...]
    left_out: tuple[str, ...]
    from_report: bool
    layout: _Layout

    @property
    def with_companies(self) -> bool:
        """Whether it has a column for company ids."""
        return self.layout.company_id >= 0

    @property
    def with_old_pairs(self) -> bool:
        """Whether it has a column for the tokens that installs had."""
        return self.layout.access_token >= 0 or self.layout.refresh_token >= 0

    def rows(self) -> Iterator[Row | Broken]:
        """Every line that holds anything. Raises UserError where the file itself cannot be read on."""
        with _opened(self.path) as file:
            reader = _reader(file, self.layout.separator)
            _skip_header(reader)
            while True:
                begins = reader.line_num + 1
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    if "unexpected end of data" in str(error):
                        raise refuse(
                            f"has a quote in line {begins} that never closes", str(self.path), "close or remove it"
                        ) from None
                    yield self._torn(begins, [], f"line {begins} is no CSV ({error})")
                    continue
                except UnicodeDecodeError:
                    _not_utf8(self.path)
                if cells is None:
                    return
                if self.from_report:
                    cells = [unguard(cell) for cell in cells]
                if any(cell and not cell.isspace() for cell in cells):
                    yield self._read(begins, cells)

    def _read(self, line: int, cells: list[str]) -> Row | Broken:
        layout = self.layout
        if len(cells) > layout.width and not any(cells[layout.width :]):
            del cells[layout.width :]
        if len(cells) != layout.width:
            return self._torn(line, cells, f"line {line} has {len(cells)} cells where the header has {layout.width}")
        location = cells[layout.location_id].strip() if layout.location_id >= 0 else ""
        company = cells[layout.company_id].strip() if layout.company_id >= 0 else ""
        client = cells[layout.client_id].strip() if layout.client_id >= 0 else ""
        own = tuple([cells[index] for index in layout.own])
        if not location and not company:
            why = f"line {line} has neither a location id nor a company id"
            return Broken(line, location, company, client, own, why)
        for name, value in (("location id", location), ("company id", company), ("client id", client)):
            if value and not is_id(value):
                return Broken(line, location, company, client, own, f"line {line}: {_why_no_id(name, value)}")
        level = Level.SUB_ACCOUNT if location else Level.AGENCY
        access, refresh = (_secret(cells, place) for place in (layout.access_token, layout.refresh_token))
        return Row(line, client, level, location or company, company, own, access, refresh)

    def _torn(self, line: int, cells: Sequence[str], why: str) -> Broken:
        """A line whose cells cannot be told apart: kept as one cell, so that fed back it stays what it is."""
        if self.with_old_pairs:
            # A token may stand in any of them, and looks like an id.
            cells = [STARS if cell else "" for cell in cells]
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(cells)
        own = [""] * len(self.columns)
        if self.layout.row_as_read >= 0:
            own[self.layout.row_as_read] = text.getvalue()
        else:
            own.append(text.getvalue())
        return Broken(line, "", "", "", tuple(own), why)


def _secret(cells: Sequence[str], place: int) -> Secret | None:
    text = cells[place].strip() if place >= 0 else ""
    return Secret(text) if text else None


def _why_no_id(name: str, value: str) -> str:
    if _SHORTENED.fullmatch(value):
        return f"the {name} was shortened by a spreadsheet; format the column as text and export it again"
    return f"the {name} holds what no id holds (1 to 64 of A-Z a-z 0-9 _ . -)"


def open_manifest(path: Path) -> Manifest:
    """The manifest at `path`. Raises UserError where it cannot be used at all."""
    csv.field_size_limit(sys.maxsize)
    found = [(header, separator) for separator in SEPARATORS if (header := _header(path, separator)) is not None]
    if not found:
        raise refuse("has a first line that is no CSV", str(path), "mend its quotes")
    # The separator is the one by which the header names an id, and the most columns.
    header, separator = max(found, key=lambda one: (bool(_ids_of(one[0])), len(one[0])))
    if not any(header):
        raise refuse("is empty", str(path), "give a CSV with a header and a line for each install")
    ids = _ids_of(header)
    old_pair = {i: _OLD_PAIR[normal] for i, name in enumerate(header) if (normal := _normal(name)) in _OLD_PAIR}
    named = [*ids.values(), *old_pair.values()]
    for name in ("location_id", "company_id", "client_id", "access_token", "refresh_token"):
        if named.count(name) > 1:
            raise refuse(f"has two columns for {name}", str(path), "remove or rename one of them")
    if not set(ids.values()) & {"location_id", "company_id"}:
        raise refuse("has no column location_id or company_id", str(path), "name one of its columns so, in line 1")
    from_report = set(header) >= _OWN_REPORT
    own = [
        index
        for index, name in enumerate(header)
        if index not in ids and index not in old_pair and name.strip() not in _REPORT_COLUMNS
    ]
    names = tuple(unguard(header[index]) if from_report else header[index] for index in own)
    ours = from_report or set(header) >= _OWN_RESULTS
    left_out = () if ours else tuple(name.strip() for name in header if name.strip() in _REPORT_COLUMNS)
    places = {name: index for index, name in (ids | old_pair).items()}
    layout = _Layout(
        separator,
        len(header),
        places.get("location_id", -1),
        places.get("company_id", -1),
        places.get("client_id", -1),
        places.get("access_token", -1),
        places.get("refresh_token", -1),
        tuple(own),
        names.index(ROW_AS_READ) if ROW_AS_READ in names else -1,
    )
    return Manifest(path, names, left_out, from_report, layout)


def _normal(name: str) -> str:
    return "".join(name.split()).replace("_", "").replace("-", "").casefold()


def _ids_of(header: Sequence[str]) -> dict[int, str]:
    return {i: _ID_COLUMNS[normal] for i, name in enumerate(header) if (normal := _normal(name)) in _ID_COLUMNS}


def _reader(file: TextIO, separator: str) -> _Reader:
    return csv.reader(file, delimiter=separator, strict=True)


def _header(path: Path, separator: str) -> list[str] | None:
    """The first line that names anything, cut at `separator`; None where it cannot be: quotes show the wrong one."""
    try:
        with _opened(path) as file:
            if len(file.readline(_LONGEST_HEADER)) >= _LONGEST_HEADER:
                raise refuse("has a first line without end", str(path), "is it a CSV?")
            file.seek(0)
            reader = _reader(file, separator)
            for cells in reader:
                if any(cell.strip() for cell in cells) and not _names_separator(cells):
                    return cells
    except UnicodeDecodeError:
        _not_utf8(path)
    except csv.Error:
        return None
    return []


def _names_separator(cells: Sequence[str]) -> bool:
    """Excel's own first line `sep=;`."""
    return "".join(cells).strip().casefold() in {"sep=", "sep=,", "sep=;", "sep=\t"} or [*cells] == ["sep=", ""]


def _skip_header(reader: _Reader) -> None:
    for cells in reader:
        if any(cell.strip() for cell in cells) and not _names_separator(cells):
            return


def _opened(path: Path) -> TextIO:
    try:
        if not path.is_file():
            missing = "does not exist" if path.is_absolute() else f"does not exist in {Path.cwd()}"
            raise refuse("is no file" if path.exists() else missing, str(path), "give the path of a CSV")
        with path.open("rb") as raw:
            begins = raw.read(4)
        for what, signs in _NO_CSV.items():
            if begins.startswith(signs):
                raise refuse(f"is {what}", str(path), "save it as CSV UTF-8")
        return path.open(encoding="utf-8-sig", newline="")
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = getattr(error, "strerror", None) or "its name is not one"
        raise refuse(f"cannot be read ({reason})", str(path), "check its path and rights") from None


def _not_utf8(path: Path) -> NoReturn:
    line = 1
    with path.open("rb") as raw:
        for line, text in enumerate(raw, start=1):  # noqa: B007 - the line at fault
            try:
                text.decode()
            except UnicodeDecodeError:
                break
    raise refuse(f"is not UTF-8 (line {line})", str(path), "save it as CSV UTF-8") from None
