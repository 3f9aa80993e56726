"""How many tries may be out at once: fewer if too many of them make each other late.

More workers make a slow server, or a proxy with few connections, slower. A time-out while others are answered halves
the number. Answers let it grow again slowly, by one every few rounds, since the effect of one more is known only
later.
"""

from __future__ import annotations

_GROWTH = 0.25  # How much the number grows while as many are answered as may be out.


class Concurrency:
    """How many tries may be out at once, never more than `top`."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._most = float(top)
        self._halved_at = 0

    @property
    def most(self) -> int:
        """How many tries may be out."""
        return max(1, int(self._most))

    def answered(self) -> None:
        """Take note that a try was answered in time."""
        self._most = min(self._top, self._most + _GROWTH / self._most)

    def late(self, number: int, out: int, tries: int) -> None:
        """Take note that try `number` timed out while `out` were out, and `tries` have begun by now. Tries that were
        out together count once.
        """
        if number > self._halved_at:
            self._halved_at = tries
            self._most = max(1.0, min(self._most, out) / 2)
