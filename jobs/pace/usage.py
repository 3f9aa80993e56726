"""What an app has used of its limits, as a value that another machine can go on from. All times are seconds from now."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jobs.pace.spacing import counts_for

LIMIT_SECONDS = 10.0
"""The length of the window in which requests are limited."""
LONGEST = counts_for(LIMIT_SECONDS)
"""A request that left longer ago does not count any more."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How long ago each request of the last ten seconds left, and what the server said.

    Nothing may leave for `held` seconds, because of an answer with `status` (0: what left last is not known). The day
    leaves `today` requests (None: not known) and ends in `next_day` seconds.
    """

    left: tuple[float, ...] = ()
    held: float = 0.0
    status: int = 0
    today: int | None = None
    next_day: float = 0.0

    def later(self, seconds: float) -> Usage:
        """The same, so many seconds later."""
        left = tuple(age + seconds for age in self.left if age + seconds < LONGEST)
        held, next_day = max(0.0, self.held - seconds), max(0.0, self.next_day - seconds)
        return Usage(left, held, self.status if held else 0, self.today if next_day else None, next_day)

    def cut_off(self, ago: float) -> Usage:
        """The same, if requests that nobody knows of may have left until so many seconds ago."""
        unsure = LONGEST - ago
        return replace(self, held=unsure, status=0) if unsure > self.held else self
