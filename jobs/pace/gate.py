"""One gate for every request of every worker. Requests wait in a line, and those with a code in hand go first.

`Controller` decides when the next request may leave. This module has the line and the threads that wait in it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from jobs.pace.controller import Controller, Held, Lowered, Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from jobs.pace.usage import Usage

__all__ = ["Gate", "Held", "Lowered", "Resource", "Rests", "Stopped"]

_SHORT = 0.25  # Seconds. A request waits in the line this long for its own resource's limit, and otherwise leaves it.
_LONGEST_WAIT = 3_600.0  # Seconds, after which a thread looks again. A lock's own timeout has a limit.


class Stopped(Exception):  # noqa: N818 - not an error: the run was asked to stop while a request waited
    """The request was not sent, because the run stops."""


class Rests(Exception):  # noqa: N818 - not an error: its own limit holds it back, and no other request
    """The request was not sent. The limits of its own resource let none out for `seconds` (infinite: not known)."""

    def __init__(self, seconds: float, why: str) -> None:
        super().__init__(why)
        self.seconds = seconds
        self.why = why


@dataclass(slots=True, eq=False)
class _Waiter:
    """A request in the line."""

    turn: threading.Condition
    resource: Resource
    urgent: bool


class Gate:
    """The gate. All times are seconds of `clock`, which never jumps. `now` gives the wall clock time in UTC.

    `backoff(n)` is the hold after the n-th 429 in a row without a Retry-After. `patience` is the run's patience with 429,
    in seconds. `left` is called when a request has left, and must not wait. `holds` says whether this run still has the
    lease without which it may send nothing.
    """

    def __init__(
        self,
        requests_per_second: float,
        patience: float,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        backoff: Callable[[int], float],
        left: Callable[[], None] = lambda: None,
        holds: Callable[[], bool] = lambda: True,
    ) -> None:
        self._control = Controller(requests_per_second, patience, backoff)
        self._clock = clock
        self._now = now
        self._left = left
        self.holds = holds
        self._lock = threading.Lock()
        self._with_code: list[_Waiter] = []
        self._others: list[_Waiter] = []
        self._codes_to_come: dict[int, str] = {}
        self._days_used_up: dict[str, str] = {}
        self._stopping = self._stopped_for_all = self._paused = False

    def begin_within(self, used: Mapping[str, Usage]) -> None:
        """Count what each app used in an earlier run. Call it before the first request."""
        with self._lock:
            self._control.begin_within(used, self._clock(), self._now())

    def usage(self) -> dict[str, Usage]:
        """What each app has used by now, for the next run."""
        with self._lock:
            return self._control.usage(self._clock(), self._now())

    def enter(self, *, urgent: bool, resource: Resource = Resource()) -> int:  # noqa: B008 - a value
        """The request's number, returned when it may leave. No request leaves during a pause.

        Raises `Stopped` if the run stops first, or if its app's requests of today are used up. An urgent request keeps its slot
        then, but does not wait for a hold to end.
        Raises `Rests` if `resource` is an account whose own limit lets nothing out for a while.
        """
        with self._lock:
            line = self._with_code if urgent else self._others
            me = _Waiter(threading.Condition(self._lock), resource, urgent)
            line.append(me)
            try:
                return self._wait_for_turn(me)
            finally:
                line.remove(me)
                self._wake_next()

    def _wait_for_turn(self, me: _Waiter) -> int:
        timed = False
        while True:
            now = self._clock()
            due = self._control.due(now, me.resource)
            self._refuse(me, now, due)
            if self._paused:
                me.turn.wait()
            elif not self.holds():
                me.turn.wait(timeout=_SHORT)
            elif me is not self._next(now):
                if timed:
                    self._wake_next()  # The one that is first now may not know it.
                timed = False
                me.turn.wait()
            elif now < due:
                timed = True
                me.turn.wait(timeout=None if due == float("inf") else min(due - now, _LONGEST_WAIT))
            else:
                number = self._control.leave(now, me.resource)
                self._left()
                if not me.urgent and not me.resource.bearer:
                    self._codes_to_come[number] = me.resource.app
                return number

    def _refuse(self, me: _Waiter, now: float, due: float) -> None:
        """Raise `Stopped` or `Rests` if the request should not wait any longer."""
        spent = self._day_is_spent(me)
        if spent and me.resource.bearer:
            raise Rests(*self._control.day_is_spent(me.resource, self._now()))
        app = me.resource.app
        if spent and app not in self._days_used_up:
            self._days_used_up[app] = self._control.day_is_spent(me.resource, self._now())[1]
            self._wake_all()
        # A pause is short or ends the run. The lease may be away for long, and a run that stops does not wait for it.
        held = self._control.held.until > now or due == float("inf") or not self.holds()
        stopping = self._stopping or (app in self._days_used_up and not me.resource.bearer)
        if self._stopped_for_all or (stopping and (held or not me.urgent or spent)):
            raise Stopped
        if me.resource.bearer:
            own = due - max(now, self._control.due_for_all(now))
            if own > _SHORT:
                raise Rests(due - now, f"{me.resource.account} has used up its own limit of requests for now")

    def _day_is_spent(self, me: _Waiter) -> bool:
        """Whether today's requests are used up, except those reserved for codes in hand."""
        left = self._control.left_today(me.resource)
        if left is None:
            return False
        if me.urgent or me.resource.bearer:
            return left < 1
        app = me.resource.app
        in_hand = sum(waiter.resource.app == app for waiter in self._with_code)
        return left < 2 + in_hand + sum(to_come == app for to_come in self._codes_to_come.values())

    def _next(self, now: float) -> _Waiter | None:
        """The request that may leave first. If several may leave now: one with a code in hand, then the one waiting longest."""
        line = [*self._with_code, *self._others]
        if len(line) < 2:  # noqa: PLR2004 - nothing to choose from
            return line[0] if line else None
        free: dict[tuple[str, str], float] = {}
        at = max(now, min(self._control.due_for_all(now), now + _LONGEST_WAIT))
        for waiter in line:
            if waiter.resource.told not in free:
                free[waiter.resource.told] = self._control.free_at(at, waiter.resource)
        return min(line, key=lambda waiter: free[waiter.resource.told])

    def _wake_next(self) -> None:
        following = self._next(self._clock())
        if following is not None:
            following.turn.notify()

    def _wake_all(self) -> None:
        for waiting in chain(self._with_code, self._others):
            waiting.turn.notify()

    def withdraw(self, number: int) -> None:
        """Note that request `number` did not leave, although it could. Nobody else gets its slot."""
        with self._lock:
            self._codes_to_come.pop(number, None)
            self._control.withdrawn(number)
            self._wake_next()

    def observe(self, number: int, status: int, retry_after: float | None, headers: Mapping[str, str]) -> None:
        """Note the answer to request `number` (`status` 0: none came). It may hold back all requests."""
        with self._lock:
            self._codes_to_come.pop(number, None)
            self._control.answered(number, self._clock(), status, retry_after, headers, self._now())
            if self._control.enough:
                self._stopping = True
            if self._stopping:
                self._wake_all()
            else:
                self._wake_next()

    @property
    def waiting(self) -> int:
        """How many requests wait in the line."""
        return len(self._with_code) + len(self._others)

    @property
    def under_way(self) -> int:
        """How many requests have left and have no answer yet."""
        return self._control.under_way

    @property
    def requests(self) -> int:
        """How many requests have left."""
        return self._control.requests

    @property
    def rate_limited(self) -> int:
        """How many requests were answered with 429."""
        return self._control.rate_limited

    @property
    def held(self) -> Held | None:
        """The current hold, or None."""
        held = self._control.held
        return held if held.until > self._clock() else None

    @property
    def lowered(self) -> Lowered | None:
        """How far the pace is below the one that was set, and why. None if it is not."""
        with self._lock:
            return self._control.lowered(self._clock())

    @property
    def enough(self) -> str:
        """Why the server's limits end the run, in words. '' while they do not."""
        return self._control.enough

    def no_more_today(self, app: str) -> str:
        """Why no more requests leave for `app` today, in words. '' while they do."""
        return self._days_used_up.get(app, "")

    @property
    def out_of_patience(self) -> bool:
        """Whether only 429s came for too long, or the server asked for a hold longer than the run's patience."""
        return self._control.out_of_patience

    def pause(self) -> None:
        """Let no request out until `go_on`, because its answer could not be stored now."""
        with self._lock:
            self._paused = True

    def go_on(self) -> None:
        """Let requests out again."""
        with self._lock:
            self._paused = False
            self._wake_all()

    def stop(self, *, also_codes: bool = False) -> None:
        """Let out only requests that have a code in hand and no hold before them, while this run has the lease.

        With `also_codes`, let out none.
        """
        with self._lock:
            self._stopping = True
            self._stopped_for_all = self._stopped_for_all or also_codes
            self._wake_all()
