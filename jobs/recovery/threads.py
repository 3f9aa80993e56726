"""The threads of a run. Work is given only to a thread that has started, since a machine may have none left."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_ASK_AGAIN_SECONDS = 30.0
Result = TypeVar("Result")


class WorkerThreads(Generic[Result]):
    """Up to `most` threads, started one by one as they are needed. `clock` gives monotonic seconds.

    `deliver` takes the result of each job. The thread that was busy last gets the next job, since its connection is
    fresh; after a result that `failed` it gets the next job last. `why_fewer` says why there are fewer threads than were asked
    for, and is empty otherwise.
    """

    def __init__(
        self,
        most: int,
        clock: Callable[[], float],
        deliver: Callable[[Result], None],
        failed: Callable[[Result], bool],
    ) -> None:
        self._most = most
        self._clock = clock
        self._deliver = deliver
        self._failed = failed
        self._threads: list[threading.Thread] = []
        self._jobs: list[SimpleQueue[Callable[[], Result] | None]] = []
        self._idle: list[SimpleQueue[Callable[[], Result] | None]] = []
        self._not_before = float("-inf")
        self.why_fewer = ""

    def __len__(self) -> int:
        return len(self._threads)

    @property
    def busy(self) -> int:
        """How many threads have a job."""
        return len(self._threads) - len(self._idle)

    def ready(self) -> bool:
        """Whether a thread is free for one more job. It is started if needed."""
        if self._idle:
            return True
        if len(self._threads) >= self._most or self._clock() < self._not_before:
            return False
        jobs: SimpleQueue[Callable[[], Result] | None] = SimpleQueue()
        thread = threading.Thread(target=self._work, args=(jobs,), name=f"worker-{len(self._threads)}")
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # Python's own words when the system refuses a thread.
            self._not_before = self._clock() + _ASK_AGAIN_SECONDS
            self.why_fewer = str(error) or "no memory"
            return False
        self._threads.append(thread)
        self._jobs.append(jobs)
        self._idle.append(jobs)
        return True

    def do(self, job: Callable[[], Result]) -> None:
        """Have a free thread do `job`, which raises nothing."""
        self._idle.pop().put(job)

    def close(self) -> None:
        """Let the threads end, and wait for them."""
        for jobs in self._jobs:
            jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, jobs: SimpleQueue[Callable[[], Result] | None]) -> None:
        while (job := jobs.get()) is not None:
            result = job()
            if self._failed(result):
                self._idle.insert(0, jobs)
            else:
                self._idle.append(jobs)
            self._deliver(result)
