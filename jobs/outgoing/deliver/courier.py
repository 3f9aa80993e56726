"""A courier hands waiting pairs over beside a run: how it is started, asked and ended, whatever its target.

Waiting pairs are in the ledger, never in memory, except sealed ones (see `KeptPairs`).
A courier makes all its decisions in one thread of its own.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from jobs.core.model import Delivery, DeliveryReport
from jobs.ledger.refusals import UnwritableError
from jobs.outgoing.deliver.store import Found

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.ledger.deliveries import WaitingPair
    from jobs.outgoing.deliver.store import Store

_T = TypeVar("_T")
LOOK_SECONDS = 0.5
"""Seconds between two looks at the ledger if nobody says that more pairs wait."""


class News(NamedTuple):
    """What happened to an install's pair: `state` and `why`. Without `pair_id` it means that delivery rests.

    `sent`: the target was asked. A sealed pair that cannot be opened is refused without that.
    """

    pair_id: str
    resource_id: str
    state: Delivery
    why: str = ""
    sent: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """How hard a target is tried: pairs at once, tries of a pair, the seconds between them, failed installs in a row,
    and patience.
    """

    workers: int = 4
    attempts: int = 5
    min_wait: float = 1.0
    max_wait: float = 60.0
    give_up_after: int = 10
    patience: float = 600.0


class Courier(ABC):
    """Hands over what waits in `store`, from `start` until nothing is left to do. `clock` gives monotonic seconds."""

    def __init__(self, store: Store, kind: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._news: SimpleQueue[News] = SimpleQueue()
        self._said: SimpleQueue[str] = SimpleQueue()
        self._look = threading.Event()
        self._stopping = threading.Event()
        self._finishing = False
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self.report = DeliveryReport(target=kind)
        self.bug: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def nudge(self) -> None:
        """Look again, since more pairs may wait now."""
        self._look.set()

    def finish(self) -> None:
        """Hand over all that waits, then end."""
        self._finishing = True
        self._look.set()

    def stop(self) -> None:
        """Hand over no more. What is in flight comes back first."""
        self._stopping.set()
        self._look.set()

    def join(self, seconds: float | None = None) -> None:
        """Wait until it has ended, at most so long."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def ended(self, seconds: float) -> bool:
        """Whether it has ended. It waits so long for that. Raises a bug that the courier met."""
        self.join(seconds)
        if self._thread.is_alive():
            return False
        if self.bug is not None:
            raise self.bug
        return True

    def news(self) -> list[News]:
        """What has happened since the last call."""
        return _taken(self._news)

    def said(self) -> list[str]:
        """The lines for the log that a command has written since the last call, scrubbed."""
        return _taken(self._said)

    def _run(self) -> None:
        try:
            self._hand_over_all()
        except BaseException as bug:  # noqa: BLE001 - it is raised where the courier is waited for
            self.bug = bug

    @abstractmethod
    def _hand_over_all(self) -> None:
        """Hand over what waits, until all is done or it must stop."""

    def _found(self, look: Callable[[], Found]) -> Found:
        """What a look at the ledger finds. It looks again if none of the pairs that it found could be opened."""
        while not self._stopping.is_set():
            try:
                found = look()
            except UnwritableError as refused:
                self._rest(str(refused))
                break
            for one in found.refused:
                self._tell(*one, sent=False)
            if found.pairs or not found.full:
                return found
        return Found([], [], full=False)

    def _tell(self, pair: WaitingPair, state: Delivery, why: str, *, sent: bool = True) -> None:
        """Count a pair whose answer is on disk, and tell about it."""
        taken = state is Delivery.DELIVERED
        self.report = replace(
            self.report,
            attempted=self.report.attempted + 1,
            delivered=self.report.delivered + taken,
            failed=self.report.failed + (not taken),
        )
        record = pair.record
        resource_id = record.location_id or record.company_id
        self._news.put(News(self._store.id_of(pair.key), resource_id, state, why, sent))

    def _rest(self, why: str) -> None:
        """Hand over no more in this run."""
        if self.report.rested_because is None:
            self.report = replace(self.report, rested_because=why)
            self._news.put(News("", "", Delivery.WAITING, why))
        self.stop()


def _taken(waiting: SimpleQueue[_T]) -> list[_T]:
    """Everything that is in a queue now."""
    found = []
    try:
        while True:
            found.append(waiting.get_nowait())
    except Empty:
        return found
