"""How many tries may be out at once: fewer where a crowd makes them late.

A proxy of few connections, or a server that is near its end, is made worse by more workers. Time-outs while others are
answered halve their number; answers let it grow again, by one for each few rounds of all of them: what one more does is
known only when its time is over.
"""

from __future__ import annotations

_GROWTH = 0.25  # Of one more, when as many were answered as may be out.


class Concurrency:
    """`most` tries may be out at once; never more than `top`."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._most = float(top)
        self._halved_at = 0

    @property
    def most(self) -> int:
        """How many may be out."""
        return max(1, int(self._most))

    def answered(self) -> None:
        """A try was answered in time."""
        self._most = min(self._top, self._most + _GROWTH / self._most)

    def late(self, number: int, out: int, tries: int) -> None:
        """Try `number` ran into a time-out, where `out` were out, and `tries` have begun by now.

        Those that were out together count once.
        """
        if number > self._halved_at:
            self._halved_at = tries
            self._most = max(1.0, min(self._most, out) / 2)
