"""Stopping gracefully: by a signal, by the given time, or because going on makes no sense."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from jobs.core.errors import Exit
from jobs.ledger.refusals import AwayError, HeldError, LeaseLostError, UnwritableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.ledger.lease import Leases
    from jobs.pace.gate import Gate


OF_THE_LEDGER = {UnwritableError.because, HeldError.because, LeaseLostError.because}
_ENDS_DELIVERY = {"bug", *OF_THE_LEDGER}


class Left(Enum):
    """What a run leaves untried when it has ended."""

    NOTHING = auto()
    NOT_ASKED_FOR = auto()  # Pending installs that `--cause` left out.
    SOME = auto()


class _Why(Enum):
    NOTHING_DID = auto()
    IT_WAS_ASKED_TO = auto()
    NO_SENSE = auto()


_REASONS = {
    "": _Why.NOTHING_DID,
    "time_limit": _Why.IT_WAS_ASKED_TO,
    "install_limit": _Why.IT_WAS_ASKED_TO,
    "reconnect_removed": _Why.NO_SENSE,
    "credentials_rejected": _Why.NO_SENSE,
    "refused": _Why.NO_SENSE,
    "outage": _Why.NO_SENSE,
}
# The exit code, by why the run stopped and what it leaves. A reason that comes after everything was tried stops
# nothing. A run that leaves something pending never ends with 0 or 1. Other reasons (a signal, the disk, a bug) keep
# their own code.
_FINISHED = None  # 0, or 1 if some failed
_ENDS = {
    (_Why.NOTHING_DID, Left.NOTHING): _FINISHED,
    (_Why.NOTHING_DID, Left.NOT_ASKED_FOR): Exit.STOPPED_AS_ASKED,
    (_Why.NOTHING_DID, Left.SOME): Exit.STOPPED_EARLY,
    (_Why.IT_WAS_ASKED_TO, Left.NOTHING): _FINISHED,
    (_Why.IT_WAS_ASKED_TO, Left.NOT_ASKED_FOR): Exit.STOPPED_AS_ASKED,
    (_Why.IT_WAS_ASKED_TO, Left.SOME): Exit.STOPPED_AS_ASKED,
    (_Why.NO_SENSE, Left.NOTHING): _FINISHED,
    (_Why.NO_SENSE, Left.NOT_ASKED_FOR): Exit.STOPPED_EARLY,
    (_Why.NO_SENSE, Left.SOME): Exit.STOPPED_EARLY,
}


def remaining(attempted: int, lined_up: int, pending: int) -> Left:
    """What is left, when `attempted` of `lined_up` installs have ended and `pending` of INPUT's installs are pending."""
    if attempted < lined_up:
        return Left.SOME
    return Left.NOT_ASKED_FOR if pending else Left.NOTHING


def end_of(because: str, code: Exit, left: Left, *, failed: bool) -> Exit:
    """The exit code of a run that stopped for this reason (empty: none) with this code."""
    if because not in _REASONS:
        return code
    ends = _ENDS[_REASONS[because], left]
    return (Exit.SOME_FAILED if failed else Exit.OK) if ends is _FINISHED else ends


@dataclass(slots=True)
class Stop:
    """Whether the run must stop, why, and with which exit code. `clock` and `deadline` are monotonic seconds.
    `asked_to` is called when it is asked to stop, also inside a signal handler.
    """

    clock: Callable[[], float]
    deadline: float = math.inf
    because: str = ""
    code: Exit = Exit.OK
    met: str = ""
    signalled: bool = False
    asked_to: Callable[[], None] = lambda: None

    def ask(self, because: str, code: Exit, met: str = "") -> None:
        """Stop for this reason. The first reason counts."""
        if not self.because:
            self.because, self.code, self.met = because, code, met
            self.asked_to()

    def signal(self, code: Exit) -> None:
        """Stop for a signal whose exit code is `code`."""
        self.signalled = True
        self.ask("signal", code)

    def must(self, because: str, code: Exit, met: str) -> None:
        """Stop for this reason, whatever was asked before: something was lost."""
        self.because, self.code, self.met = because, code, met

    def refused(self, because: str, met: str, *, kept: bool) -> None:
        """Stop because the ledger refused something, as `must`. A signal keeps its code if what was refused is `kept` elsewhere."""
        if kept and self.because == "signal":
            self.met = met
        else:
            self.must(because, Exit.STOPPED_EARLY, met)

    def ends_delivery(self) -> bool:
        """Whether delivery must stop too: a signal came, the time is over, or the ledger takes no more."""
        self.asked()
        return self.signalled or self.clock() >= self.deadline or self.because in _ENDS_DELIVERY

    def asked(self) -> bool:
        """Whether to hand out no more."""
        if self.clock() >= self.deadline:
            self.ask("time_limit", Exit.STOPPED_AS_ASKED)
        return bool(self.because)


def heed_leases(leases: Leases, stop: Stop, let_nothing_out: Callable[[], None] = lambda: None) -> None:
    """Stop if the leases are lost, or could not be renewed for too long. Called after each renewal."""
    if problem := leases.problem():
        let_nothing_out()
        stop.ask(LeaseLostError.because if leases.lost else AwayError.because, Exit.STOPPED_EARLY, str(problem))


def end_at_once(leases: Leases | None, *_: object) -> None:
    """End the leases, if there are any, at a second signal."""
    if leases is not None:
        leases.cut_short()


class StopConditions:
    """When a run hands out no more: it was asked to stop, or the gate lets nothing out any more."""

    def __init__(self, stop: Stop, gate: Gate) -> None:
        self._stop = stop
        self._gate = gate

    def met(self) -> bool:
        """Whether to hand out no more. What waits at the gate is turned away then."""
        if self._stop.asked():
            # If the ledger takes no more, a code must not be sent: its pair could not be stored.
            self._gate.stop(also_codes=self._stop.because in OF_THE_LEDGER)
        return bool(self._stop.because or self._gate.enough)

    @property
    def out_of_patience(self) -> bool:
        """Whether HighLevel has answered 429 for longer than the run's patience."""
        return self._gate.out_of_patience

    def no_more_today(self, client_id: str) -> str:
        """Why no more requests leave for an app today, in words. Empty while they do."""
        return self._gate.no_more_today(client_id)

    def no_thread(self, why: str) -> None:
        """Stop because this machine cannot start a single thread."""
        limits = "raise its limit of processes (ulimit -u, or the container's), or free memory"
        met = f"this machine cannot start a single thread ({why}): {limits}"
        self._stop.ask("outage", Exit.STOPPED_EARLY, met)
