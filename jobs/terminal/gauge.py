"""How fast a run is, and how long the rest will take."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.core.clock import A_YEAR

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from jobs.pace.gate import Lowered

_SAMPLE_SECONDS = 1.0
_SHOWN_SECONDS = 10.0
_JUDGED_SECONDS = 60.0
# The estimate starts as if this many installs had already ended, with this many requests each.
_ASSUMED_INSTALLS = 10
_REQUESTS_AN_INSTALL = 2


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a run is at one moment. `to_go` is in seconds, or None if it cannot be estimated. `held_until` is local time.
    `waiting` counts installs between two tries, `in_flight` those that are being tried. `alone`: the first install of
    an app goes by itself. `lowered`: why the pace is below the one that was set, or None. `delivered`: how many pairs the
    app's store has taken, or None without a store.
    """

    done: int
    total: int
    recovered: int
    failed: int
    waiting: int
    in_flight: int
    requests: int
    rate: float
    limit: float
    to_go: float | None
    held_until: datetime | None = None
    held_status: int = 0
    alone: bool = False
    stopping: bool = False
    lowered: Lowered | None = None
    delivered: int | None = None


class Gauge:
    """Measures the pace. `limit` is in requests a second, and `clock` gives seconds."""

    def __init__(self, limit: float, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])

    def note(self, requests: int) -> None:
        """Record how many requests were made so far."""
        now = self._clock()
        if now - self._samples[-1][0] >= _SAMPLE_SECONDS:
            self._samples.append((now, requests))
            while now - self._samples[0][0] > _JUDGED_SECONDS and len(self._samples) > 1:
                self._samples.popleft()

    def rate(self, requests: int, seconds: float = _SHOWN_SECONDS) -> float:
        """Requests a second over the last `seconds`."""
        now = self._clock()
        first = next((sample for sample in self._samples if now - sample[0] <= seconds), self._samples[-1])
        past = now - first[0]
        return (requests - first[1]) / past if past > 0 else 0.0

    def to_go(self, requests: int, done: int, total: int) -> float | None:
        """Seconds until all is done, or None if that is more than a year. It is the number of requests left, divided by
        the measured rate, or by the set pace at the beginning.
        """
        assumed = _REQUESTS_AN_INSTALL * _ASSUMED_INSTALLS
        to_do = (total - done) * (requests + assumed) / (done + _ASSUMED_INSTALLS)
        just_begun = self._clock() - self._samples[0][0] < _SHOWN_SECONDS and requests < self._limit * _SHOWN_SECONDS
        rate = self._limit if just_begun else self.rate(requests, _JUDGED_SECONDS)
        seconds = to_do / rate if rate > 0 else math.inf
        return seconds if seconds < A_YEAR else None
