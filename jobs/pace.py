"""One gate for every request of every worker: the pace, the holds, and the run's patience with them.

Requests leave evenly spaced, a percent below the limit: only then does no window of ten seconds, as the server
sees it, hold more than the limit. A request with a code in hand goes before the others.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BELOW_LIMIT = 1.01
# What a late wake-up may catch up on: with the percent above, still inside the limit of any ten seconds.
_CATCH_UP_SECONDS = 0.05
_TOO_MANY_REQUESTS = 429


class Stopped(Exception):  # noqa: N818 - not an error: the run was asked to stop while a request waited
    """The request was not sent, since the run stops."""


@dataclass(frozen=True, slots=True)
class Held:
    """Nothing is sent until `until` (monotonic seconds), since the server answered `status`."""

    until: float
    status: int


class Pace:
    """The gate. All times are seconds of `clock`, which never jumps.

    `backoff(n)` gives the hold after the n-th 429 in a row that named none. `wait(condition, seconds)` waits.
    """

    def __init__(
        self,
        requests_per_second: float,
        patience: float,
        *,
        clock: Callable[[], float],
        backoff: Callable[[int], float],
    ) -> None:
        self._interval = _BELOW_LIMIT / requests_per_second
        self._patience = patience
        self._clock = clock
        self._backoff = backoff
        self._turn = threading.Condition()
        self._next = float("-inf")
        self._held = Held(float("-inf"), 0)
        self._stopping = False
        self._urgent = 0
        self._refused_in_a_row = 0
        self._refused_since: float | None = None
        self._out_of_patience = False
        self.requests = 0
        self.waiting = 0

    def enter(self, *, urgent: bool) -> None:
        """Return when the request may leave. Raises `Stopped` where the run stops first (an urgent one keeps its slot)."""
        with self._turn:
            self.waiting += 1
            self._urgent += urgent
            try:
                self._wait_for_turn(urgent=urgent)
            finally:
                self.waiting -= 1
                self._urgent -= urgent
                self._turn.notify_all()

    def _wait_for_turn(self, *, urgent: bool) -> None:
        while True:
            now = self._clock()
            held = self._held.until > now
            if self._stopping and (held or not urgent):
                raise Stopped
            due = max(self._next, self._held.until)
            if now >= due and (urgent or not self._urgent):
                self._next = max(self._next + self._interval, now + self._interval - _CATCH_UP_SECONDS)
                if self._next < now + self._interval and self.requests == 0:
                    self._next = now + self._interval
                self.requests += 1
                return
            self._turn.wait(timeout=due - now if due > now else None)

    def observe(self, status: int, retry_after: float | None, headers: Mapping[str, str]) -> None:
        """Hear of an answer (`status` 0: none came): hold everybody back where it says so."""
        del headers
        with self._turn:
            now = self._clock()
            if status == _TOO_MANY_REQUESTS:
                self._refused_in_a_row += 1
                if self._refused_since is None:
                    self._refused_since = now
            elif status:
                self._refused_in_a_row, self._refused_since = 0, None
            seconds = retry_after
            if status == _TOO_MANY_REQUESTS and not seconds:
                seconds = self._backoff(self._refused_in_a_row)
            if seconds is not None:
                self._hold(now + seconds, status, now)
            self._turn.notify_all()

    def _hold(self, until: float, status: int, now: float) -> None:
        refused_for = now - self._refused_since if self._refused_since is not None else 0.0
        if until - now > self._patience or refused_for >= self._patience:
            self._out_of_patience = self._stopping = True
        if until > self._held.until:
            self._held = Held(until, status)
            # After a hold the requests leave evenly again, not all at once.
            self._next = max(self._next, until)

    @property
    def held(self) -> Held | None:
        """The hold that runs now, if any."""
        held = self._held
        return held if held.until > self._clock() else None

    @property
    def out_of_patience(self) -> bool:
        """Whether there was nothing but 429 for too long, or the server asked for a longer hold than the run's patience."""
        return self._out_of_patience

    def stop(self) -> None:
        """Let nothing more in, but what has a code in hand and no hold before it."""
        with self._turn:
            self._stopping = True
            self._turn.notify_all()
