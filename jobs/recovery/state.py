"""Where each install of a run is, and the parts that decide what happens next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from jobs.recovery.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs.core.model import Install, Outcome
    from jobs.recovery.agency_tokens import AgencyKey
    from jobs.recovery.attempt import Task, Tried
    from jobs.recovery.breaker import Breaker
    from jobs.recovery.connectivity import Connectivity
    from jobs.recovery.dispatcher import Dispatcher
    from jobs.recovery.notes import Notes
    from jobs.recovery.progress import InstallProgress
    from jobs.recovery.routing import Router
    from jobs.recovery.stop import StopConditions

LOOK_UP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that the scheduler works with. `clock` gives monotonic seconds. It yields at least every `look_up`
    seconds.
    """

    dispatcher: Dispatcher[InstallProgress, Task, Tried]
    router: Router
    breaker: Breaker
    connectivity: Connectivity[InstallProgress]
    stop: StopConditions
    notes: Notes
    clock: Callable[[], float]
    look_up: float = LOOK_UP_SECONDS


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


@dataclass(slots=True)
class State:
    """Where each install is. The `parked` ones wait for an agency."""

    queues: dict[str, Queue]
    waiting: Waits[InstallProgress] = field(default_factory=Waits)
    parked: dict[AgencyKey, list[InstallProgress]] = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)

    @property
    def waits(self) -> int:
        """How many installs wait for a moment or an agency."""
        return len(self.waiting) + sum(map(len, self.parked.values()))

    def release(self, keys: list[AgencyKey], now: float) -> None:
        """Wake the installs that waited for these agencies."""
        for key in keys:
            for progress in self.parked.pop(key, ()):
                self.waiting.add(now, progress)

    def end(self, progress: InstallProgress, outcome: Outcome) -> None:
        """End an install with this outcome."""
        self.ended.append(Ended(progress.install, outcome, progress.first_try))

    def take_waiting(self, given_up: Callable[[InstallProgress], bool]) -> list[InstallProgress]:
        """The waiting installs that are given up. They no longer wait."""
        found = self.waiting.take(given_up)
        found += [progress for parked in self.parked.values() for progress in parked if given_up(progress)]
        self.parked = {
            key: [progress for progress in parked if not given_up(progress)] for key, parked in self.parked.items()
        }
        return found
