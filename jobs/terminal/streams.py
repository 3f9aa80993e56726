"""Standard output and standard error, as people and programs read them. All output passes through them.

A stream replaces secrets with stars and drops control characters. It never fails: if the terminal, pipe, socket or log is
gone or full, only messages are lost. In a run it never waits either: its own thread writes from a bounded queue.
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
        """Hide these secrets too, from now on."""
        self._secrets = (*self._secrets, *secrets)

    def spare(self, *names: object) -> None:
        """Never hide these names. A long part of a path, for example, only looks like a token."""
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
        """Whether it is a terminal."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    @property
    def encoding(self) -> str:
        """The encoding of the text stream that it writes to."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def drawing(self) -> Drawing:
        """The same stream for a library that draws, with its control characters."""
        return Drawing(self)

    def unblock(self) -> None:
        """Never wait for the reader from now on. Messages that are not read in time are dropped and counted in `lost`."""
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
        atexit.register(self.drain, LATE_SECONDS)  # What the interpreter prints last goes out too.

    def drain(self, seconds: float) -> None:
        """Wait for a slow reader, at most this many `seconds`. If it does not catch up, later calls do not wait for it."""
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
        # No lock: a signal handler writes too, and could wait forever for one. Only one thread changes each number.
        late = self._queued - self._written
        if late and late + len(data) > _MOST_LATE_BYTES:
            self.lost += 1
            return
        self._queued += len(data)
        assert self._queue is not None
        self._queue.put(data)

    def _write_out(self, file: int, waiting: queue.SimpleQueue[bytes | threading.Event]) -> None:
        """Write the queued text, forever. A slow reader blocks only this thread."""
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
        except BlockingIOError:  # Another program that has it open made it non-blocking.
            poll = select.poll()
            poll.register(file, select.POLLOUT)
            poll.poll()


def _that_never_waits(file: int) -> int:
    """A descriptor that never blocks: `file` opened again, since other programs share its mode. Otherwise `file` itself."""
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

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text` without its secrets."""
        self._stream._take(text)  # noqa: SLF001 - this class is a part of Stream
        return len(text)

    def flush(self) -> None:
        """Send the text that was written."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream.isatty()

    @property
    def encoding(self) -> str:
        """The encoding of the stream."""
        return self._stream.encoding


def open_streams() -> tuple[Stream, Stream]:
    """Standard output and standard error as streams. They replace those in `sys`, so a traceback passes through too."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    out, err = Stream(sys.stdout), Stream(sys.stderr)
    sys.stdout, sys.stderr = out, err
    return out, err
