"""What decides when a request may leave: the pace that was set, what answers say of limits, and what 429s teach.

Values in, decisions out: no clock, no thread, no sleep. Times are monotonic seconds, `utc` is the operator's time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from jobs.ceiling import Ceiling
from jobs.limits import Budget, read_limits
from jobs.schedule import Schedule, window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

_LIMIT_SECONDS = 10.0
_TOO_MANY_REQUESTS = 429
_LONGEST_TOLD = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Held:
    """Nothing is sent until `until` (monotonic seconds), since the server answered `status`."""

    until: float
    status: int


class Control:
    """The pace of one run. `backoff(n)` gives the hold after the n-th 429 in a row that named none."""

    def __init__(self, requests_per_second: float, patience: float, backoff: Callable[[int], float]) -> None:
        self._set = window(requests_per_second * _LIMIT_SECONDS, _LIMIT_SECONDS)
        self._patience = patience
        self._backoff = backoff
        self._schedule = Schedule()
        self._ceiling = Ceiling(self._set.rate)
        self._budget = Budget(self._schedule)
        self._guessed = 0
        self._refused_in_a_row = 0
        self._refused_since: float | None = None
        self._alone: int | None = None
        self.held = Held(float("-inf"), 0)
        self.under_way = 0
        self.enough = ""
        self.out_of_patience = False

    @property
    def requests(self) -> int:
        """How many have left."""
        return len(self._schedule)

    def due(self, now: float) -> float:
        """When the next request may leave, as far as is known now; infinite while an answer must come first."""
        told = self._budget.within(now)
        windows = (self._set, told) if told else (self._set,)
        due = max(self._schedule.due(self._rate(now), *windows), self.held.until)
        if self._alone is not None and self._alone < len(self._schedule):
            return float("inf")
        return max(due, self._budget.free_at(max(now, due)))

    def _rate(self, now: float) -> float:
        told = self._budget.within(now)
        return min(self._set.rate, self._ceiling.rate, told.rate if told else self._set.rate)

    def leave(self, now: float) -> int:
        """A request leaves; its number."""
        self.under_way += 1
        return self._schedule.leave(now, self._rate(now))

    def answered(
        self, number: int, now: float, status: int, retry_after: float | None, headers: Mapping[str, str], utc: datetime
    ) -> None:
        """An answer to request `number` has come (`status` 0: none will)."""
        self.under_way -= 1
        sent = self._schedule.left_at(number)
        if status:
            self._schedule.answered(number, now)
        if number == self._alone:
            self._alone = None
        said = read_limits(headers, utc) if headers else None
        if said is not None:
            self._budget.hear(said, number, now)
        if status == _TOO_MANY_REQUESTS:
            self._refused(sent, now, retry_after, utc)
            return
        if status:
            self._refused_in_a_row, self._refused_since = 0, None
            self._ceiling.accepted(sent, now)
        if retry_after is not None:
            self._hold(now, retry_after, status, utc)

    def _refused(self, sent: float, now: float, retry_after: float | None, utc: datetime) -> None:
        under_way = sent < self.held.until
        self._refused_in_a_row += not under_way or not self._refused_in_a_row
        if self._refused_since is None:
            self._refused_since = now
        seconds = retry_after or 0.0
        if not under_way and not seconds:
            seconds = self._backoff(self._refused_in_a_row)
        if seconds:
            self._hold(now, seconds, _TOO_MANY_REQUESTS, utc)
        if not retry_after or under_way or self._refused_in_a_row > 1:
            self._alone = len(self._schedule)  # It is no chance, or the hold is a guess: the next one goes ahead alone.
        self._ceiling.refused(sent, now, self.held.until, told=bool(retry_after))

    def _hold(self, now: float, seconds: float, status: int, utc: datetime) -> None:
        until = now + seconds
        refused_for = now - self._refused_since if self._refused_since is not None else 0.0
        if seconds > self._patience:
            self.out_of_patience, self.enough = True, _asked_for(seconds, status, utc)
        elif refused_for >= self._patience:
            self.out_of_patience, self.enough = True, "HighLevel kept answering 429 (too many requests)"
        if until > self.held.until:
            self.held = Held(until, status)
            self._schedule.pause(until)

    def day_is_spent(self, reserve: int) -> bool:
        """Whether the day's requests are used up, but for `reserve` that are kept for codes in hand."""
        if not self._budget.spent(reserve):
            return False
        next_day = self._budget.next_day
        again = _again_after(next_day) if next_day else "run the same command again tomorrow"
        self.enough = f"HighLevel's limit of requests a day is used up; {again}"
        return True


def _asked_for(seconds: float, status: int, utc: datetime) -> str:
    what = f"HighLevel asked with {status} for a pause that is longer than pace.patience_seconds"
    if seconds > _LONGEST_TOLD:
        return what
    return f"{what}; {_again_after(utc + timedelta(seconds=seconds))}"


def _again_after(moment: datetime) -> str:
    return f"run the same command again after {moment:%Y-%m-%dT%H:%M:%SZ}"
