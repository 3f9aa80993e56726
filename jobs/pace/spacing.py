"""When the next request may leave, so that no window, as the server sees it, holds more than a limit.

Requests leave evenly. What a late wake-up lost is caught up by leaving a tenth closer, never by a burst. The law
is the window: a request counts from when the server may have seen it last, which is told by how much later its
answer came than the fastest ones do. No clock and no thread in here: times come in, in seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

_BELOW = 1.002  # Even spacing is that much wider than the limit; the rest of the safety is measured, not guessed.
_CLOSEST = 0.9  # Of the even spacing, while there is a delay to catch up: no burst.
_LATE_SECONDS = 0.005  # Wake-ups are often so late: the next one is placed as if this one had been in time.
_MOST_BEHIND = 0.25  # Seconds that can be caught up; what is lost beyond is lost.
# A request counts at most so much later than its fellows: of a window, or in seconds where that is more.
_UNSEEN, _UNSEEN_SECONDS = 0.03, 0.1
_GENERATION = 200  # Answers after which the fastest of those before is forgotten.
_FEW = 60  # Answers do not yet show how fast one can be.
_ROOM = 0.001  # Of a window, kept free.
_KEPT = 2_000  # Requests that are remembered, at least; a window of more is kept as shorter ones of the same rate.


@dataclass(frozen=True, slots=True)
class Window:
    """So many requests in any so many seconds."""

    requests: int
    seconds: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def window(requests: float, seconds: float) -> Window:
    """A window that keeps `requests` in `seconds`: whole requests, at least one, and few enough to remember."""
    if requests > _KEPT:
        requests, seconds = _KEPT, seconds * _KEPT / requests
    if requests < 1:
        requests, seconds = 1, seconds / requests
    return Window(int(requests), seconds)


class Schedule:
    """When requests left, when they count from, and when the next is due. Requests are known by their number, from 0."""

    def __init__(self) -> None:
        self._left: list[float] = []
        self._took: list[float] = []
        self._forgotten = 0
        self._ideal: float | None = None
        self._placed = float("-inf")
        self._not_before = float("-inf")
        self._fastest = self._fastest_before = float("inf")
        self._answers = 0

    def __len__(self) -> int:
        return self._forgotten + len(self._left)

    def due(self, rate: float, *windows: Window) -> float:
        """The time at which one more request may leave, at `rate` a second and within all `windows`."""
        due = self._not_before
        if self._ideal is not None:
            due = max(due, self._ideal + _BELOW / rate, self._placed + _CLOSEST / rate)
        fastest = min(self._fastest, self._fastest_before) if self._answers >= _FEW else 0.0
        for each in windows:
            if len(self._left) >= each.requests:
                later = min(self._took[-each.requests] - fastest, max(_UNSEEN_SECONDS, _UNSEEN * each.seconds))
                due = max(due, self._left[-each.requests] + later + each.seconds * (1 + _ROOM))
        return due

    def leave(self, now: float, rate: float) -> int:
        """A request leaves; its number."""
        due = self.due(rate)
        self._placed = due if now - due < _LATE_SECONDS else now
        ideal = now if self._ideal is None else self._ideal + _BELOW / rate
        self._ideal = max(ideal, now - _MOST_BEHIND)
        self._left.append(now)
        self._took.append(float("inf"))
        if len(self._left) > 2 * _KEPT:
            del self._left[:_KEPT], self._took[:_KEPT]
            self._forgotten += _KEPT
        return len(self) - 1

    def answered(self, number: int, now: float) -> float:
        """An answer has come; the seconds that it took."""
        place = number - self._forgotten
        if place < 0:
            return 0.0
        took = now - self._left[place]
        self._answers += 1
        if self._answers % _GENERATION == 0:
            self._fastest_before, self._fastest = self._fastest, took
        self._fastest = min(self._fastest, took)
        self._took[place] = took
        return took

    def pause(self, until: float) -> None:
        """Nothing leaves before `until`; from then on evenly, with nothing to catch up."""
        self._not_before = max(self._not_before, until)
        self._ideal = None

    def left_at(self, number: int) -> float:
        """When the request left (long ago, where it is forgotten)."""
        place = number - self._forgotten
        return self._left[place] if place >= 0 else float("-inf")

    def between(self, after: float, until: float) -> int:
        """How many requests left in that time."""
        return bisect_right(self._left, until) - bisect_right(self._left, after)
