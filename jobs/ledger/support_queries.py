"""The support page's queries: failures by company, their counts, what is fixed, and the words for HighLevel's support.

The database sorts everything, so that a page of a million failures does not need more memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Integer, case, cast, func, select

from jobs.core.causes import ADVICE
from jobs.core.model import Cause, Level, Owner, Stage, Status
from jobs.ledger.changes import BY_LAST_REPORT, FIXED, LINE_BY_LAST_REPORT
from jobs.ledger.reads import as_record, broken_record, layout_names, streamed
from jobs.ledger.tables import broken, installs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from jobs.core.model import Record

_KINDS = 20
_TRACE_IDS = 50
_FAILED = installs.c.status == Status.FAILED
_COMPANY = case((installs.c.level == Level.AGENCY, installs.c.account_id), else_=installs.c.company_id)


@dataclass(frozen=True, slots=True)
class Listed:
    """A failure as the support page lists it, with its company ('' if not known).

    `of_company` is how many failures of this cause that company and app have.
    """

    record: Record
    company: str
    of_company: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class Tally:
    """How many failures a cause and an app have, how many are not in the newest manifest, and how many are new."""

    cause: Cause
    client_id: str
    count: int
    unlisted: int
    new: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """Failures that look the same to HighLevel: how many, when (UTC, ISO 8601), and some of their trace ids."""

    cause: Cause
    stage: Stage
    http_status: int
    message: str
    count: int
    first: str
    last: str
    trace_ids: tuple[str, ...]


def tallies(connection: Connection) -> list[Tally]:
    """The failures counted by cause and app, including the broken lines."""
    unlisted = func.sum(cast(installs.c.position.is_(None), Integer))
    new = func.sum(1 - cast(BY_LAST_REPORT, Integer))
    query = select(installs.c.cause, installs.c.client_id, func.count(), unlisted, new).where(_FAILED)
    groups = (installs.c.cause, installs.c.client_id)
    counted = connection.execute(query.group_by(*groups).order_by(*groups)).all()
    found = [Tally(Cause(cause), *rest) for cause, *rest in counted]
    total, fresh = connection.execute(
        select(func.count(), func.sum(1 - cast(LINE_BY_LAST_REPORT, Integer))).select_from(broken)
    ).one()
    return [*found, Tally(Cause.INVALID_ROW, "", total, 0, fresh)] if total else found


def by_company(connection: Connection, cause: Cause) -> Iterator[Listed]:
    """The failures with one cause, by company, then by app, then in manifest order. Unknown companies come last.

    Broken lines never belong to a company.
    """
    company, app = _COMPANY.label("company"), installs.c.client_id
    size = func.count().over(partition_by=(_COMPANY, app)).label("size")
    query = select(installs, company, size, BY_LAST_REPORT.label("told")).where(
        _FAILED, installs.c.cause == cause.value
    )
    order = (_COMPANY == "", _COMPANY, app, installs.c.position.is_(None), installs.c.position, installs.c.id)
    names = layout_names(connection)
    for row in streamed(connection, query.order_by(*order)):
        yield Listed(as_record(row, names), row["company"], row["size"], is_new=not row["told"])
    if cause is Cause.INVALID_ROW:
        torn = connection.scalar(select(func.count()).select_from(broken)) or 0
        lines = select(broken, LINE_BY_LAST_REPORT.label("told")).order_by(broken.c.position)
        for row in streamed(connection, lines):
            yield Listed(broken_record(row, names), "", torn, is_new=not row["told"])


def fixed(connection: Connection) -> Iterator[Record]:
    """The installs that the last report listed and that are recovered now, in manifest order."""
    query = select(installs).where(FIXED).order_by(installs.c.position.is_(None), installs.c.position, installs.c.id)
    names = layout_names(connection)
    for row in streamed(connection, query):
        yield as_record(row, names)


def evidence(connection: Connection) -> list[Evidence]:
    """What HighLevel's support needs to know: the failures that they own, grouped by cause, call and words, largest first."""
    theirs = [cause.value for cause, advice in ADVICE.items() if advice.owner is Owner.HIGHLEVEL]
    kind = (installs.c.cause, installs.c.stage, installs.c.http_status, installs.c.message)
    times = (func.min(installs.c.first_failed_at), func.max(installs.c.last_tried_at))
    failed = (_FAILED, installs.c.cause.in_(theirs))
    query = select(*kind, func.count(), *times).where(*failed).group_by(*kind).order_by(func.count().desc(), *kind)
    found = []
    for cause, stage, status, message, size, first, last in connection.execute(query.limit(_KINDS)).all():
        this = [column == value for column, value in zip(kind, (cause, stage, status, message), strict=True)]
        traces = select(installs.c.trace_id).where(*failed, *this, installs.c.trace_id != "")
        ids = tuple(
            connection.scalars(traces.order_by(installs.c.last_tried_at.desc(), installs.c.id).limit(_TRACE_IDS))
        )
        found.append(Evidence(Cause(cause), Stage(stage), status, message, size, first, last, ids))
    return found
