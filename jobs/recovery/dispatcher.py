"""Hands tries to threads and takes their results, and decides how many may be out at once.

As many are out as the pace and the server's answer time need. If the number of workers is not fixed, enough installs
wait at the gate for it to let one out at any time, even while the caller writes outcomes down.
"""

from __future__ import annotations

import math
import queue
from functools import partial
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from jobs.core.model import Answer
from jobs.highlevel.network_errors import is_late
from jobs.recovery.concurrency import Concurrency
from jobs.recovery.progress import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from queue import SimpleQueue

    from jobs.recovery.notes import Notes
    from jobs.recovery.threads import WorkerThreads

# Seconds. A slower disk is unusable. If another program held the ledger for a minute, the disk is still not slow.
_LONGEST_AWAY = 5.0
Task = TypeVar("Task")
Tried = TypeVar("Tried")


class FinishedTry(NamedTuple, Generic[Item, Task, Tried]):
    """A try that a worker has finished: how it ended (None: not at all), or the bug that ended it."""

    progress: Item
    task: Task
    tried: Tried | None
    bug: BaseException | None = None


def came_late(back: FinishedTry[Item, Task, Tried]) -> bool:
    """Whether the try timed out."""
    return isinstance(back.tried, Answer) and is_late(back.tried)


class Sizes(NamedTuple):
    """How many tries may be out: exactly `slots` if they are `fixed`, otherwise as many as needed, up to `slots`. At
    least `at_gate` installs wait for their turn, at a pace of `requests_per_second`.
    """

    slots: int
    fixed: bool = False
    at_gate: int = 2
    requests_per_second: float = 0.0


class Dispatcher(Generic[Item, Task, Tried]):
    """Hands tries to `threads`, and takes their results from `inbox`.

    `try_once` does a try. `under_way` gives how many requests have left and are not answered; when it grows, None
    comes into `inbox`. `tries` were handed out so far, and `out` of them are not back.
    """

    def __init__(
        self,
        threads: WorkerThreads[FinishedTry[Item, Task, Tried]],
        inbox: SimpleQueue[FinishedTry[Item, Task, Tried] | None],
        try_once: Callable[[Task], Tried | None],
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
        """The most tries that may be out."""
        return self._sizes.slots

    @property
    def is_full(self) -> bool:
        """Whether enough tries are out."""
        if self.out >= self._concurrency.most:
            return True
        return not self._sizes.fixed and self._threads.busy - self._under_way() >= self._ready()

    def _ready(self) -> int:
        """How many installs must wait at the gate, so that it does not run out of them until the caller is back."""
        return max(self._sizes.at_gate, math.ceil(self._away * self._sizes.requests_per_second))

    def has_thread(self, no_thread: Callable[[str], None], notes: Notes) -> bool:
        """Whether a thread is free for one more try. It is started if needed.

        If no more can be started, `notes` say so, and those that there are do the tries. If there are none, `no_thread`
        hears why.
        """
        if self._threads.ready():
            return True
        started, why = len(self._threads), self._threads.why_fewer
        if not started:
            no_thread(why)
        elif why:
            words = f"this machine starts no more threads ({why}): continuing with {started}"
            notes.add_once(("threads",), words)
        return False

    def send(self, progress: Item, task: Task) -> None:
        """Hand a try to a free thread."""
        self.tries += 1
        self.out += 1
        progress.first_try, progress.last_try = progress.first_try or self.tries, self.tries
        self._threads.do(partial(_try, self._try_once, progress, task))

    def take(self, seconds: float) -> Iterator[FinishedTry[Item, Task, Tried]]:
        """The finished tries. It waits for the first one, at most this many `seconds`."""
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
        """Take note that a try was answered in time."""
        self._concurrency.answered()

    def late(self, number: int) -> None:
        """Take note that try `number` timed out while others were answered."""
        self._concurrency.late(number, self.out + 1, self.tries)

    def caller_was_away(self, seconds: float) -> None:
        """Take note of how long the caller took to write a round down. The next round may take as long."""
        self._away = min(_LONGEST_AWAY, max(seconds, self._away / 2))


def _try(try_once: Callable[[Task], Tried | None], progress: Item, task: Task) -> FinishedTry[Item, Task, Tried]:
    try:
        return FinishedTry(progress, task, try_once(task))
    except BaseException as bug:  # noqa: BLE001 - it is raised in the scheduler's thread
        return FinishedTry(progress, task, None, bug)
