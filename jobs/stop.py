"""Stopping gently: by a signal, by the time that was given, or because going on makes no sense."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_SIGNALS = {signal.SIGHUP: Exit.SIGHUP, signal.SIGINT: Exit.SIGINT, signal.SIGTERM: Exit.SIGTERM}


@dataclass(slots=True)
class Stop:
    """Whether the run is to stop, why, and the exit code of that; `clock` and `deadline` are monotonic seconds."""

    clock: Callable[[], float]
    deadline: float | None = None
    because: str = ""
    code: Exit = Exit.OK
    met: str = ""
    signalled: bool = False

    def ask(self, because: str, code: Exit, met: str = "") -> None:
        """Stop for this reason; the first one counts."""
        if not self.because:
            self.because, self.code, self.met = because, code, met

    def must(self, because: str, code: Exit, met: str) -> None:
        """Stop for this reason, whatever was asked before: more was lost than time."""
        self.because, self.code, self.met = because, code, met

    def asked(self) -> bool:
        """Whether to hand out no more."""
        if self.deadline is not None and self.clock() >= self.deadline:
            self.ask("time_limit", Exit.STOPPED_AS_ASKED)
        return bool(self.because)


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

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    taken = [n for n in _SIGNALS if not (n is signal.SIGHUP and before[n] is signal.SIG_IGN)]
    for number in taken:
        signal.signal(number, gently)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
