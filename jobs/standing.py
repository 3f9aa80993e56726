"""How the installs of the newest manifest stand, counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from jobs.causes import ADVICE
from jobs.model import Cause, Counts, Status
from jobs.schema import broken, installs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection


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
