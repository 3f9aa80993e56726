"""Waits for what another program holds. After a moment it says who holds it, and after a while it gives up."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_LOOK_SECONDS = 0.05
LOCKS = Path("/proc/locks")


@dataclass(slots=True)
class Patience:
    """How many seconds to wait for something, and after how many seconds to say so. `gives_up` ends the wait early."""

    seconds: float
    notice: float
    say: Callable[[str], None]
    gives_up: Callable[[], bool] = lambda: False
    look: float = _LOOK_SECONDS
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def wait(self, free: Callable[[], bool], words: Callable[[], str]) -> bool:
        """Whether `free` became true in time. `words` say what the job waits for."""
        began, said = self.clock(), False
        while not free():
            waited = self.clock() - began
            if waited >= self.seconds or self.gives_up():
                return False
            if waited >= self.notice and not said:
                said = True
                self.say(words())
            self.sleep(self.look)
        return True


def this_process() -> str:
    """The name of this process, for others who find its lock."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def who_holds(*files: Path) -> str:
    """The processes that hold an exclusive lock on one of these files, or "another program" if the system does not tell.

    It does not open the files: a process that closes a file loses all of its locks on it, also those of SQLite.
    """
    named = [_named(pid) for pid in holders(files)]
    return " and ".join(named) or "another program"


def holders(files: Iterable[Path]) -> list[int]:
    """The ids of other processes on this machine that hold an exclusive lock on one of these files."""
    inodes = set(_inodes(files))
    found = (_of_line(line, inodes) for line in _lines(LOCKS))
    return sorted({pid for pid in found if pid > 0 and pid != os.getpid()})


def _of_line(line: str, inodes: set[str]) -> int:
    """The process in a line like `1: POSIX ADVISORY WRITE 8420 fe:00:2146362 120 120`, or 0 if it locks another file."""
    words = line.split()
    if len(words) < 6 or words[3] != "WRITE" or words[5].rpartition(":")[2] not in inodes:  # noqa: PLR2004
        return 0
    return int(words[4])


def _inodes(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        try:
            yield str(file.stat().st_ino)
        except OSError:
            continue


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _named(pid: int) -> str:
    name = "".join(_lines(Path(f"/proc/{pid}/comm"))).strip()
    return f"{name} (process {pid})" if name else f"process {pid}"
