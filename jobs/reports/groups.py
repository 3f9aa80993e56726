"""Failures grouped by company and cut into tables of limited size. Each company has its message."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING
from urllib.parse import quote

from jobs.core.model import Level
from jobs.core.secret import plain
from jobs.reports.links import reinstall_url
from jobs.reports.messages import HAS_MESSAGE
from jobs.reports.tables import own_cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from jobs.core.model import App, Cause, Record
    from jobs.ledger.support_queries import Listed
    from jobs.reports.messages import Message, Messages

_ROWS = 100
_NAMED = 100
_LONGEST_MAILTO = 1_900  # Windows does not pass a longer link to a mail program.
_ADDRESS = re.compile(r"[A-Za-z0-9._%+\-]+@(?:[A-Za-z0-9\-]+\.)+[A-Za-z]{2,}")


@dataclass(frozen=True, slots=True)
class Row:
    """An install on the page. Texts are not escaped yet."""

    own: list[str]
    account: str
    kind: str
    said: str
    trace_id: str
    tried: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Mail:
    """The message for a company, and the link that opens it in a mail program."""

    message: Message
    mailto: str


@dataclass(frozen=True, slots=True)
class Part:
    """Installs of one company and app: all of them, or as many as fit into a table. The first part has the `mail`."""

    company: str
    app: str
    count: int
    continued: bool
    mail: Mail | None
    mail_missing: bool
    rows: list[Row]

    @property
    def size(self) -> int:
        """How many rows of a table it needs."""
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class PageContext:
    """What is needed to list failures: the user's columns, the apps, the messages."""

    columns: Sequence[str]
    apps: Mapping[str, App]
    messages: Messages

    def app_name(self, client_id: str) -> str:
        """The name of an app, or '' if it has none."""
        app = self.apps.get(client_id)
        return app.name if app else ""


def tables(failures: Iterable[Listed], cause: Cause, context: PageContext) -> Iterator[list[Part]]:
    """`failures`, sorted by company, as tables of about a hundred rows."""
    table: list[Part] = []
    for part in _parts(failures, cause, context):
        table.append(part)
        if sum(one.size for one in table) >= _ROWS:
            yield table
            table = []
    if table:
        yield table


def _parts(failures: Iterable[Listed], cause: Cause, context: PageContext) -> Iterator[Part]:
    for (company, client_id, lone), group in groupby(failures, lambda listed: _company(listed, cause)):
        app = context.app_name(client_id) or client_id if len(context.apps) > 1 else ""
        continued = False
        while batch := list(islice(group, _ROWS)):
            count = 1 if lone else batch[0].of_company
            wants = cause in HAS_MESSAGE and not continued
            mail = _mail([listed.record for listed in batch], cause, company, count, context) if wants else None
            rows = [_row(listed, context) for listed in batch]
            yield Part(company, app, count, continued, mail, wants and mail is None, rows)
            continued = True


def _company(listed: Listed, cause: Cause) -> tuple[str, str, str]:
    """The key by which installs are grouped.

    Installs of unknown companies may belong to different customers, so each of them gets its own message.
    """
    record = listed.record
    lone = record.location_id if not listed.company and cause in HAS_MESSAGE else ""
    return listed.company, record.client_id if record.level else "", lone


def _row(listed: Listed, context: PageContext) -> Row:
    record = listed.record
    account = record.location_id or record.company_id
    kind = "" if record.listed else "not in the newest list"
    if record.level is Level.AGENCY:
        kind = f"agency, {kind}" if kind else "agency"
    elif record.level is None:
        account, kind = f"line {record.line}", plain(account, 80)
    return Row(
        own_cells(record, context.columns),
        account,
        kind,
        record.message,
        record.trace_id,
        minute(record.last_tried_at),
        listed.is_new,
    )


def _mail(records: Sequence[Record], cause: Cause, company: str, count: int, context: PageContext) -> Mail | None:
    first = records[0]
    named = [account_label(record) for record in records[:_NAMED]]
    message = context.messages.write(
        cause.value,
        {
            "app": plain(context.app_name(first.client_id), 80) or "our app",
            "company": company,
            "accounts": named,
            "more": count - len(named),
            "count": count,
            "link": reinstall_url(context.apps.get(first.client_id), first),
        },
    )
    return Mail(message, _mailto(message, records if len(records) == count else ())) if message else None


def _mailto(message: Message, records: Iterable[Record]) -> str:
    """The mailto link. It has an address if the rows hold exactly one, and the text if that is short enough."""
    cells = {cell.strip() for record in records for _, cell in record.cells}
    found = {cell for cell in cells if _ADDRESS.fullmatch(cell)}
    to = quote(found.pop(), safe="@") if len(found) == 1 else ""
    link = f"mailto:{to}?subject={quote(message.subject, safe='')}"
    whole = f"{link}&body={quote(message.body.replace(chr(10), chr(13) + chr(10)), safe='')}"
    return whole if len(whole) <= _LONGEST_MAILTO else link


def account_label(record: Record) -> str:
    """An install as its owner knows it: the name, if the user's columns hold one, and the id."""
    name = next((plain(cell, 80) for column, cell in record.cells if "name" in column.casefold() and cell.strip()), "")
    account = record.location_id or record.company_id
    which = f"agency {account}" if record.level is Level.AGENCY else account
    return f"{name} ({which})" if name else which


def minute(at: str) -> str:
    """An ISO 8601 time without its seconds, for a person."""
    return at[:16].replace("T", " ")
