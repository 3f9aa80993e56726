"""Handles SIGHUP, SIGINT and SIGTERM from the first moment of a command to its last.

The first signal asks the command to stop, and the second one ends it. No signal interrupts the loading of a module.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.core.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_SIGNALS = {signal.SIGHUP: Exit.SIGHUP, signal.SIGINT: Exit.SIGINT, signal.SIGTERM: Exit.SIGTERM}
_SOON_SECONDS = 0.005


class Interrupted(BaseException):
    """A signal came while there was nothing that had to stop gracefully. `code` is its exit code."""

    def __init__(self, code: Exit) -> None:
        super().__init__()
        self.code = code


class Signals:
    """SIGHUP, SIGINT and SIGTERM from the first moment of a command on. An ignored SIGHUP stays ignored.

    `code` is the exit code of the first signal.
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
        """Raise Interrupted if it is time. While a module loads, try again soon: a module must load completely."""
        if not (self._raises and self._waits):
            return
        if _loads_a_module(frame):
            signal.setitimer(signal.ITIMER_REAL, _SOON_SECONDS)
            return
        self._raises = self._waits = False  # A second signal must not interrupt the cleanup.
        raise Interrupted(self.code or Exit.SIGINT)

    @contextmanager
    def raised(self, *, earlier: bool) -> Iterator[None]:
        """During the block, let a signal raise Interrupted once. With `earlier`, a signal before the block counts too."""
        self._raises = True
        try:
            if self._waits and earlier:
                raise Interrupted(self.code or Exit.SIGINT)
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
def on_signals(first: Callable[[Exit], None], second: Callable[[Exit], None]) -> Iterator[None]:
    """During the block, call `first` with the exit code of the first SIGHUP, SIGINT or SIGTERM, and `second` for the next.

    The process ends when `second` returns; an impatient third signal is ignored until then. An ignored SIGHUP stays ignored.
    """
    signalled = False

    def heed(number: int, _frame: FrameType | None) -> None:
        nonlocal signalled
        code = _SIGNALS[signal.Signals(number)]
        if signalled:
            for other in (signal.SIGINT, signal.SIGTERM):
                signal.signal(other, signal.SIG_IGN)
            second(code)
            os._exit(128 + number)
        signalled = True
        first(code)

    before = {number: signal.signal(number, heed) for number in _heeded()}
    # An earlier signal may have been raised where a library swallowed the exception.
    came = [one.code for handler in before.values() if isinstance(one := getattr(handler, "__self__", None), Signals)]
    if came and came[0] is not None:
        signalled = True
        first(came[0])
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
