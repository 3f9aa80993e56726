"""One gate for every request of every worker. Who waits stands in a line; those with a code in hand go first.

When the next may leave is `Control`'s to say; this is the line, and the threads that stand in it.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from jobs.control import Control, Held

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

__all__ = ["Held", "Pace", "Stopped"]


class Stopped(Exception):  # noqa: N818 - not an error: the run was asked to stop while a request waited
    """The request was not sent, since the run stops."""


class Pace:
    """The gate. All times are seconds of `clock`, which never jumps; `now` gives the operator's time in UTC.

    `backoff(n)` gives the hold after the n-th 429 in a row that named none; `patience` is the run's with 429, in seconds.
    """

    def __init__(
        self,
        requests_per_second: float,
        patience: float,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        backoff: Callable[[int], float],
    ) -> None:
        self._control = Control(requests_per_second, patience, backoff)
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._with_code: deque[threading.Condition] = deque()
        self._others: deque[threading.Condition] = deque()
        self._codes_to_come: set[int] = set()
        self._stopping = False

    def enter(self, *, urgent: bool) -> int:
        """Return the request's number when it may leave.

        Raises `Stopped` where the run stops first (an urgent one keeps its slot, but waits through no hold).
        """
        with self._lock:
            line = self._with_code if urgent else self._others
            me = threading.Condition(self._lock)
            line.append(me)
            try:
                return self._wait_for_turn(me, urgent=urgent)
            finally:
                line.remove(me)
                self._wake_next()

    def _wait_for_turn(self, me: threading.Condition, *, urgent: bool) -> int:
        while True:
            now = self._clock()
            due = self._control.due(now)
            if self._control.day_is_spent(0 if urgent else 1 + len(self._codes_to_come) + len(self._with_code)):
                self._stopping = True
                self._wake_all()
            held = self._control.held.until > now or due == float("inf")
            if self._stopping and (held or not urgent or self._control.day_is_spent(0)):
                raise Stopped
            if me is not self._next():
                me.wait()
            elif now < due:
                me.wait(timeout=None if due == float("inf") else due - now)
            else:
                number = self._control.leave(now)
                if not urgent:
                    self._codes_to_come.add(number)
                return number

    def _next(self) -> threading.Condition | None:
        line = self._with_code or self._others
        return line[0] if line else None

    def _wake_next(self) -> None:
        following = self._next()
        if following is not None:
            following.notify()

    def _wake_all(self) -> None:
        for waiting in (*self._with_code, *self._others):
            waiting.notify()

    def observe(self, number: int, status: int, retry_after: float | None, headers: Mapping[str, str]) -> None:
        """Hear of the answer to request `number` (`status` 0: none came): hold everybody back where it says so."""
        with self._lock:
            self._codes_to_come.discard(number)
            self._control.answered(number, self._clock(), status, retry_after, headers, self._now())
            if self._control.enough:
                self._stopping = True
            if self._stopping:
                self._wake_all()
            else:
                self._wake_next()

    @property
    def waiting(self) -> int:
        """How many requests stand in the line."""
        return len(self._with_code) + len(self._others)

    @property
    def under_way(self) -> int:
        """How many requests have left and are not answered."""
        return self._control.under_way

    @property
    def requests(self) -> int:
        """How many requests have left."""
        return self._control.requests

    @property
    def held(self) -> Held | None:
        """The hold that runs now, if any."""
        held = self._control.held
        return held if held.until > self._clock() else None

    @property
    def enough(self) -> str:
        """Why the limits of the server end the run, in words; empty while they do not."""
        return self._control.enough

    @property
    def out_of_patience(self) -> bool:
        """Whether there was nothing but 429 for too long, or the server asked for a longer hold than the run's patience."""
        return self._control.out_of_patience

    def stop(self) -> None:
        """Let nothing more in, but what has a code in hand and no hold before it."""
        with self._lock:
            self._stopping = True
            self._wake_all()
