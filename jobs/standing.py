"""How the installs of the newest manifest stand, counted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from jobs.causes import ADVICE
from jobs.model import Cause, Counts, Run, Status
from jobs.schema import broken, installs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection


def as_it_stands(connection: Connection, run: Run, rows: int) -> Run:
    """`run` with how INPUT's installs, on that many rows, stand now."""
    counts, retryable, by_cause = standing(connection, rows)
    return replace(
        run,
        counts=counts,
        retryable=retryable,
        failures_by_cause=by_cause,
        failures_by_owner=owners(by_cause),
        this_run=replace(run.this_run, new_failures=new_failures(connection, run.started_at)),
    )


def under_way(connection: Connection, run: Run) -> Run:
    """A run that has not ended, or was killed, with what it did so far; only its requests nobody knows.

    `connection` sees one moment, so that all of it agrees.
    """
    tried = select(func.count(), func.count().filter(installs.c.recovered_at >= run.started_at)).where(
        installs.c.last_tried_at >= run.started_at, installs.c.attempts > 0
    )
    attempted, recovered = connection.execute(tried).one()
    did = replace(run.this_run, attempted=attempted, recovered=recovered, failed=attempted - recovered)
    return as_it_stands(connection, replace(run, this_run=did), run.counts.rows)


def standing(connection: Connection, rows: int) -> tuple[Counts, int, dict[str, int]]:
    """How INPUT's installs stand, how many another run may bring back, and the failures by cause."""
    query = select(installs.c.status, installs.c.cause, func.count()).where(installs.c.position.is_not(None))
    found = connection.execute(query.group_by(installs.c.status, installs.c.cause)).all()
    torn = connection.scalar(select(func.count()).select_from(broken)) or 0
    by_status = {status.value: 0 for status in Status}
    by_cause = {Cause.INVALID_ROW.value: torn} if torn else {}
    retryable = 0
    for status, cause, count in found:
        by_status[status] += count
        if status == Status.FAILED:
            by_cause[cause] = by_cause.get(cause, 0) + count
        if status == Status.PENDING or (status == Status.FAILED and ADVICE[Cause(cause)].again):
            retryable += count
    known = sum(by_status.values()) + torn
    counts = Counts(
        rows or known,
        known,
        max(0, rows - known),
        by_status["recovered"],
        by_status["failed"] + torn,
        by_status["pending"],
    )
    return counts, retryable, by_cause


def new_failures(connection: Connection, since: str) -> int:
    """How many listed installs failed since then that had not failed before."""
    query = select(func.count()).where(
        installs.c.position.is_not(None), installs.c.status == Status.FAILED, installs.c.first_failed_at >= since
    )
    return connection.scalar(query) or 0


def count_pairs(connection: Connection) -> int:
    """How many installs have a pair."""
    return connection.scalar(select(func.count()).where(installs.c.tokens.is_not(None))) or 0


def recovery_ages(connection: Connection) -> tuple[str, str]:
    """When the oldest and the newest recovery of a listed install was, as UTC ISO 8601."""
    query = select(func.min(installs.c.recovered_at), func.max(installs.c.recovered_at)).where(
        installs.c.position.is_not(None), installs.c.status == Status.RECOVERED
    )
    oldest, newest = connection.execute(query).one()
    return oldest or "", newest or ""


def owners(by_cause: Mapping[str, int]) -> dict[str, int]:
    """The failures counted by who acts next."""
    counted: dict[str, int] = {}
    for cause, count in by_cause.items():
        owner = ADVICE[Cause(cause)].owner.value
        counted[owner] = counted.get(owner, 0) + count
    return counted
