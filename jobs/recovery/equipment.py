"""What tries are made with: the gate that all requests pass, the client of the API behind it, and the threads."""

from __future__ import annotations

import time
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from jobs import __version__
from jobs.core.clock import utc
from jobs.highlevel.api import HighLevel, Limits
from jobs.highlevel.transport import Transport
from jobs.pace.gate import Gate
from jobs.recovery.attempt import RetryPolicy
from jobs.recovery.connectivity import Connectivity
from jobs.recovery.dispatcher import Dispatcher, Sizes, came_late
from jobs.recovery.stop import StopConditions, heed_leases
from jobs.recovery.threads import WorkerThreads

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.config.settings import PaceSettings, Settings
    from jobs.ledger.lease import Leases
    from jobs.recovery.dispatcher import FinishedTry
    from jobs.recovery.notes import Notes
    from jobs.recovery.progress import Item
    from jobs.recovery.stop import Stop
    from jobs.start import Basis

    _AnyTry = FinishedTry[Any, Any, Any]

_MOST_WORKERS = 256
Task = TypeVar("Task")
Tried = TypeVar("Tried")


class Equipment:
    """Built for a run or a check by its settings and its `leases`, if it has any. `look_again` wakes whoever waits for
    tries to come back, as do `stop` and each request that leaves.
    """

    def __init__(self, basis: Basis, stop: Stop, leases: Leases | None = None) -> None:
        settings = basis.settings
        self._patience = settings.stop.network_patience_seconds
        self._inbox: SimpleQueue[_AnyTry | None] = SimpleQueue()
        self.look_again = partial(self._inbox.put, None)
        stop.asked_to = self.look_again
        self.retry_policy = _retry_policy_of(settings)
        self._sizes = _sizes_of(settings.pace)
        self.gate = _make_gate(settings.pace, self.retry_policy, self.look_again, leases)
        if leases is not None:
            leases.looked_after = partial(heed_leases, leases, stop, partial(self.gate.stop, also_codes=True))
        self.stop_conditions = StopConditions(stop, self.gate)
        self.api = _make_api(basis, self.gate, self.look_again)
        self._threads: WorkerThreads[_AnyTry] = WorkerThreads(
            self._sizes.slots, time.monotonic, self._inbox.put, came_late
        )

    def dispatcher(self, try_once: Callable[[Task], Tried | None]) -> Dispatcher[Any, Task, Tried]:
        """What hands the tries to the threads."""
        return Dispatcher(self._threads, self._inbox, try_once, self._in_the_air, self._sizes)

    def _in_the_air(self) -> int:
        """How many requests are not answered yet, and connections not made yet."""
        return self.gate.under_way + self.api.connecting

    def connectivity(self, notes: Notes) -> Connectivity[Item]:
        """What is known about the way to HighLevel: nothing yet."""
        return Connectivity(self._patience, self.retry_policy.backoff, notes)

    def close(self) -> None:
        """Let the threads end, wait for them, and close the connections."""
        try:
            self._threads.close()
        finally:
            self.api.close()


def _sizes_of(pacing: PaceSettings) -> Sizes:
    """How many may be out at once by these settings."""
    at_gate = max(2, min(32, round(pacing.requests_per_second / 10)))
    return Sizes(pacing.workers or _MOST_WORKERS, bool(pacing.workers), at_gate, pacing.requests_per_second)


def _retry_policy_of(settings: Settings) -> RetryPolicy:
    """How often an install is tried, and the waits between."""
    retry = settings.retry
    patience = settings.pace.patience_seconds
    return RetryPolicy(retry.attempts, retry.min_wait_seconds, retry.max_wait_seconds, patience)


def _make_gate(
    pacing: PaceSettings, retry_policy: RetryPolicy, left: Callable[[], None], leases: Leases | None
) -> Gate:
    """The gate that all requests of a run pass, within what was used before and only with the leases. `left`: see `Gate`."""
    gate = Gate(
        pacing.requests_per_second,
        pacing.patience_seconds,
        clock=time.monotonic,
        now=utc,
        backoff=retry_policy.backoff,
        left=left,
        holds=leases.hold if leases is not None else lambda: True,
    )
    if leases is not None:
        gate.begin_within(leases.used_before())
        leases.used = gate.usage
    return gate


def _make_api(basis: Basis, gate: Gate, connects: Callable[[], None]) -> HighLevel:
    """The client of the API, behind `gate`. `connects` is called when a connection is about to be made."""
    http = basis.settings.http
    limits = Limits(
        http.connect_timeout_seconds, http.read_timeout_seconds, http.total_timeout_seconds, http.max_answer_bytes
    )
    return HighLevel(
        base_url=basis.base_url,
        transport=Transport(basis.base_url, limits, basis.environment, connects, gate.holds),
        gate=gate,
        clock=time.monotonic,
        now=utc,
        user_agent=f"highlevel-recovery/{__version__}",
    )
