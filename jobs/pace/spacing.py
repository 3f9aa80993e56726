"""When the next request may leave, so that no window, as the server sees it, holds more requests than its limit.

Requests leave evenly. After a late wake-up, they leave a tenth closer until the delay is made up, and never in a burst.
The window is the law: a request counts from the latest moment at which the server may have seen it. How much later its
answer came than the fastest answers tells that moment. It has no clock and no thread: times come in, in seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

_BELOW = 1.002  # Even spacing is this much wider than the limit. The rest of the safety margin is measured.
_CLOSEST = 0.9  # The shortest spacing, as a share of the even one, while a delay is made up. So there is no burst.
_LATE_SECONDS = 0.005  # Wake-ups are often this late. The next request is then placed as if this one had been on time.
_MOST_BEHIND = 0.25  # The longest delay in seconds that is made up.
# A request counts at most this much later than others: as a share of the window, or in seconds if that is more.
_UNSEEN, _UNSEEN_SECONDS = 0.03, 0.1
_GENERATION = 200  # After this many answers, the fastest one before them is forgotten.
_FEW = 60  # Fewer answers do not yet show how fast an answer can be.
_ROOM = 0.001  # The share of a window that is kept free.
_KEPT = 2_000  # The least number of requests to remember. A larger window becomes a shorter one with the same rate.


@dataclass(frozen=True, slots=True)
class Window:
    """At most `requests` in any `seconds`."""

    requests: int
    seconds: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def window(requests: float, seconds: float) -> Window:
    """A window that allows `requests` in `seconds`: whole requests, at least one, and few enough to remember."""
    if requests > _KEPT:
        requests, seconds = _KEPT, seconds * _KEPT / requests
    if requests < 1:
        requests, seconds = 1, seconds / requests
    return Window(int(requests), seconds)


def counts_for(seconds: float) -> float:
    """How long a request counts at most, from when it left, in a window of so many seconds."""
    return seconds * (1 + _ROOM) + _unseen(seconds)


def _unseen(seconds: float) -> float:
    return max(_UNSEEN_SECONDS, _UNSEEN * seconds)


class Schedule:
    """When requests left, from when they count, and when the next one is due. Requests have numbers from 0."""

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
        """When one more request may leave, at `rate` a second and within all `windows`."""
        due = self._not_before
        if self._ideal is not None:
            due = max(due, self._ideal + _BELOW / rate, self._placed + _CLOSEST / rate)
        fastest = min(self._fastest, self._fastest_before) if self._answers >= _FEW else 0.0
        for each in windows:
            if len(self._left) >= each.requests:
                later = min(self._took[-each.requests] - fastest, _unseen(each.seconds))
                due = max(due, self._left[-each.requests] + later + each.seconds * (1 + _ROOM))
        return due

    def remember(self, left: list[float]) -> None:
        """Count requests of an earlier run, which left at these times, in order. Call it before the first request."""
        self._left, self._took = left[-_KEPT:], [float("inf")] * len(left[-_KEPT:])
        self._forgotten = -len(self._left)

    def leave(self, now: float, rate: float) -> int:
        """The number of a request that leaves now."""
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

    def answered(self, number: int, now: float) -> None:
        """Note that an answer has just come, and how long it took."""
        place = number - self._forgotten
        if place < 0:
            return
        took = now - self._left[place]
        self._answers += 1
        if self._answers % _GENERATION == 0:
            self._fastest_before, self._fastest = self._fastest, took
        self._fastest = min(self._fastest, took)
        self._took[place] = took

    def pause(self, until: float) -> None:
        """Let nothing leave before `until`. After that, requests leave evenly, and no delay is made up."""
        self._not_before = max(self._not_before, until)
        self._ideal = None

    def left_at(self, number: int) -> float:
        """When the request left. Minus infinity if it is forgotten."""
        place = number - self._forgotten
        return self._left[place] if place >= 0 else float("-inf")

    def between(self, after: float, until: float) -> int:
        """How many requests left after `after` and up to `until`."""
        return bisect_right(self._left, until) - bisect_right(self._left, after)
