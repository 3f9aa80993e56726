"""What keeps the ledger from being read or written, and how long a run waits for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from jobs.core.file_errors import FileError
from jobs.system.lock_holders import Patience

if TYPE_CHECKING:
    from collections.abc import Callable


_T = TypeVar("_T")
_HELD_SECONDS, _NOTICE_SECONDS = 60.0, 5.0


class UnwritableError(FileError):
    """The disk refused a write or a read."""


DAMAGED = "restore it, or move it away and use a different --output"


class DamagedError(UnwritableError):
    """The ledger's file is damaged."""


class HeldError(UnwritableError):
    """Another program held the ledger for longer than the job waits."""

    because = "ledger"


class AwayError(UnwritableError):
    """The database does not answer, or takes no writes for now."""

    because = "ledger"


class LeaseLostError(UnwritableError):
    """Another run took the lease over while this one was cut off. It may write nothing any more."""

    because = "lease_lost"


def _nothing(*_: object) -> None:
    """Do nothing."""


@dataclass(slots=True)
class Wait:
    """How to wait for a ledger that another program holds, or whose database is away: call `pause` before, and `go_on` if the
    wait succeeded.
    """

    patience: Patience
    pause: Callable[[], None] = _nothing
    go_on: Callable[[], None] = _nothing

    def for_database(self, act: Callable[[], _T]) -> _T:
        """What `act` returns, which is tried again while the database is away. Raises AwayError after the patience."""
        try:
            return act()
        except AwayError as away:
            met = away
        self.pause()
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
            raise met
        self.go_on()
        return done[0]


def usual_wait(say: Callable[[str], None] = _nothing) -> Wait:
    """A wait of one minute that calls `say` after five seconds."""
    return Wait(Patience(_HELD_SECONDS, _NOTICE_SECONDS, say))
