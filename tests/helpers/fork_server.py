"""Runs of the job that cost little: everything is imported once, then each run is a fork (see `stage`)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.helpers.job import KEPT, PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import IO

_SECONDS = 60


@dataclass(frozen=True)
class ForkServer:
    """Starts runs, also several at once: a task and three descriptors go out, and what came of it comes back."""

    control: socket.socket

    def start(
        self,
        arguments: Sequence[object],
        environment: Mapping[str, str],
        out: IO[bytes],
        err: IO[bytes],
        **more: object,
    ) -> int:
        """A descriptor from which `end` reads how the run ended. It writes to `out` and `err`."""
        task = {"arguments": [*map(str, arguments)], "environment": environment, "umask": _umask(), **more}
        back, answer = os.pipe()
        try:
            socket.send_fds(self.control, [json.dumps(task).encode()], [out.fileno(), err.fileno(), answer])
        finally:
            os.close(answer)
        return back

    def end(self, back: int) -> dict[str, object]:
        """The exit code (below 0: minus the signal), and how often each moment was met."""
        with os.fdopen(back) as answer:
            *seen, code = map(json.loads, answer)
        return {"code": code, "moments": seen[0] if seen else {}}

    def run(self, arguments: Sequence[object], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """What a run said and how it ended. Its standard output and error are pipes."""
        ends = [os.pipe(), os.pipe()]
        readers = [_Reader(read) for read, _ in ends]
        out, err = (os.fdopen(write, "wb") for _, write in ends)
        with out, err:
            back = self.start(arguments, environment, out, err)
        said = [reader.text() for reader in readers]
        return subprocess.CompletedProcess(arguments, self.end(back)["code"], *said)


class _Reader(threading.Thread):
    """Reads a pipe to its end, so that whoever writes into it need not wait."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self._text = ""
        self.start()

    def run(self) -> None:
        with os.fdopen(self._descriptor, encoding="utf-8") as pipe:
            self._text = pipe.read()

    def text(self) -> str:
        self.join(_SECONDS)
        assert not self.is_alive(), "the run did not end in time"
        return self._text


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def fork_server() -> Iterator[ForkServer]:
    """One for the block."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        command = [sys.executable, "-m", "tests.helpers.stage", str(theirs.fileno())]
        with subprocess.Popen(
            command, cwd=PROJECT, env=KEPT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
        ) as process:
            theirs.close()
            yield ForkServer(ours)
            ours.close()
            process.wait(_SECONDS)
