"""What answers say about the server's limits (`X-RateLimit-*`), and how many requests that leaves for this job.

The header names are HighLevel's. The changes in the remaining requests show whether the server's window slides or
restarts, and how much of it others use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from jobs.pace.spacing import Schedule, Window, window

if TYPE_CHECKING:
    from collections.abc import Mapping

_DAY = 86_400
_SURGE = 0.1  # Others may use this much more of their share before an answer tells us.
_MOST = 1e12  # A larger number cannot be a limit.
_WINDOWS = range(1, _DAY * 1000)  # Milliseconds. A window of any other length is ignored.
_MILLISECONDS = 1e11  # A larger time since 1970 is in milliseconds.


@dataclass(frozen=True, slots=True)
class Said:
    """A window's limit, its remaining requests and its seconds. Then the day's remaining requests and when the day ends."""

    most: int
    remaining: int
    seconds: float
    today: int | None = None
    next_day: datetime | None = None


def read_limits(headers: Mapping[str, str], now: datetime) -> Said | None:
    """What an answer says about limits, or None. A header that cannot be read is ignored."""
    most, remaining, milliseconds = (
        _number(headers, f"x-ratelimit-{name}") for name in ("max", "remaining", "interval-milliseconds")
    )
    today = _number(headers, "x-ratelimit-daily-remaining")
    if not most or remaining is None or milliseconds is None or int(milliseconds) not in _WINDOWS:
        most = milliseconds = 0
    if not most and today is None:
        return None
    next_day = _next_day(headers.get("x-ratelimit-daily-reset"), now)
    return Said(int(most), int(remaining or 0), milliseconds / 1000, None if today is None else int(today), next_day)


def _number(headers: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(headers.get(name, ""))
    except ValueError:
        return None
    return value if 0 <= value < _MOST else None


def _next_day(text: str | None, now: datetime) -> datetime | None:
    """When the next day's requests are available. The unit is not documented, so the size of the number decides.

    A number up to a day's seconds is in seconds from now, and one up to a day's milliseconds is in milliseconds from now. A
    larger one is a time since 1970, in seconds or milliseconds. A date works too. A time in the past, or more than two days
    ahead, is ignored.
    """
    try:
        found = _moment(text or "", now)
    except (ValueError, OverflowError, OSError):
        return None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return found.astimezone(UTC) if now <= found <= now + timedelta(days=2) else None


def _moment(text: str, now: datetime) -> datetime:
    try:
        number = float(text)
    except ValueError:
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            return parsedate_to_datetime(text)
    if not math.isfinite(number):
        raise ValueError(text)
    if number <= _DAY * 1000:
        return now + timedelta(seconds=number if number <= _DAY else number / 1000)
    return datetime.fromtimestamp(number if number < _MILLISECONDS else number / 1000, UTC)


@dataclass(frozen=True, slots=True)
class _Told:
    """The newest limits, with the number of the request whose answer told them."""

    said: Said
    number: int
    sent: float
    heard: float


class Budget:
    """How much the limits of one resource leave. Its requests have numbers from 0. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._schedule = Schedule()
        self._told: _Told | None = None
        self._others = 0.0
        self._anew: _Told | None = None
        self._day: tuple[int, int] | None = None
        self._rests_until = float("-inf")
        self.next_day: datetime | None = None

    def leave(self, now: float) -> int:
        """The number of a request that leaves now."""
        return self._schedule.leave(now, self.rate(now))

    def begin_day(self, today: int, next_day: datetime) -> None:
        """Begin with what an earlier run heard of the day. Call it before the first request."""
        self._day, self.next_day = (today, -1), next_day

    def rest(self, until: float) -> None:
        """Let nothing leave before `until`."""
        self._rests_until = max(self._rests_until, until)

    def hear(self, said: Said | None, number: int, now: float, *, arrived: bool) -> None:
        """Note what the answer to request `number` said. `arrived` is False if no answer came."""
        if arrived:
            self._schedule.answered(number, now)
        if said is None:
            return
        if said.today is not None and (self._day is None or number > self._day[1]):
            self._day, self.next_day = (said.today, number), said.next_day
        if not said.most or (self._told is not None and number < self._told.number):
            return
        told, before = _Told(said, number, self._schedule.left_at(number), now), self._told
        self._told = told
        if before is None or before.said.most != said.most:
            self._others, self._anew = float(self._in_window(told)), None
            return
        gone = max(0.0, told.sent - before.sent) / said.seconds
        self._others *= math.exp(-gone)
        more_gone = (before.said.remaining - said.remaining) - (number - before.number)
        if said.remaining - before.said.remaining > max(2, said.most * (0.2 + 1.2 * gone)):
            self._anew = told
        elif self._anew is not None and _slides(self._anew, told):
            self._anew = None
        elif self._anew is not None:
            self._others += max(0, more_gone)
        self._others = min(max(self._others, self._in_window(told)), said.most)

    def _in_window(self, told: _Told) -> int:
        """How much others used of a window that slides or began with our requests. One or two more are only out of order."""
        said = told.said
        ours = self._schedule.between(told.sent - said.seconds, told.sent)
        others = said.most - said.remaining - ours
        return others if others > 1 + said.most // 100 else 0

    def _within(self, now: float) -> Window | None:
        """The server's window without the share of others. None if the server did not tell of one lately."""
        told = self._told
        if told is None or now - told.heard > _DAY:
            return None
        return window(max(1.0, told.said.most - math.ceil(self._others - 0.5) - self._reserve()), told.said.seconds)

    def rate(self, now: float) -> float:
        """The pace that the window allows, in requests a second. Infinite if no window is known."""
        told = self._within(now)
        return told.rate if told else math.inf

    def _reserve(self) -> int:
        """How many requests to keep free, because others may use them before an answer tells us."""
        return math.ceil(1 + self._others * _SURGE) if self._others >= 1 else 0

    def free_at(self, now: float) -> float:
        """When one more request fits into the window and its remaining requests, as far as known."""
        told = self._within(now)
        if told is None:
            return max(now, self._rests_until)
        due = max(now, self._rests_until, self._schedule.due(told.rate, told))
        return max(due, self._remains_at(due))

    def _remains_at(self, now: float) -> float:
        told = self._told
        if told is None:
            return now
        seconds = told.said.seconds
        slides = self._anew is None
        expired = self._schedule.between(told.sent - seconds, now - seconds) if slides else 0
        since = len(self._schedule) - 1 - told.number
        drift = self._others * min(1.0, (now - told.sent) / seconds)
        if slides:
            drift = min(drift, self._reserve())  # The requests of others leave the window, too.
        if told.said.remaining - since - drift + expired >= 1:
            return now
        if self._anew is None:
            return max(now, min(told.heard + seconds, now + seconds / told.said.most))
        windows = math.floor((told.sent - self._anew.sent) / seconds) + 1
        return max(now, self._anew.sent + windows * seconds)

    def day(self, utc: datetime) -> tuple[int | None, float]:
        """How many requests are left today and in how many seconds the day ends. `(None, 0)` if either is not known."""
        left = self.left_today
        if left is None or self.next_day is None or self.next_day <= utc:
            return None, 0.0
        return max(0, left), (self.next_day - utc).total_seconds()

    @property
    def left_today(self) -> int | None:
        """How many requests are left today, or None if the server did not say."""
        if self._day is None:
            return None
        remain, number = self._day
        return remain - (len(self._schedule) - 1 - number)


def _slides(began: _Told, told: _Told) -> bool:
    """Whether the window slides. It does if fewer requests are gone than we sent since it seemed to restart."""
    return began.said.remaining - told.said.remaining < told.number - began.number - 2
