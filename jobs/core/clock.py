"""The operator's clock, as the reports write it, and what is due by a clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_MOMENT = 40
A_YEAR = 31_536_000.0
"""Seconds; a longer wait is the same to a run, and would overflow a date."""


class Clocks(NamedTuple):
    """The clocks of a run: monotonic seconds, this moment (UTC, ISO 8601), and the server's time in seconds since 1970."""

    monotonic: Callable[[], float]
    now: Callable[[], str]
    server: Callable[[], float]


class Every:
    """Says when something is due: once in so many `seconds` of `clock`, counted from `last`."""

    def __init__(self, seconds: float, clock: Callable[[], float], last: float = float("-inf")) -> None:
        self._seconds = seconds
        self._clock = clock
        self._last = last

    def due(self, *, asked: bool = False) -> bool:
        """Whether it is due, or somebody `asked` for it. It is counted again from then on."""
        now = self._clock()
        if not asked and now - self._last < self._seconds:
            return False
        self._last = now
        return True


def utc() -> datetime:
    """This moment, UTC."""
    return datetime.now(UTC)


def utc_now() -> str:
    """This moment, UTC, ISO 8601 with milliseconds."""
    return as_written(utc())


def as_written(moment: datetime) -> str:
    """A moment as the ledger and the reports write it. Two of them can be compared as texts."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def past_moment(text: str, now: datetime) -> str:
    """The moment that a person wrote (ISO 8601 with an offset or Z), as the ledger writes it. Raises ValueError that says why."""
    try:
        moment = datetime.fromisoformat(text.strip()) if len(text) <= _LONGEST_MOMENT else None
        written = as_written(moment) if moment is not None and moment.tzinfo is not None else ""
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise ValueError("it is not a time. Write it like 2026-11-25T02:00Z or 2026-11-25T03:00+01:00")
    if not written:
        raise ValueError("it has no offset. End it with Z for UTC, or with an offset such as +01:00")
    if moment > now:
        raise ValueError("it is in the future")
    return written


def duration(seconds: int) -> str:
    """Seconds as `2h 5m`, `3m 20s` or `12s`."""
    minutes, rest = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"
