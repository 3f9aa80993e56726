"""A user's program, started without a shell and without the job's credentials, and ended with all its children.

It reads and writes lines without ever blocking the job: it may read slowly or not at all, write nothing or too much, or
end at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import struct
import subprocess
import termios
from collections import deque
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

# A program needs these to work and to write in the right language. Any other variable may hold an app's secret,
# because `client_secret_env` accepts any name.
_PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME")
_CHUNK_BYTES = 65_536
_MOST_LINE_BYTES = 16_384
# Bytes read after its end, so that a child which goes on writing is not read forever.
_MOST_LAST_CHUNKS = 64


class Heard(NamedTuple):
    """What a program wrote, line by line, on standard output and standard error. `read`: it has read something."""

    output: list[bytes]
    errors: list[bytes]
    read: bool


class Program:
    """A running program, in `folder`. Raises OSError if it cannot be started."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._process = _started(command, folder)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._input = process.stdin
        self._lines: deque[bytes] = deque()
        self._left = b""
        self._unread = 0
        self._finishing = False
        self._ready = selectors.DefaultSelector()
        self._said = {process.stdout: _Lines(), process.stderr: _Lines()}
        for pipe in (process.stdin, process.stdout, process.stderr):
            os.set_blocking(pipe.fileno(), False)
        for pipe in self._said:
            self._ready.register(pipe, selectors.EVENT_READ)
        self._output, self._errors = self._said.values()
        self.begun = 0
        """How many lines it was given, including the one being written."""
        self.finished = False
        """Whether its input was closed because it has read everything."""

    @property
    def wants_more(self) -> bool:
        """Whether it was given everything so far, and may read more."""
        return self._written_out and not self._input.closed

    @property
    def owes(self) -> bool:
        """Whether it should do something: read the rest of its input, or end."""
        return not self._written_out or self._unread > 0 or self._input.closed

    @property
    def _written_out(self) -> bool:
        return not self._left and not self._lines

    @property
    def code(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._process.returncode

    def give(self, lines: Iterable[bytes]) -> None:
        """Write these lines as it reads them."""
        self._lines.extend(lines)

    def finish(self) -> None:
        """Close its input when everything is written and read. Until then one can see whether it reads."""
        self._finishing = True

    def cut_short(self) -> None:
        """Close its input when the current line is written and everything is read."""
        self._lines.clear()
        self._finishing = True

    def turn(self, seconds: float) -> Heard:
        """Read and write what is possible now, waiting at most so long."""
        ended = (
            self._process.poll() is not None
        )  # Asked before the pipes are read, so that its last words are there by then.
        self._listen(0 if ended else seconds)
        read = self._write()
        if ended:
            self._hear_last()
        return Heard(self._output.taken(), self._errors.taken(), read)

    def close(self) -> None:
        """End it, if it has not ended, and let go of its pipes."""
        _end(self._process)
        self._ready.close()
        for pipe in (self._input, *self._said):
            pipe.close()

    def _write(self) -> bool:
        """Write what there is room for. Returns whether it has read something since the last call."""
        if self._input.closed:
            return False
        before = self._unread
        try:
            written = self._write_lines()
        except BrokenPipeError:  # The program reads no more.
            self._close_input()
            return False
        self._unread = _unread(self._input)
        if self._finishing and self._written_out and not self._unread:
            self.finished = True
            self._close_input()
        return self._unread < before + written

    def _write_lines(self) -> int:
        written = 0
        while not self._written_out:
            if not self._left:
                self._left = self._lines.popleft()
                self.begun += 1
            count = self._input.write(self._left) or 0
            self._left = self._left[count:]
            written += count
            if self._left:
                break
        return written

    def _close_input(self) -> None:
        self._lines.clear()
        self._left = b""
        self._watch_input(wanted=False)
        self._input.close()

    def _watch_input(self, *, wanted: bool) -> None:
        """Have `_listen` come back when there is room to write, or not."""
        watched = not self._input.closed and self._input in self._ready.get_map()
        if wanted and not watched:
            self._ready.register(self._input, selectors.EVENT_WRITE)
        elif watched and not wanted:
            self._ready.unregister(self._input)

    def _listen(self, seconds: float) -> bool:
        """Read a piece of output, waiting so long for it. Returns whether there was any."""
        self._watch_input(wanted=not self._input.closed and not self._written_out)
        heard = False
        for key, _ in self._ready.select(seconds):
            for pipe, lines in self._said.items():
                if key.fileobj is pipe:
                    chunk = pipe.read(_CHUNK_BYTES)
                    if chunk == b"":
                        self._ready.unregister(pipe)
                    lines.add(chunk or b"")
                    heard |= bool(chunk)
        return heard

    def _hear_last(self) -> None:
        """Read its last words."""
        for _ in range(_MOST_LAST_CHUNKS):
            if not self._listen(0):
                break
        self._output.end()
        self._errors.end()


def _started(command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """The running program, in `folder`, with unbuffered pipes."""
    return subprocess.Popen(  # noqa: S603 - the user's own command, split into words by the settings
        command,
        bufsize=0,
        cwd=folder,
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the program and its children, unless it has ended."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _unread(pipe: IO[bytes]) -> int:
    """How many bytes are in a pipe."""
    (count,) = struct.unpack("i", fcntl.ioctl(pipe.fileno(), termios.FIONREAD, b"\0" * 4))
    return int(count)


class _Lines:
    """Whole lines made from pieces. Only the beginning of a long line is kept."""

    def __init__(self) -> None:
        self._begun = b""
        self._whole: list[bytes] = []

    def add(self, piece: bytes) -> None:
        first, *others = piece.split(b"\n")
        for part in others:
            self._append(first)
            self.end()
            first = part
        self._append(first)

    def _append(self, part: bytes) -> None:
        self._begun += part[: _MOST_LINE_BYTES - len(self._begun)]

    def end(self) -> None:
        """End the last line, since no more comes."""
        if self._begun:
            self._whole.append(self._begun)
        self._begun = b""

    def taken(self) -> list[bytes]:
        whole, self._whole = self._whole, []
        return whole
