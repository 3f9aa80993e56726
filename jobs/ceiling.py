"""A limit that nobody told us: what the server is believed to take, learned from its 429s.

A 429 has two readings: too fast, or chance (a busy moment of the server). `_suspicion`, above zero, says too fast;
evidence moves it, as in a sequential test. Too fast: the pace goes to what the server was seen to take, its holds
included, and feels its way up in steps; a step that is refused is taken back. A step may cost refusals, so
it is paid from a budget, a share of what was accepted. Chance: holds are kept, the pace stays. A 429 below a pace
that was taken before speaks for chance; refused fellows that were under way with it speak for a limit.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

_BUDGET = 0.025  # Of the accepted requests may be lost for the sake of steps: refused, or not sent during a hold.
_STEP_SECONDS = 12.0  # A step has held when no 429 came for so long: HighLevel's own window is of ten seconds.
_DEEPEST_DEBT = -20.0  # What a bad hour cost is not paid off for ever.
_LEAST_STEP, _MOST_STEP, _NEAR = 0.02, 0.2, 0.04
_UNSURE = 1.15  # Where what is too much is more than that times what was taken, a step is made at once.
_DEEPEST = 0.7  # Of the pace, after a 429 that came alone: it may have been chance.
_LOOK_BACK = (1.0, 2.0, 5.0, 10.0, 30.0)
_KEPT = 4_000
_AT_FIRST, _SURE, _MOST_SURE = 1.0, 0.75, 2.0
_TAKEN_BEFORE = -1.0  # A 429 at a pace that was taken before.
_ALONE = -0.2  # A 429 that came alone.
_PROVEN = 0.005  # A request that was accepted at a lowered pace.
_FELLOW_REFUSED, _FELLOW_ACCEPTED = 0.75, -0.1
_AGAIN, _ACCEPTED = 0.2, -0.01  # While chance is believed: 429s of more than one in twenty bring the suspicion back.


@dataclass(slots=True)
class _Refusal:
    """One time of being refused: from its first 429, over all holds, until a request sent after them is accepted.

    `full` is until when the server surely had no room.
    """

    began: float
    until: float
    full: float
    sent: float
    refused: int = 1


class Ceiling:
    """`rate` is what to send at most, in requests a second; never above `top`."""

    def __init__(self, top: float) -> None:
        self.rate = self._top = self._taken = top
        self._step = _LEAST_STEP
        self._too_much = float("inf")
        self._step_began: float | None = None
        self._suspicion = _AT_FIRST
        self._limited = self._stepping = False
        self._budget = self._price = 0.0
        self._took = 0.0
        self._accepted: list[float] = []
        self._refusal: _Refusal | None = None

    def rate_at(self, _now: float) -> float:
        """The pace at this moment."""
        return self.rate

    def accepted(self, sent: float, now: float) -> None:
        """A request that left at `sent` has just been answered, and not with a 429."""
        self._accepted.append(now)
        if len(self._accepted) > _KEPT:
            del self._accepted[: _KEPT // 2]
        self._budget += _BUDGET
        self._took += (now - sent - self._took) * 0.1
        refusal = self._refusal
        if refusal is not None:
            if sent >= refusal.until:
                self._conclude(refusal, now)
            elif sent > refusal.sent:
                self._suspect(_FELLOW_ACCEPTED)
            return
        if self._limited:
            self._suspect(_PROVEN)
            self._climb(now)
        elif self._suspicion <= 0:
            self._suspect(_ACCEPTED)

    def refused(self, sent: float, now: float, until: float, *, told: bool) -> None:
        """A request that left at `sent` has just been answered with a 429; nothing leaves before `until`.

        `told`: the server named that time, in whole seconds; else it is guessed.
        """
        full = max(now, until - 1) if told else now
        self._pay(1)
        refusal = self._refusal
        if refusal is None:
            self._refusal = _Refusal(now, until, full, sent)
            return
        refusal.refused += 1
        if refusal.began >= sent > refusal.sent:
            self._suspect(_FELLOW_REFUSED)
        refusal.until, refusal.full = max(refusal.until, until), max(refusal.full, full)

    def _pay(self, requests: float) -> None:
        self._budget = max(self._budget - requests, _DEEPEST_DEBT)

    def _suspect(self, more: float) -> None:
        self._suspicion = min(_MOST_SURE, max(-_MOST_SURE, self._suspicion + more))

    def _conclude(self, refusal: _Refusal, now: float) -> None:
        self._refusal = None
        if not self._limited and self._suspicion <= 0:
            self._suspect(_AGAIN)
        elif self._limited and self.rate <= self._taken:
            self._suspect(_TAKEN_BEFORE)
        elif refusal.refused == 1:
            self._suspect(_ALONE)
        if self._suspicion <= 0:
            if self._limited:
                self._suspicion = min(self._suspicion, -_SURE)
            self.rate, self._limited, self._stepping = self._top, False, False
        elif self._stepping:
            self._price = refusal.refused + self._taken * (refusal.until - refusal.began)
            self._pay(self._price - refusal.refused)
            self._too_much = self.rate
            self.rate, self._step, self._stepping = self._taken, _LEAST_STEP, False
        elif not self._limited or self.rate > self._taken or refusal.refused > 1:
            self._lower(refusal)
        else:
            self._too_much = self.rate
            self.rate = self._taken = self.rate * (1 - _NEAR)
        self._step_began = now

    def _lower(self, refusal: _Refusal) -> None:
        self._taken = min(self.rate, self._seen(refusal, refusal.until))
        lowest = 0.0 if refusal.refused > 1 else _DEEPEST * self.rate
        self._too_much = min(self.rate, self._seen(refusal, refusal.full))
        self._step, self._stepping = _LEAST_STEP, self._too_much > self._taken * _UNSURE
        self.rate = max(self._next_step() if self._stepping else self._taken, lowest)
        self._limited, self._suspicion = True, max(self._suspicion, _SURE)

    def _seen(self, refusal: _Refusal, until: float) -> float:
        """What the server was seen to take, in requests a second, where it had no more room `until` then."""
        earlier = self._accepted[: bisect_left(self._accepted, refusal.until)]
        held = until - refusal.began
        spans = [*_LOOK_BACK, min(_LOOK_BACK[-1], refusal.began - earlier[0]) if earlier else 1.0]
        return max(
            (len(earlier) - bisect_left(earlier, refusal.began - span)) / (span + held) for span in spans if span > 0
        )

    def _climb(self, now: float) -> None:
        if self.rate >= self._top or self._step_began is None or now - self._step_began < _STEP_SECONDS:
            return
        if self.rate > self._taken:
            if self.rate >= self._too_much:
                self._step = min(self._step * 1.5, _MOST_STEP)
            self._taken, self._stepping = self.rate, False
        if self._budget >= max(self._price, 1 + self.rate * self._took):
            self.rate = min(self._top, self._next_step())
            self._step_began, self._stepping = now, True

    def _next_step(self) -> float:
        """Half of the way to a pace that was too much; a small step where that is near, larger ones beyond it."""
        if self._taken * (1 + _NEAR) < self._too_much:
            return (self._taken + self._too_much) / 2
        return self._taken * (1 + self._step)
