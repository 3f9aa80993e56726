"""Counts of the newest manifest's installs by their state."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import and_, case, func, select

from jobs.core.causes import ADVICE
from jobs.core.model import Cause, Counts, Delivery, Run, Status
from jobs.ledger.changes import LINE_BY_LAST_REPORT
from jobs.ledger.sealed import is_sealed
from jobs.ledger.tables import HAS_PAIR, OF_KEPT_PAIR, broken, deliveries, installs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement, Connection


def taken_again(before: str) -> ColumnElement[bool]:
    """The condition for an install to recover again: recovered before that moment (UTC, ISO 8601; '' matches none)."""
    return and_(installs.c.status == Status.RECOVERED, installs.c.recovered_at < before)


def not_tried_since(before: str) -> ColumnElement[bool]:
    """The condition for an install to recover again that was not tried since. It counts as pending and keeps its pair."""
    return and_(taken_again(before), installs.c.last_tried_at < before)


def as_it_stands(connection: Connection, run: Run, rows: int) -> Run:
    """`run` with the current counts of INPUT's installs. INPUT has that many `rows`."""
    counts, retryable, by_cause, kept = standing(connection, rows, run.recovered_before)
    return replace(
        run,
        counts=with_deliveries(connection, counts, has_target=bool(run.delivery.target)),
        sealed=is_sealed(connection),
        retryable=retryable,
        kept=kept,
        failures_by_cause=by_cause,
        failures_by_owner=owners(by_cause),
        this_run=replace(run.this_run, new_failures=new_failures(connection, run.started_at)),
    )


def under_way(connection: Connection, run: Run) -> Run:
    """A run that has not ended, or was killed, with what it has done so far. Only the number of its requests is not known.

    `connection` must see one moment, so that all counts agree.
    """
    tried = select(func.count(), func.count().filter(installs.c.recovered_at >= run.started_at)).where(
        installs.c.last_tried_at >= run.started_at, installs.c.attempts > 0
    )
    attempted, recovered = connection.execute(tried).one()
    did = replace(run.this_run, attempted=attempted, recovered=recovered, failed=attempted - recovered)
    return as_it_stands(connection, replace(run, this_run=did), run.counts.rows)


def standing(connection: Connection, rows: int, before: str) -> tuple[Counts, int, dict[str, int], int]:
    """The counts of INPUT's installs, how many another run may recover, the failures by cause, and how many keep their pair.

    The last number counts installs that were recovered `before`, were tried since without success, and keep the pair they had.
    """
    status = case((not_tried_since(before), Status.PENDING.value), else_=installs.c.status).label("stands")
    kept = taken_again(before).label("kept")
    query = select(status, installs.c.cause, kept, func.count()).where(installs.c.position.is_not(None))
    groups = ("stands", installs.c.cause, "kept")
    found = connection.execute(query.group_by(*groups).order_by(installs.c.cause)).all()
    torn = connection.scalar(select(func.count()).select_from(broken)) or 0
    by_status = {status.value: 0 for status in Status}
    by_cause = {Cause.INVALID_ROW.value: torn} if torn else {}
    retryable = kept_pairs = 0
    for stands, cause, again, count in found:
        by_status[stands] += count
        if stands == Status.FAILED:
            by_cause[cause] = by_cause.get(cause, 0) + count
        if stands == Status.PENDING or (stands == Status.FAILED and ADVICE[Cause(cause)].again):
            retryable += count
        kept_pairs += count if again and stands == Status.RECOVERED else 0
    known = sum(by_status.values()) + torn
    counts = Counts(
        rows or known,
        known,
        max(0, rows - known),
        by_status["recovered"],
        by_status["failed"] + torn,
        by_status["pending"],
    )
    return counts, retryable, by_cause, kept_pairs


def new_failures(connection: Connection, since: str) -> int:
    """How many listed installs failed for the first time since then, plus how many broken lines are new."""
    query = select(func.count()).where(
        installs.c.position.is_not(None), installs.c.status == Status.FAILED, installs.c.first_failed_at >= since
    )
    lines = select(func.count()).select_from(broken).where(~LINE_BY_LAST_REPORT)
    return (connection.scalar(query) or 0) + (connection.scalar(lines) or 0)


def count_pairs(connection: Connection) -> int:
    """How many installs have a pair."""
    return connection.scalar(select(func.count()).where(HAS_PAIR)) or 0


def recovery_ages(connection: Connection, before: str = "") -> tuple[str, str]:
    """The times of the oldest and the newest recovery (UTC, ISO 8601) among the listed installs that the run leaves alone."""
    query = select(func.min(installs.c.recovered_at), func.max(installs.c.recovered_at)).where(
        installs.c.position.is_not(None), installs.c.status == Status.RECOVERED, ~taken_again(before)
    )
    oldest, newest = connection.execute(query).one()
    return oldest or "", newest or ""


def owners(by_cause: Mapping[str, int]) -> dict[str, int]:
    """How many failures each owner has."""
    counted: dict[str, int] = {}
    for cause, count in by_cause.items():
        owner = ADVICE[Cause(cause)].owner.value
        counted[owner] = counted.get(owner, 0) + count
    return counted


def with_deliveries(connection: Connection, counts: Counts, *, has_target: bool) -> Counts:
    """`counts` with how many of INPUT's kept pairs the app's store has taken, how many not yet, how many are forgotten.

    Without a target no pair waits, and none was taken.
    """
    query = select(deliveries.c.state, func.count()).select_from(deliveries.join(installs, OF_KEPT_PAIR))
    found = connection.execute(query.where(installs.c.position.is_not(None)).group_by(deliveries.c.state))
    by_state: dict[str, int] = {row[0]: row[1] for row in found}
    counts = replace(counts, purged=by_state.get(Delivery.PURGED, 0))
    if not has_target:
        return counts
    return replace(
        counts,
        delivered=by_state.get(Delivery.DELIVERED, 0),
        undelivered=by_state.get(Delivery.WAITING, 0) + by_state.get(Delivery.REFUSED, 0),
    )
