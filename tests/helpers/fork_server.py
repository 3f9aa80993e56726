"""Runs of the job that cost little: everything is imported once, then each run is a fork (see `stage`)."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
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
        self, arguments: Sequence[object], environment: Mapping[str, str], out: int, err: int, **more: object
    ) -> Forked:
        """The run, which writes to these two descriptors."""
        task = {"arguments": [*map(str, arguments)], "environment": environment, "umask": _umask(), **more}
        back, answer = os.pipe()
        try:
            socket.send_fds(self.control, [json.dumps(task).encode()], [out, err, answer])
        finally:
            os.close(answer)
        return Forked(arguments, back)

    def piped(self, arguments: Sequence[object], environment: Mapping[str, str], **more: object) -> Forked:
        """The run. Its standard output and error are pipes."""
        ends = [os.pipe(), os.pipe()]
        (out, to_out), (err, to_err) = ends
        try:
            forked = self.start(arguments, environment, to_out, to_err, **more)
        finally:
            os.close(to_out)
            os.close(to_err)
        forked.stdout, forked.stderr = (os.fdopen(end, encoding="utf-8") for end in (out, err))
        return forked

    def run(self, arguments: Sequence[object], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """What a run said and how it ended."""
        forked = self.piped(arguments, environment)
        out, err = forked.communicate(_SECONDS)
        return subprocess.CompletedProcess(arguments, forked.returncode, out, err)


class Forked:
    """A run under way. It is used as a `subprocess.Popen` is."""

    stdout: IO[str] | None = None
    stderr: IO[str] | None = None

    def __init__(self, arguments: Sequence[object], back: int) -> None:
        self._arguments = arguments
        self._back = os.fdopen(back)
        self.pid = int(self._back.readline())
        self.returncode: int | None = None
        self.moments: dict[str, int] = {}

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """The exit code (below 0: minus the signal); None while it runs."""
        if self.returncode is None and select.select([self._back], [], [], 0)[0]:
            return self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended."""
        if self.returncode is None:
            if not select.select([self._back], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired([*map(str, self._arguments)], timeout or 0)
            with self._back:
                *seen, code = map(json.loads, self._back)
            self.moments = seen[0] if seen else {}
            self.returncode = int(code)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it says from now on, up to its end."""
        readers = [_Reader(pipe) for pipe in (self.stdout, self.stderr) if pipe]
        self.wait(timeout)
        out, err = (reader.text() for reader in readers)
        return out, err


class _Reader(threading.Thread):
    """Reads a pipe to its end, so that whoever writes into it need not wait."""

    def __init__(self, pipe: IO[str]) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._text = ""
        self.start()

    def run(self) -> None:
        with self._pipe:
            self._text = self._pipe.read()

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
        # It measures runs by itself: what coverage does at each fork would take longer than most runs.
        unmeasured = dict(KEPT)
        coverage = filter(None, [unmeasured.pop("COVERAGE_PROCESS_CONFIG", "")])
        command = [sys.executable, "-m", "tests.helpers.stage", str(theirs.fileno()), *coverage]
        with subprocess.Popen(
            command, cwd=PROJECT, env=unmeasured, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
        ) as process:
            theirs.close()
            yield ForkServer(ours)
            ours.close()
            process.wait(_SECONDS)
