"""Remembers what the last report listed, so that the next one can say what is fixed and what is new.

The last report is the one of the last run that left a report. A run saves its list at the beginning, before it changes
anything. So `recover report` can render again at any time, and the work of a killed run counts for the next run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Select, and_, delete, func, insert, select

from jobs.core.model import Status
from jobs.ledger.reads import last_run
from jobs.ledger.tables import broken, installs, remember, remembered, reported, reported_lines

if TYPE_CHECKING:
    from sqlalchemy import Connection

_WHEN = "last_report_at"
_LINE = ("line", "location_id", "company_id", "cells")

BY_LAST_REPORT: ColumnElement[bool] = select(reported.c.install).where(reported.c.install == installs.c.id).exists()
LINE_BY_LAST_REPORT: ColumnElement[bool] = (
    select(reported_lines.c.line)
    .where(
        reported_lines.c.cells == broken.c.cells,
        reported_lines.c.location_id == broken.c.location_id,
        reported_lines.c.company_id == broken.c.company_id,
    )
    .exists()
)
FIXED = and_(installs.c.status == Status.RECOVERED, installs.c.id.in_(select(reported.c.install)))


@dataclass(frozen=True, slots=True)
class Changes:
    """How the failures changed since the last report, which was made at `since` (UTC, ISO 8601)."""

    since: str
    fixed: int
    new: int
    still_open: int


def keep_last_report(connection: Connection) -> None:
    """Save the failures at the end of the last run, if that run left a report."""
    last = last_run(connection)
    ended = last.finished_at if last else ""
    if not ended:
        return
    failed = select(installs.c.id).where(installs.c.status == Status.FAILED)
    lines = select(*(broken.c[name] for name in _LINE))
    for table, names, listed in ((reported, ["install"], failed), (reported_lines, list(_LINE), lines)):
        connection.execute(delete(table))
        connection.execute(insert(table).from_select(names, listed))
    remember(connection, _WHEN, ended)


def changes(connection: Connection) -> Changes | None:
    """What is fixed, new and still open since the last report. None if there was no report."""
    since = remembered(connection, _WHEN)
    if since is None:
        return None

    def count(query: Select[int]) -> int:
        return connection.scalar(query) or 0

    failed = select(func.count()).select_from(installs).where(installs.c.status == Status.FAILED)
    torn = select(func.count()).select_from(broken)
    still = count(failed.where(BY_LAST_REPORT)) + count(torn.where(LINE_BY_LAST_REPORT))
    return Changes(
        since=since,
        fixed=count(select(func.count()).select_from(installs).where(FIXED)),
        new=count(failed) + count(torn) - still,
        still_open=still,
    )
