"""Tries out to threads, and back: how many are out at once, and who does them.

As many are out as the pace and the answers' time need. Without a fixed number of workers, so many installs stand ready at
the gate that it can let one out whenever it may, also while the caller writes down what has ended.
"""

from __future__ import annotations

import math
import queue
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from jobs.core.model import Answer
from jobs.highlevel.network_errors import is_late
from jobs.recovery.concurrency import Concurrency

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs.recovery.attempt import Task, Tried
    from jobs.recovery.progress import InstallProgress

# A disk that takes longer to sync is not one to run on. One program that holds the ledger for a minute does not make it slow.
_LONGEST_AWAY = 5.0


class FinishedTry(NamedTuple):
    """What a worker brings back: how the try ended, or the bug that ended it."""

    progress: InstallProgress
    task: Task
    tried: Tried
    bug: BaseException | None = None


class Inbox(Protocol):
    """Where what workers bring back comes in, and None, where somebody wants the scheduler to look again."""

    def get(self, *, timeout: float) -> FinishedTry | None:
        """Take the first one out, waiting for it. Raises queue.Empty after that many seconds."""

    def get_nowait(self) -> FinishedTry | None:
        """Take the first one out. Raises queue.Empty where there is none."""


class Workers(Protocol):
    """The threads that tries are done by."""

    @property
    def lacking(self) -> str:
        """Why there are fewer than were asked for, if there are."""

    @property
    def busy(self) -> int:
        """How many have a try that is not back."""

    def __len__(self) -> int:
        """How many there are."""

    def ready(self) -> bool:
        """Whether one is there for one more try."""

    def do(self, job: Callable[[], FinishedTry]) -> None:
        """Have one of them do that. What it gives comes into the inbox."""


def came_late(back: FinishedTry) -> bool:
    """Whether the try ran into a time-out."""
    return isinstance(back.tried, Answer) and is_late(back.tried)


class Sizes(NamedTuple):
    """How many tries may be out: up to `slots`, just so many where they are `fixed`, else as many as needed.

    `at_gate` installs at least stand ready for their turn, at a pace of `requests_per_second`.
    """

    slots: int
    fixed: bool = False
    at_gate: int = 2
    requests_per_second: float = 0.0


class Dispatcher:
    """Hands tries to `threads` and takes from `inbox` what they bring back.

    `try_once` does a try. `under_way` gives how many requests have left and are not answered; where that grows, None
    comes into `inbox`. `tries` were handed out so far, `out` of them are not back.
    """

    def __init__(
        self,
        threads: Workers,
        inbox: Inbox,
        try_once: Callable[[Task], Tried],
        under_way: Callable[[], int],
        sizes: Sizes,
    ) -> None:
        self._threads = threads
        self._inbox = inbox
        self._try_once = try_once
        self._under_way = under_way
        self._sizes = sizes
        self._away = 0.0
        self._concurrency = Concurrency(sizes.slots)
        self.out = 0
        self.tries = 0

    @property
    def slots(self) -> int:
        """How many may be out at most."""
        return self._sizes.slots

    @property
    def is_full(self) -> bool:
        """Whether enough are out."""
        if self.out >= self._concurrency.most:
            return True
        return not self._sizes.fixed and self._threads.busy - self._under_way() >= self._ready()

    def _ready(self) -> int:
        """How many installs are to stand at the gate, so that it lets one out whenever it may until the caller is back."""
        return max(self._sizes.at_gate, math.ceil(self._away * self._sizes.requests_per_second))

    def has_thread(self) -> bool:
        """Whether a thread is there for one more try; it is started if need be."""
        return self._threads.ready()

    @property
    def started(self) -> int:
        """How many threads there are."""
        return len(self._threads)

    @property
    def lacking(self) -> str:
        """Why this machine starts no more threads; empty while it does."""
        return self._threads.lacking

    def send(self, progress: InstallProgress, task: Task) -> None:
        """Hand a try to a thread that is there."""
        self.tries += 1
        self.out += 1
        progress.first_try, progress.last_try = progress.first_try or self.tries, self.tries
        self._threads.do(partial(_try, self._try_once, progress, task))

    def take(self, seconds: float) -> Iterator[FinishedTry]:
        """What has come back; waits for the first so many seconds at most."""
        try:
            finished = self._inbox.get(timeout=seconds)
            while True:
                if finished is not None:
                    self.out -= 1
                    yield finished
                finished = self._inbox.get_nowait()
        except queue.Empty:
            return

    def answered(self) -> None:
        """A try was answered in time."""
        self._concurrency.answered()

    def late(self, number: int) -> None:
        """Try `number` ran into a time-out while others were answered."""
        self._concurrency.late(number, self.out + 1, self.tries)

    def caller_was_away(self, seconds: float) -> None:
        """The caller took so long to write down a round: so long nobody hands out anything the next time, too."""
        self._away = min(_LONGEST_AWAY, max(seconds, self._away / 2))


def _try(try_once: Callable[[Task], Tried], progress: InstallProgress, task: Task) -> FinishedTry:
    try:
        return FinishedTry(progress, task, try_once(task))
    except BaseException as bug:  # noqa: BLE001 - it is raised in the scheduler's thread
        return FinishedTry(progress, task, None, bug)
