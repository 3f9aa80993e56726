"""Signals: SIGHUP, SIGINT and SIGTERM, from the first moment of a command to its last.

The first one asks, a second one ends. None tears a module that is being loaded.
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
def on_signals(first: Callable[[Exit], None], second: Callable[[Exit], None]) -> Iterator[None]:
    """For the block, call `first` with the exit code of the first SIGHUP, SIGINT or SIGTERM, and `second` at the next one.

    `second` need not return; the process ends where it does. An ignored SIGHUP stays ignored.
    """
    signalled = False

    def heed(number: int, _frame: FrameType | None) -> None:
        nonlocal signalled
        code = _SIGNALS[signal.Signals(number)]
        if signalled:
            second(code)
            os._exit(128 + number)
        signalled = True
        first(code)

    before = {number: signal.signal(number, heed) for number in _heeded()}
    # One that came earlier may have been raised where a library hears no exception.
    came = [one.code for handler in before.values() if isinstance(one := getattr(handler, "__self__", None), Signals)]
    if came and came[0] is not None:
        signalled = True
        first(came[0])
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
