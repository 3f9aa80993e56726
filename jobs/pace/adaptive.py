"""Learns a limit that the server does not tell from 429s: additive increase, multiplicative decrease.

It believes that HighLevel counts in windows of ten seconds. So the requests accepted in the ten seconds before a 429 are
what the server takes. The pace goes just below that, rests for two windows, and then rises evenly until the next 429.

If a 429 comes well below what the server took just before, the pace is not the reason (but a busy moment or a fault is).
Then the pace that was set comes back, and the next few 429s count as chance before the pace is doubted again. A series of
429s counts as one, until a request that was sent after their holds is accepted. Nothing is known before a whole window
was seen.
"""

from __future__ import annotations

from collections import deque

_WINDOW = 10.0  # The length of HighLevel's own window in seconds.
_BELOW = 0.97  # The pace goes to this share of what was taken: a window's edges, and the requests of others, need room.
_DEEPEST = 0.4  # One step never goes below this share of the pace: little may be taken only because little was sent.
_RISE = 0.004  # The share that the pace gains each second. At a limit, that means a 429 about every forty seconds.
_WITHIN = 0.9  # A share of what was taken before. A 429 below it is chance. Between it and 1 are edges and others' use.
_CHANCE = 5  # After one chance 429, this many more do not lower the pace: chance 429s seldom come alone.


class AdaptiveLimit:
    """The most requests a second to send, never more than `top`."""

    def __init__(self, top: float) -> None:
        self._top = self._pace = self._taken = top
        self._since: float | None = None  # When the pace was lowered, if it is.
        self._chances = 0
        self._accepted: deque[float] = deque()
        self._seen_from = float("inf")
        self._in_series = False
        self._held_until = float("-inf")

    def rate_at(self, now: float) -> float:
        """The pace at this moment."""
        if self._since is None:
            return self._top
        return min(self._top, self._pace * (1 + _RISE * max(0.0, now - self._since - 2 * _WINDOW)))

    def accepted(self, sent: float, now: float) -> None:
        """A request that left at `sent` has just been answered, and not with a 429."""
        if self._in_series and sent >= self._held_until:
            self._in_series = False
            self._since = self._since and now
        last = self._accepted[-1] if self._accepted else float("-inf")
        if sent - max(last, self._held_until) > _WINDOW:
            self._seen_from = now  # There was nothing to send before.
        self._accepted.append(now)
        while self._accepted[0] <= now - _WINDOW:
            self._accepted.popleft()

    def refused(self, now: float, until: float) -> None:
        """A 429 has just come. Nothing leaves before `until`."""
        self._held_until = until
        if not self._in_series:
            self._in_series = True
            self._judge(now)

    def _judge(self, now: float) -> None:
        """Lower the pace or restore it, for the first 429 of a series."""
        if now - self._seen_from < _WINDOW:
            return
        rate = self.rate_at(now)
        # One fewer, because the first of them may be at the window's edge.
        taken = max(0, sum(at > now - _WINDOW for at in self._accepted) - 1) / _WINDOW * _BELOW
        if self._chances:
            self._chances -= 1
        elif self._since is not None and rate <= self._taken and taken < _WITHIN * self._taken:
            self._since, self._chances = None, _CHANCE
        else:
            self._taken, self._pace, self._since = taken, max(min(rate, taken), rate * _DEEPEST), now
