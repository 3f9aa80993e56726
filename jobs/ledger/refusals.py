"""What keeps the ledger from being read or written, and how long a run waits for it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from jobs.core.errors import Exit
from jobs.core.file_errors import FileError
from jobs.system.lock_holders import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_T = TypeVar("_T")
_HELD_SECONDS, _NOTICE_SECONDS = 60.0, 5.0
_LOOK_AGAIN_SECONDS = 2.0  # Until a database is asked again that was away for too long.


class UnwritableError(FileError):
    """The disk refused a write or a read."""


DAMAGED = "restore it, or move it away and use a different --output"


class DamagedError(UnwritableError):
    """The ledger's file is damaged."""


class HeldError(UnwritableError):
    """Another program held the ledger for longer than the job waits."""

    because = "ledger"


class DatabaseRefusedError(UnwritableError):
    """A database took nothing, so whatever it holds is still there."""


class AwayError(DatabaseRefusedError):
    """The database does not answer, or takes no writes for now."""

    because = "ledger"


class LeaseLostError(DatabaseRefusedError):
    """Another run took the lease over while this one was cut off. It may write nothing any more."""

    because = "lease_lost"
    code = Exit.STOPPED_EARLY


def _nothing(*_: object) -> None:
    """Do nothing."""


@dataclass(slots=True)
class Wait:
    """How to wait for a ledger that another program holds, or whose database is away.

    Several threads may wait. `pause` is called before the first waits, and `go_on` after the last, unless it waited in vain.
    `gave_up` is called with the error of a database that did not come back, from whatever thread waited.
    """

    patience: Patience
    pause: Callable[[], None] = _nothing
    go_on: Callable[[], None] = _nothing
    gave_up: Callable[[AwayError], None] = _nothing
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: int = 0
    _met: AwayError | None = None
    _look_again_at: float = 0.0

    @property
    def hurries(self) -> bool:
        """Whether a database that does not answer is given up soon: it was away for too long, or a signal came meanwhile."""
        return self._met is not None or (self._waiting > 0 and self.patience.gives_up())

    def for_database(self, act: Callable[[], _T]) -> _T:
        """What `act` returns, which is tried again while the database is away. Raises AwayError after the patience.

        From then on it is tried once each time, and only every two seconds.
        """
        if self._met is not None and self.patience.clock() < self._look_again_at:
            raise self._met
        try:
            return self._done(act())
        except AwayError as away:
            if self._met is not None:
                raise self._given_up(away) from None
            met = away
        with self.paused():
            return self._waited(act, met)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """For a block that waits. It raises HeldError or AwayError if it waited in vain."""
        with self._lock:
            self._waiting += 1
            if self._waiting == 1:
                self.pause()
        in_vain = False
        try:
            yield
        except (HeldError, AwayError):
            in_vain = True
            raise
        finally:  # Also after a bug, which must not hold back what others have in hand.
            with self._lock:
                self._waiting -= 1
                if not self._waiting and not in_vain:
                    self.go_on()

    def _waited(self, act: Callable[[], _T], met: AwayError) -> _T:
        done: list[_T] = []

        def back() -> bool:
            nonlocal met
            try:
                done.append(act())
            except AwayError as away:
                met = away
            return bool(done)

        if not self.patience.wait(
            back, lambda: f"waiting for the database ({met.problem.what}); nothing is sent meanwhile"
        ):
            raise self._given_up(met)
        return self._done(done[0])

    def _done(self, what: _T) -> _T:
        self._met = None
        return what

    def _given_up(self, met: AwayError) -> AwayError:
        self._met, self._look_again_at = met, self.patience.clock() + _LOOK_AGAIN_SECONDS
        self.gave_up(met)
        return met


def usual_wait(say: Callable[[str], None] = _nothing) -> Wait:
    """A wait of one minute that calls `say` after five seconds."""
    return Wait(Patience(_HELD_SECONDS, _NOTICE_SECONDS, say))
