"""Waits between tries. They hold no worker."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import TYPE_CHECKING, Generic

from jobs.recovery.progress import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Waits(Generic[Item]):
    """Those that wait for a moment (monotonic seconds)."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Item]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Item]:
        return (item for _, _, item in self._waiting)

    @property
    def next_due(self) -> float:
        """When the next one is due."""
        return self._waiting[0][0] if self._waiting else math.inf

    def add(self, moment: float, item: Item) -> None:
        """Let it wait until that moment."""
        heapq.heappush(self._waiting, (moment, next(self._order), item))

    def take_due(self, now: float) -> Item | None:
        """The one that is due first, or None if none is due. It no longer waits."""
        return heapq.heappop(self._waiting)[2] if self.next_due <= now else None

    def take(self, given_up: Callable[[Item], bool]) -> list[Item]:
        """Those that are given up, in the order of their moments. They no longer wait."""
        found = [item for _, _, item in sorted(self._waiting) if given_up(item)]
        self._waiting = [entry for entry in self._waiting if not given_up(entry[2])]
        heapq.heapify(self._waiting)
        return found
