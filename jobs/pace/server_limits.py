"""What answers say of the server's limits (`X-RateLimit-*`), and what that leaves for us.

Source of the names: API notes, 3. Whether the server's window slides or begins anew, and who else uses it up, is
seen from how the remaining requests move.
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
_SURGE = 0.1  # Of what others use: so much more may come before we hear of it.
_MOST = 1e12  # A number above it is none of these.
_WINDOWS = range(1, _DAY * 1000)  # Milliseconds; no other is a pace.
_MILLISECONDS = 1e11  # A time since 1970 above it is in milliseconds.


@dataclass(frozen=True, slots=True)
class Said:
    """Of a window: how many requests at most, how many remain, and its seconds. Of the day: how many remain, until when."""

    most: int
    remaining: int
    seconds: float
    today: int | None = None
    next_day: datetime | None = None


def read_limits(headers: Mapping[str, str], now: datetime) -> Said | None:
    """What an answer says of limits, or None. What cannot be read says nothing."""
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
    """When the day's requests are there again. The unit is documented nowhere, so the size of a number tells it.

    Up to a day's seconds, seconds from now; up to a day's milliseconds, milliseconds from now; else since 1970, in
    seconds or milliseconds. A date is taken as one. A time that is past, or more than two days ahead, says nothing.
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
    """What was said last, with the number of the request that it answered."""

    said: Said
    number: int
    sent: float
    heard: float


class Budget:
    """What the limits of one resource leave. Its requests are known by their numbers, from 0; times are monotonic seconds."""

    def __init__(self) -> None:
        self._schedule = Schedule()
        self._told: _Told | None = None
        self._others = 0.0
        self._anew: _Told | None = None
        self._day: tuple[int, int] | None = None
        self._rests_until = float("-inf")
        self.next_day: datetime | None = None

    def leave(self, now: float) -> int:
        """A request leaves; its number."""
        return self._schedule.leave(now, self.rate(now))

    def rest(self, until: float) -> None:
        """Nothing leaves before `until`."""
        self._rests_until = max(self._rests_until, until)

    def hear(self, said: Said | None, number: int, now: float, *, arrived: bool) -> None:
        """What an answer to request `number` said (`arrived`: one came)."""
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
        elif self._anew is not None and self._slides(told):
            self._anew = None
        elif self._anew is not None:
            self._others += max(0, more_gone)
        self._others = min(max(self._others, self._in_window(told)), said.most)

    def _in_window(self, told: _Told) -> int:
        """What others used of a window that slides, or began with ours; one or two more are only out of order."""
        said = told.said
        ours = self._schedule.between(told.sent - said.seconds, told.sent)
        others = said.most - said.remaining - ours
        return others if others > 1 + said.most // 100 else 0

    def _slides(self, told: _Told) -> bool:
        """Whether fewer are gone than we sent since the window seemed to begin anew: then it does not, it slides."""
        began = self._anew or told
        return began.said.remaining - told.said.remaining < told.number - began.number - 2

    def _within(self, now: float) -> Window | None:
        """The window that the server keeps, without what others use of it; None where it told of none lately."""
        told = self._told
        if told is None or now - told.heard > _DAY:
            return None
        return window(max(1.0, told.said.most - math.ceil(self._others - 0.5) - self._reserve()), told.said.seconds)

    def rate(self, now: float) -> float:
        """The pace that the window allows, in requests a second; infinite where none was told."""
        told = self._within(now)
        return told.rate if told else math.inf

    def _reserve(self) -> int:
        """What is kept free, since others may take it before an answer tells us."""
        return math.ceil(1 + self._others * _SURGE) if self._others >= 1 else 0

    def free_at(self, now: float) -> float:
        """From when on one more request is within the window and what remains of it, as far as is known now."""
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
            drift = min(drift, self._reserve())  # What others used falls out of the window, too.
        if told.said.remaining - since - drift + expired >= 1:
            return now
        if self._anew is None:
            return max(now, min(told.heard + seconds, now + seconds / told.said.most))
        windows = math.floor((told.sent - self._anew.sent) / seconds) + 1
        return max(now, self._anew.sent + windows * seconds)

    @property
    def left_today(self) -> int | None:
        """How many requests the day still has, where that was told."""
        if self._day is None:
            return None
        remain, number = self._day
        return remain - (len(self._schedule) - 1 - number)
