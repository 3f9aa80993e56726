"""Whether HighLevel can be reached at all. While it cannot, one install probes and the others wait.

The network is away if tries of several installs got no answer, and no other try was answered in between. It is also away
if no connection could be made and nothing else is tried that could show more. That uses up nobody's tries. Values in, decisions out. Times are monotonic seconds, and a try is known by its number.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.core.model import InstallKey

_INSTALLS = 3  # If so many different installs get no answer, the installs are not at fault.
_LONGEST_BACKOFF = 3  # Probes cost nothing, and a network that is back should be noticed soon.


class Connectivity:
    """What is known about the way to HighLevel. `patience` is in seconds, and `backoff(n)` gives the wait after the
    n-th probe.
    """

    def __init__(self, patience: float, backoff: Callable[[int], float]) -> None:
        self._patience = patience
        self._backoff = backoff
        self._last_try = 0
        self._without: set[InstallKey] = set()
        self._is_sure = False
        self._since = self._probe_at = math.inf
        self._probe: int | None = None
        self._probes = 0
        self.reached = False

    @property
    def away(self) -> bool:
        """Whether nobody gets an answer."""
        return self._is_sure or len(self._without) >= _INSTALLS

    def answered(self, tries: int) -> None:
        """Take note of an answer, whatever it says. `tries` have begun by now."""
        self.reached, self._last_try = True, tries
        self._without.clear()
        self._is_sure = False
        self._since, self._probe, self._probes = math.inf, None, 0

    def unanswered(self, install: InstallKey, number: int, now: float) -> bool:
        """Take note that try `number` got no answer. Returns whether that may be nobody's fault: no later try got one
        either.
        """
        if not self.reached or number <= self._last_try:
            return False
        self._since = min(self._since, now)
        self._without.add(install)
        if self.away and self._probes == 0:
            self._wait(now)
        return True

    def no_connection(self, now: float) -> None:
        """Take note that no connection could be made for those without an answer, and that nothing else is tried."""
        self._is_sure = True
        if self._probes == 0:
            self._wait(now)

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
