"""Where each install of a run is, and the parts that decide what happens next."""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs.core.model import Answer, Install, Outcome
    from jobs.recovery.agency_tokens import AgencyKey
    from jobs.recovery.breaker import Breaker
    from jobs.recovery.connectivity import Connectivity
    from jobs.recovery.dispatcher import Dispatcher
    from jobs.recovery.notes import Notes
    from jobs.recovery.progress import InstallProgress
    from jobs.recovery.routing import Router
    from jobs.recovery.stop import StopConditions

_LOOK_UP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that the scheduler works with. `clock` gives monotonic seconds. It yields at least every `look_up`
    seconds.
    """

    dispatcher: Dispatcher
    router: Router
    breaker: Breaker
    connectivity: Connectivity
    stop: StopConditions
    notes: Notes
    clock: Callable[[], float]
    look_up: float = _LOOK_UP_SECONDS


class Ended(NamedTuple):
    """An install that has ended, and its outcome. `first_try` is the number of its first try."""

    install: Install
    outcome: Outcome
    first_try: int


@dataclass(slots=True)
class Queue:
    """One app's installs: those still to come, and how many are on their way."""

    todo: Iterator[Install]
    under_way: int = 0
    empty: bool = False


@dataclass(slots=True)
class State:
    """Where each install is. `unsettled` installs got no answer; whether others get one is not known yet."""

    queues: dict[str, Queue]
    waiting: list[tuple[float, int, InstallProgress]] = field(default_factory=list)
    parked: dict[AgencyKey, list[InstallProgress]] = field(default_factory=dict)
    unsettled: list[tuple[InstallProgress, Answer]] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    order: Iterator[int] = field(default_factory=itertools.count)
    told_of_threads: bool = False

    @property
    def waits(self) -> int:
        """How many installs wait for a moment, an agency, or the network."""
        return len(self.waiting) + len(self.unsettled) + sum(map(len, self.parked.values()))

    @property
    def next_due(self) -> float:
        """When the next waiting install is due."""
        return self.waiting[0][0] if self.waiting else math.inf

    def wait_until(self, moment: float, progress: InstallProgress) -> None:
        """Try an install again at that moment."""
        heapq.heappush(self.waiting, (moment, next(self.order), progress))

    def release(self, keys: list[AgencyKey], now: float) -> None:
        """Wake the installs that waited for these agencies."""
        for key in keys:
            for progress in self.parked.pop(key, ()):
                self.wait_until(now, progress)

    def end(self, progress: InstallProgress, outcome: Outcome) -> None:
        """End an install with this outcome."""
        self.ended.append(Ended(progress.install, outcome, progress.first_try))

    def take_waiting(self, given_up: Callable[[InstallProgress], bool]) -> list[InstallProgress]:
        """The waiting installs that are given up. They no longer wait."""
        found = [entry[2] for entry in sorted(self.waiting) if given_up(entry[2])]
        found += [progress for progress, _ in self.unsettled if given_up(progress)]
        found += [progress for parked in self.parked.values() for progress in parked if given_up(progress)]
        self.waiting = [entry for entry in self.waiting if not given_up(entry[2])]
        heapq.heapify(self.waiting)
        self.unsettled = [(progress, answer) for progress, answer in self.unsettled if not given_up(progress)]
        self.parked = {
            key: [progress for progress in parked if not given_up(progress)] for key, parked in self.parked.items()
        }
        return found
