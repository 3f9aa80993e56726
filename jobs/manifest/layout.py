"""Which column of a list is which: the header says so, or the user."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

from jobs.core.errors import UserError, refuse
from jobs.core.formula_guard import unguard
from jobs.core.ids import as_seen
from jobs.core.secret import plain, scrub_own

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

ROW_AS_READ = "row_as_read"
IDS = ("location_id", "company_id", "client_id")
ROLES = (*IDS, "access_token", "refresh_token")
Chosen = Mapping[str, str]  # The header that the user chose for a role. '' means that there is no such column.

_KNOWN = {
    "locationid": "location_id",
    "companyid": "company_id",
    "clientid": "client_id",
    "clientkey": "client_id",
    "accesstoken": "access_token",
    "refreshtoken": "refresh_token",
}
_REPORT_COLUMNS = frozenset(
    [
        "status",
        "token_type",
        "expires_at",
        "scope",
        "sealed",
        "user_type",
        "user_id",
        "route",
        "cause",
        "message",
        "trace_id",
        "attempts",
        "recovered_at",
        "delivery",
        "delivered_at",
        "owner",
        "next_step",
        "stage",
        "http_status",
        "first_failed_at",
        "last_tried_at",
        "reinstall_url",
    ]
)
_SCOPES = {"scope", "scopes"}
_OWN_REPORT = {"cause", "owner", "next_step", "reinstall_url"}
# The order of columns in a failures.csv and in a failures.xlsx.
_IN_CSV = (*IDS, "cause", "owner", "next_step", "reinstall_url")
_IN_WORKBOOK = ("next_step", "reinstall_url", *IDS, "cause", "owner")
_OWN_RESULTS = {"status", "access_token", "refresh_token", "route", "recovered_at"}
_OF_LOCATIONS = re.compile(r"location|subacc|loc(?:id)?$")
_LIKE_A_LOCATION = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9]{20,24}", re.ASCII)
_DIGIT = re.compile(r"\d")
_ADDRESS = re.compile(r"[^\s@]@[^\s@]+\.[^\s@]")
_ERRORS = ("#", "Err:")
_MOSTLY = 0.8
_LONGEST_NAME = 200
_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Layout:
    """Which cell of a line is which: the place of each role (-1: no such column), and the places of the user's columns.

    `columns` are the names of the user's columns. `left_out` are user columns with a name that the reports use. `scope` is
    the place of what the access token may do, and `sealed` that of a sealed pair. `guarded` is whether `guard` has changed its
    cells.
    """

    header: tuple[str, ...]
    separator: str
    location_id: int
    company_id: int
    client_id: int
    access_token: int
    refresh_token: int
    own: tuple[int, ...]
    columns: tuple[str, ...]
    left_out: tuple[str, ...]
    guarded: bool
    ours: bool
    scope: int = -1
    sealed: int = -1

    @property
    def width(self) -> int:
        """How many cells a line has."""
        return len(self.header)

    @property
    def roles(self) -> list[int]:
        """The places of the ids and tokens that it has."""
        return [place for role in ROLES if (place := getattr(self, role)) >= 0]

    @property
    def row_as_read(self) -> int:
        """The place of the column `row_as_read` among the user's columns, or -1 if there is none."""
        return self.columns.index(ROW_AS_READ) if ROW_AS_READ in self.columns else -1


def on_one_line(name: str) -> str:
    """The name of a column or a sheet, for a person."""
    return plain(as_seen(name), _LONGEST_NAME)


def first_of(names: Sequence[str]) -> str:
    """The first of these names, to choose from. A person sees the others in the file."""
    more = ["..."] if len(names) > _MOST_NAMED else []
    return ", ".join([*names[:_MOST_NAMED], *more])


def role_of(name: str) -> str:
    """The role of a column with this header, or '' for one of the user's own columns."""
    return _KNOWN.get(_normal(name), "")


def _normal(name: str) -> str:
    return "".join(as_seen(name).split()).replace("_", "").replace("-", "").casefold()


def layout_of(path: Path, header: Sequence[str], separator: str, chosen: Chosen | None, *, is_csv: bool) -> Layout:
    """The layout of a list with this header. `chosen` is None if the user could not choose. Raises UserError."""
    guarded = is_of_failures(header) and _is_guarded(header, is_csv=is_csv)
    ours = is_of_failures(header) or set(header) >= _OWN_RESULTS
    # In one of the job's own reports, every column is what its name says.
    places = _places(path, header, {} if ours else chosen or {}, asked=chosen is not None)
    if ours and "location_id" not in places:
        raise report_without_locations(str(path))
    taken = set(places.values())
    own = [
        index
        for index, name in enumerate(header)
        if index not in taken and name.strip() not in _REPORT_COLUMNS and not role_of(name)
    ]
    left_out = [as_seen(name) for index, name in enumerate(header) if index not in taken and index not in own]
    return Layout(
        header=tuple(header),
        separator=separator,
        **{role: places.get(role, -1) for role in ROLES},
        own=tuple(own),
        columns=tuple(unguard(header[index]) if guarded else header[index] for index in own),
        left_out=() if ours else tuple(left_out),
        guarded=guarded,
        ours=ours,
        scope=next((index for index, name in enumerate(header) if _normal(name) in _SCOPES), -1),
        sealed=next((index for index, name in enumerate(header) if as_seen(name) == "sealed"), -1),
    )


def is_of_failures(header: Sequence[str]) -> bool:
    """Whether it is the header of a report of failures."""
    return set(header) >= _OWN_REPORT


def report_without_locations(where: str, sheet: str = "") -> UserError:
    """The error for a report of the job whose location ids cannot be found: its sub-accounts would become agencies."""
    of_sheet = f" on the sheet {on_one_line(sheet)!r}" if sheet else ""
    what = f"is a report of the job, but has no column location_id{of_sheet}"
    return refuse(what, where, "give the column that name again, or take the report as the job wrote it")


def _is_guarded(header: Sequence[str], *, is_csv: bool) -> bool:
    """Whether the cells of a report of failures are those of a failures.csv. In a failures.xlsx they are as they were.

    Either may have been saved as the other kind of file, so the order of columns decides. If a person has moved them, the kind
    does.
    """
    order = [name for name in header if name in _IN_CSV]
    if order in ([name for name in known if name in order] for known in (_IN_CSV, _IN_WORKBOOK)):
        return order[0] != _IN_WORKBOOK[0]
    return is_csv


def _places(path: Path, header: Sequence[str], chosen: Chosen, *, asked: bool) -> dict[str, int]:
    """The place of each role that there is."""
    places = {role: _place(path, header, name) for role, name in chosen.items() if name}
    if len(set(places.values())) < len(places):
        raise refuse("has one column that --column names twice", str(path), "name a different column")
    for index, name in enumerate(header):
        role = role_of(name)
        if not role or role in chosen or index in places.values():
            continue
        if role in places:
            more = f", or choose one with --column {role}=NAME" if asked else ""
            raise refuse(f"has two columns for {role}", str(path), f"remove or rename one of them{more}")
        places[role] = index
    return places


def _place(path: Path, header: Sequence[str], name: str) -> int:
    """The place of the column called `name`: an exact match, or else a match as for all headers."""
    exact = [index for index, one in enumerate(header) if as_seen(one) == as_seen(name)]
    alike = exact or [index for index, one in enumerate(header) if _normal(one) == _normal(name)]
    if len(alike) != 1:
        what = "has two columns" if alike else "has no column"
        # A first line without a known name may hold a customer's data, and errors go out with a notification.
        if any(map(role_of, header)):
            todo = f"choose one of its columns: {first_of([*map(on_one_line, header)])}"
        else:
            todo = "choose one of the names in its header"
        raise refuse(f"{what} {name!r}, which --column names", str(path), todo)
    return alike[0]


def is_line_of_ids(header: Iterable[str]) -> bool:
    """Whether the line in the header's place holds ids. To use it as a header would lose that install."""
    return any(_LIKE_A_LOCATION.fullmatch(name) and _DIGIT.search(name) for name in map(as_seen, header))


def is_line_of_cells(header: Sequence[str]) -> bool:
    """Whether the line in the header's place holds ids, tokens or email addresses, so that it is not a header."""
    return is_line_of_ids(header) or any(
        _ADDRESS.search(name) or (_DIGIT.search(name) and scrub_own(name) != name) for name in header
    )


def speaks_of_locations(layout: Layout) -> int | None:
    """Which of the user's columns may hold the location ids, by its header. None if there is none."""
    return next((at for at, name in enumerate(layout.columns) if _OF_LOCATIONS.search(_normal(name))), None)


def holds_ids(layout: Layout, rows: Sequence[Sequence[str]]) -> int | None:
    """Which of the user's columns has cells in `rows` that look like ids, most of them unique. None if there is none."""
    for at, index in enumerate(layout.own):
        like = _like_ids(index, rows)
        if like and len(set(like)) >= _MOSTLY * len(like):
            return at
    return None


def _like_ids(index: int, rows: Iterable[Sequence[str]]) -> list[str]:
    """The cells of a column that look like ids, if most of them do. Otherwise none. Errors of a spreadsheet do not count."""
    cells = [
        cell for row in rows if index < len(row) and (cell := as_seen(row[index])) and not cell.startswith(_ERRORS)
    ]
    like = [cell for cell in cells if _LIKE_A_LOCATION.fullmatch(cell)]
    return like if len(like) >= _MOSTLY * len(cells) else []


def unknown_locations(path: Path, layout: Layout, at: int, rows: Iterable[Sequence[str]]) -> UserError:
    """The error if the user's column `at` may hold the location ids. Without it, sub-accounts would become agencies.

    The cells in `rows` decide which option comes first: it does not help to take the name of a city for an id.
    """
    named, place = on_one_line(layout.columns[at]), layout.own[at]
    there = "has no location ids" if layout.location_id >= 0 else "has no column location_id"
    none = "`--column location_id=`"
    if not named:
        what = f"{there}, but its column {place + 1}, which has no name, seems to hold location ids"
        return refuse(what, str(path), f"name it in the header, or use {none} if the column holds something else")
    this = f"--column {quote(f'location_id={named}')}"
    if _like_ids(place, rows):
        what = f"{there}, but its column {named!r} seems to hold location ids"
        todo = f"use {this}, or {none} if the column holds something else"
    else:
        what = f"{there}, but the name of its column {named!r} suggests location ids, although its cells do not look like ids"
        todo = f"use {none} if the column holds something else, or {this} if it holds the location ids"
    return refuse(what, str(path), todo)
