"""Whether HighLevel can be reached at all. While it cannot, one install probes and the others wait.

The network is away if tries of several installs got no answer, and no other try was answered in between. It is also
away if no connection could be made and nothing else is tried that could show more. That uses up nobody's tries. Values
in, decisions out. Times are monotonic seconds, and a try is known by its number.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic

from jobs.recovery.progress import Item

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.core.model import Answer
    from jobs.recovery.notes import Notes

_INSTALLS = 3  # If so many different installs get no answer, the installs are not at fault.
_LONGEST_BACKOFF = 3  # Probes cost nothing, and a network that is back should be noticed soon.


class Connectivity(Generic[Item]):
    """What is known about the way to HighLevel. `patience` is in seconds, and `backoff(n)` gives the wait after the
    n-th probe.

    `unsettled` got no answer; whether others get one is not known yet. `away`: nobody gets one. `reached`: somebody has
    got one.
    """

    def __init__(self, patience: float, backoff: Callable[[int], float], notes: Notes) -> None:
        self._patience = patience
        self._backoff = backoff
        self._notes = notes
        self._answered_at = 0
        self._without: set[int] = set()
        self._since = self._probe_at = math.inf
        self._probe: int | None = None
        self._probes = 0
        self.unsettled: list[tuple[Item, Answer]] = []
        self.reached = self.away = False

    def answered(self, tries: int) -> list[tuple[Item, Answer]]:
        """Take note of an answer, whatever it says. `tries` have begun by now. Returns what was unsettled: those that
        got no answer until now were at fault themselves, and it counts as their try.
        """
        if self.away:
            self._notes.add("HighLevel answers again: going on")
        self.reached, self.away, self._answered_at = True, False, tries
        self._without.clear()
        self._since, self._probe, self._probes = math.inf, None, 0
        for item, _ in self.unsettled:
            item.suspect = True
        return self.settle()

    def settle(self) -> list[tuple[Item, Answer]]:
        """Those that were unsettled until now."""
        unsettled, self.unsettled = self.unsettled, []
        return unsettled

    def give_up(self, given_up: Callable[[Item], bool]) -> list[Item]:
        """Those of the unsettled that are given up. They are no longer unsettled."""
        found = [item for item, _ in self.unsettled if given_up(item)]
        self.unsettled = [(item, answer) for item, answer in self.unsettled if not given_up(item)]
        return found

    def unanswered(self, item: Item, answer: Answer, now: float) -> bool:
        """Take note that the last try of `item` got no answer. Returns whether that may be nobody's fault: no later try
        got one either. The item is unsettled then.
        """
        if not self.reached or item.last_try <= self._answered_at or (item.suspect and not self.away):
            return False
        self._since = min(self._since, now)
        self._without.add(item.first_try)
        self.unsettled.append((item, answer))
        if len(self._without) >= _INSTALLS:
            self._goes_away(answer, now)
        return True

    def no_connection(self, now: float) -> Answer | None:
        """Take note that nothing is tried that could show more. Returns what ended the last try if no connection could
        be made for any of the unsettled: the network is away then, however few they are.
        """
        if not self.unsettled or not all(answer.never_left for _, answer in self.unsettled):
            return None
        _, answer = self.unsettled[-1]
        self._goes_away(answer, now)
        return answer

    def _goes_away(self, answer: Answer, now: float) -> None:
        if not self.away:
            self.away = True
            self._wait(now)
            self._notes.add(f"HighLevel cannot be reached: {answer.message}; one install keeps trying, the others wait")

    def back(self, number: int, now: float) -> None:
        """Take note that try `number` is back, with any result."""
        if number == self._probe:
            self._probe = None
            self._wait(now)

    def _wait(self, now: float) -> None:
        self._probes += 1
        self._probe_at = now + self._backoff(min(self._probes, _LONGEST_BACKOFF))

    def not_before(self) -> float:
        """When the next try may go out: at once, or as the next probe while nobody gets an answer."""
        if not self.away:
            return -math.inf
        return self._probe_at if self._probe is None else math.inf

    def goes(self, number: int) -> None:
        """Take note that try `number` goes out."""
        if self.away:
            self._probe = number

    def over(self, now: float) -> bool:
        """Whether the network has been away for longer than the run's patience."""
        return self.away and now - self._since >= self._patience
