"""Standard output and standard error, as people and programs read them. Everything goes through them.

A stream replaces secrets by stars, drops control characters, and never fails: a terminal, pipe, socket or log that is gone
or full costs only messages. In a run it never waits either, since a thread of its own writes what a bounded queue holds.
"""

from __future__ import annotations

import atexit
import os
import queue
import re
import select
import stat
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from jobs.core.secret import Secret, opaque_parts, scrub_own

if TYPE_CHECKING:
    from collections.abc import Iterable

# How long the end of a command waits for a slow reader.
LATE_SECONDS = 2.0
# How much is kept for a slow reader: more than a pipe holds, and little memory.
_MOST_LATE_BYTES = 262_144
# A pipe or socket that is ready takes this much without blocking.
_LEAST_TAKEN = 512
# All control and direction characters except the tab and the newline.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Stream:
    """A text stream without secrets. Text goes out line by line, or when it is flushed."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._secrets: tuple[Secret, ...] = ()
        self._spared: frozenset[str] = frozenset()
        self._unfinished = ""
        self._queue: queue.SimpleQueue[bytes | threading.Event] | None = None
        self._queued = self._written = 0
        self._at_once: int | None = None
        self._stuck = False
        self.failed = stream is None
        self.lost = 0

    def guard(self, secrets: Iterable[Secret]) -> None:
        """Replace these by stars too, from now on."""
        self._secrets = (*self._secrets, *secrets)

    def spare(self, *names: object) -> None:
        """Never star these: names such as paths, whose long parts only look like tokens."""
        self._spared |= opaque_parts(" ".join(map(str, names)))

    def scrub(self, text: str) -> str:
        """`text` without its secrets, and on one line without control characters."""
        return " ".join(_CONTROL.sub(" ", scrub_own(text, self._secrets, self._spared)).split())

    def write(self, text: str) -> int:
        """Write `text` without its secrets and control characters."""
        self._take(_CONTROL.sub("", text))
        return len(text)

    def flush(self) -> None:
        """Send an unfinished line too."""
        if self._unfinished:
            whole, self._unfinished = self._unfinished, ""
            self._send(whole)

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    @property
    def encoding(self) -> str:
        """The encoding of the stream behind."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def drawing(self) -> Drawing:
        """The same stream for a library that draws, with its control characters."""
        return Drawing(self)

    def unblock(self) -> None:
        """Never wait for the reader from now on. Text that he does not read in time is dropped, and counted in
        `lost`.
        """
        if self._queue is not None or self._stream is None:
            return
        try:
            self._stream.flush()
            file, waiting = self._stream.fileno(), queue.SimpleQueue[bytes | threading.Event]()
            # A daemon, since a reader that never reads must not keep the process alive.
            threading.Thread(target=self._write_out, args=(file, waiting), name="stream", daemon=True).start()
        except RuntimeError:  # No thread can be started, so text that is not read at once is dropped.
            self._at_once = _that_never_waits(file)
            return
        except (OSError, ValueError):
            return  # The stream has no file descriptor.
        self._queue = waiting
        atexit.register(self.drain, LATE_SECONDS)  # The interpreter's last words go out too.

    def drain(self, seconds: float) -> None:
        """Wait at most that long for a slow reader. A reader that was waited for in vain is not waited for again."""
        self.flush()
        if self._queue is not None and not self.failed and not self._stuck:
            reached = threading.Event()
            self._queue.put(reached)
            self._stuck = not reached.wait(seconds)

    def _take(self, text: str) -> None:
        whole, newline, rest = (self._unfinished + text).rpartition("\n")
        self._unfinished = rest
        if newline:
            self._send(whole + newline)

    def _send(self, text: str) -> None:
        if self.failed or self._stream is None:
            return
        clean = scrub_own(text, self._secrets, self._spared)
        data = clean.encode(self.encoding, "backslashreplace")
        try:
            if self._queue is not None:
                self._put(data)
            elif self._at_once is not None:
                self.lost += not _write_what_fits(self._at_once, data)
            else:
                self._stream.write(clean)
                self._stream.flush()
        except (OSError, ValueError):
            self.failed = True

    def _put(self, data: bytes) -> None:
        # There is no lock, since a signal handler writes too. Each of the two numbers is counted by one thread.
        late = self._queued - self._written
        if late and late + len(data) > _MOST_LATE_BYTES:
            self.lost += 1
            return
        self._queued += len(data)
        assert self._queue is not None
        self._queue.put(data)

    def _write_out(self, file: int, waiting: queue.SimpleQueue[bytes | threading.Event]) -> None:
        """Write what waits, forever. Only here can a reader block."""
        while True:
            data = waiting.get()
            if isinstance(data, threading.Event):
                data.set()
                continue
            try:
                _write_all(file, data)
            except OSError:
                self.failed = True
            self._written += len(data)


def _write_all(file: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(file, data) :]
        except BlockingIOError:  # Another program made it non-blocking, and shares that mode.
            poll = select.poll()
            poll.register(file, select.POLLOUT)
            poll.poll()


def _that_never_waits(file: int) -> int:
    """A pipe or a terminal opened again, since other programs share the mode of this one. Otherwise `file` itself."""
    mode = os.fstat(file).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with suppress(OSError):
            return os.open(f"/dev/fd/{file}", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    return file


def _write_what_fits(file: int, data: bytes) -> bool:
    """Whether all of it was written without waiting."""
    poll = select.poll()
    poll.register(file, select.POLLOUT)
    with suppress(BlockingIOError):
        while data and poll.poll(0):
            data = data[os.write(file, data[:_LEAST_TAKEN]) :]
    return not data


class Drawing:
    """A stream for a library that draws. Its control characters pass, and secrets do not."""

    def __init__(self, net: Stream) -> None:
        self._net = net

    def write(self, text: str) -> int:
        """Write `text` without its secrets."""
        self._net._take(text)  # noqa: SLF001 - the other half of the net
        return len(text)

    def flush(self) -> None:
        """Send the text that was written."""
        self._net.flush()

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return self._net.isatty()

    @property
    def encoding(self) -> str:
        """The encoding of the stream behind."""
        return self._net.encoding


def open_streams() -> tuple[Stream, Stream]:
    """Standard output and standard error as streams, which also take their place in `sys`: a traceback passes them
    too.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    out, err = Stream(sys.stdout), Stream(sys.stderr)
    sys.stdout, sys.stderr = out, err
    return out, err
