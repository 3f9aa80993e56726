"""The two streams that people and programs read. Nothing passes by: a traceback and a drawn line neither.

A net stars secrets out, keeps control characters away, and never fails or waits: a terminal, pipe or log that is
gone, full or not read costs messages only.
"""

from __future__ import annotations

import os
import re
import select
import stat
import sys
import time
from typing import TYPE_CHECKING, TextIO

from jobs.secret import Secret, opaque_parts, scrub_own

if TYPE_CHECKING:
    from collections.abc import Iterable

# What a reader that lags behind may still get; more than a pipe holds, less than memory minds.
_MOST_LATE_BYTES = 65_536
# All control and direction characters but the tab and the newline.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Net:
    """A text stream behind a net. What is written goes out by the line, or when it is flushed."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._secrets: tuple[Secret, ...] = ()
        self._spared: frozenset[str] = frozenset()
        self._unfinished = ""
        self._late = b""
        self._own: int | None = None
        self.failed = stream is None
        self.lost = 0

    def guard(self, secrets: Iterable[Secret]) -> None:
        """Star these out too, from now on."""
        self._secrets = (*self._secrets, *secrets)

    def spare(self, *names: object) -> None:
        """Names of our own, such as paths, whose long parts only look like tokens."""
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
        """The same net for what draws, with control characters of its own."""
        return Drawing(self)

    def unblock(self) -> None:
        """Never wait for the reader from now on: what he does not take in time is lost, and counted in `lost`.

        Another opening of the same pipe or terminal is used, since the mode of this one is shared with other programs.
        """
        try:
            file = self._stream.fileno() if self._stream is not None else -1
            mode = os.fstat(file).st_mode
            if self._own is None and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
                self._own = os.open(f"/dev/fd/{file}", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):
            return

    def drain(self, seconds: float) -> None:
        """Wait at most that long for a reader that lags behind."""
        self.flush()
        end = time.monotonic() + seconds
        while self._late and not self.failed and (left := end - time.monotonic()) > 0:
            poll = select.poll()
            poll.register(self._own or 0, select.POLLOUT)
            poll.poll(min(left, 0.5) * 1000)
            self._push(b"")

    def _take(self, text: str) -> None:
        whole, newline, rest = (self._unfinished + text).rpartition("\n")
        self._unfinished = rest
        if newline:
            self._send(whole + newline)

    def _send(self, text: str) -> None:
        if self.failed or self._stream is None:
            return
        clean = scrub_own(text, self._secrets, self._spared)
        try:
            if self._own is None:
                self._stream.write(clean)
                self._stream.flush()
            else:
                self._push(clean.encode(self.encoding, "backslashreplace"))
        except (OSError, ValueError):
            self.failed = True

    def _push(self, data: bytes) -> None:
        assert self._own is not None
        if data and len(self._late) + len(data) > _MOST_LATE_BYTES and self._late:
            self.lost += 1
        else:
            self._late += data
        try:
            while self._late:
                self._late = self._late[os.write(self._own, self._late) :]
        except BlockingIOError:
            return
        except OSError:
            self.failed = True


class Drawing:
    """A net for a library that draws: its control characters pass, secrets do not."""

    def __init__(self, net: Net) -> None:
        self._net = net

    def write(self, text: str) -> int:
        """Write `text` without its secrets."""
        self._net._take(text)  # noqa: SLF001 - the other half of the net
        return len(text)

    def flush(self) -> None:
        """Send what was written."""
        self._net.flush()

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return self._net.isatty()

    @property
    def encoding(self) -> str:
        """The encoding of the stream behind."""
        return self._net.encoding


def nets() -> tuple[Net, Net]:
    """Put standard output and standard error behind nets; returns these. What a bug prints passes them too."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    out, err = Net(sys.stdout), Net(sys.stderr)
    sys.stdout, sys.stderr = out, err
    return out, err
