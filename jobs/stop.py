"""Stopping gently: by a signal, by the time that was given, or because going on makes no sense."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from jobs.core.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_SIGNALS = {signal.SIGHUP: Exit.SIGHUP, signal.SIGINT: Exit.SIGINT, signal.SIGTERM: Exit.SIGTERM}

_SOON_SECONDS = 0.005


class Left(Enum):
    """What a run that has come to its end leaves untried."""

    NOTHING = auto()
    NOT_ASKED_FOR = auto()  # Pending, but `--cause` left it out.
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
# What stopped the run, what it leaves: its exit code. A reason that came when all was tried stopped nothing, and a run
# that leaves something pending never ends with 0 or 1. Other reasons (a signal, the disk, a bug) keep their own code.
_FINISHED = None  # 0, or 1 where some failed
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
    """What is left where so many of those that were lined up have ended, and so many of INPUT's installs are pending."""
    if attempted < lined_up:
        return Left.SOME
    return Left.NOT_ASKED_FOR if pending else Left.NOTHING


def end_of(because: str, code: Exit, left: Left, *, failed: bool) -> Exit:
    """The exit code of a run that stopped for this reason (empty: for none), whose own code is `code`."""
    if because not in _REASONS:
        return code
    ends = _ENDS[_REASONS[because], left]
    return (Exit.SOME_FAILED if failed else Exit.OK) if ends is _FINISHED else ends


@dataclass(slots=True)
class Stop:
    """Whether the run is to stop, why, and the exit code of that; `clock` and `deadline` are monotonic seconds.

    `asked_to` is called at the moment it is asked to stop, also from within a signal's handler.
    """

    clock: Callable[[], float]
    deadline: float | None = None
    because: str = ""
    code: Exit = Exit.OK
    met: str = ""
    signalled: bool = False
    asked_to: Callable[[], None] = lambda: None

    def ask(self, because: str, code: Exit, met: str = "") -> None:
        """Stop for this reason; the first one counts."""
        if not self.because:
            self.because, self.code, self.met = because, code, met
            self.asked_to()

    def must(self, because: str, code: Exit, met: str) -> None:
        """Stop for this reason, whatever was asked before: more was lost than time."""
        self.because, self.code, self.met = because, code, met

    def asked(self) -> bool:
        """Whether to hand out no more."""
        if self.deadline is not None and self.clock() >= self.deadline:
            self.ask("time_limit", Exit.STOPPED_AS_ASKED)
        return bool(self.because)


class Interrupted(BaseException):
    """A signal came where nothing is under way that could be stopped gently."""


class Signals:
    """SIGHUP, SIGINT and SIGTERM from the first moment of a command on; an ignored SIGHUP stays ignored.

    `code` is the exit code of the first one that came.
    """

    def __init__(self) -> None:
        self.code: Exit | None = None
        self._waits = self._raises = False
        for number in _heeded():
            signal.signal(number, self._came)
        signal.signal(signal.SIGALRM, lambda _number, frame: self._raise(frame))

    def _came(self, number: int, frame: FrameType | None) -> None:
        self.code = self.code or _SIGNALS[signal.Signals(number)]
        self._waits = True
        self._raise(frame)

    def _raise(self, frame: FrameType | None) -> None:
        """Raise Interrupted where it is time to; soon again where a module is being loaded, since half of one is none."""
        if not (self._raises and self._waits):
            return
        if _loads_a_module(frame):
            signal.setitimer(signal.ITIMER_REAL, _SOON_SECONDS)
            return
        self._raises = self._waits = False  # What is cleaned up now is not to be interrupted too.
        raise Interrupted

    @contextmanager
    def raised(self, *, earlier: bool) -> Iterator[None]:
        """For a block, let a signal raise Interrupted, once; `earlier`: one that came before it too."""
        self._raises = True
        try:
            if self._waits and earlier:
                raise Interrupted
            yield
        finally:
            self._raises = self._waits = False


def _loads_a_module(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False


def _heeded() -> list[signal.Signals]:
    return [n for n in _SIGNALS if not (n is signal.SIGHUP and signal.getsignal(n) is signal.SIG_IGN)]


@contextmanager
def on_signals(stop: Stop, at_once: Callable[[Exit], None]) -> Iterator[None]:
    """Let SIGHUP, SIGINT and SIGTERM stop the run gently, and a second one at once, with `at_once`, which need not return.

    An ignored SIGHUP stays ignored.
    """

    def gently(number: int, _frame: FrameType | None) -> None:
        if stop.signalled:
            at_once(_SIGNALS[signal.Signals(number)])
            os._exit(128 + number)
        stop.signalled = True
        stop.ask("signal", _SIGNALS[signal.Signals(number)])

    before = {number: signal.signal(number, gently) for number in _heeded()}
    # One that came earlier may have been raised where a library hears no exception.
    came = [one.code for handler in before.values() if isinstance(one := getattr(handler, "__self__", None), Signals)]
    if came and came[0] is not None:
        stop.signalled = True
        stop.ask("signal", came[0])
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
