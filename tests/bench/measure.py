"""One run of one contender, measured: its wall clock, the CPU time of all its processes, its peak memory, and what the
stand-in saw of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from urllib.request import urlopen

from tests.bench.contenders import PROJECT, environment
from tests.bench.stand_in import ACCESS_CHARACTERS, Play

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bench.contenders import Contender, Load

_PATIENCE_SECONDS = 600


@dataclass(frozen=True)
class Seen:
    """What the stand-in saw: the moments of the requests, how many it refused, the pairs of each account."""

    at: list[float]
    refused: int
    pairs: dict[str, list[str]]


@dataclass(frozen=True)
class Used:
    """What a run took: seconds, seconds of CPU, MB."""

    wall: float
    cpu: float
    peak: float


def in_use() -> int:
    """The exit code if nothing may be tested in this project, and why is said. 0 if it may.

    It is found out in a process of its own: a process that is started counts what its starter holds into its own peak.
    """
    return subprocess.run([sys.executable, "-m", "tests.helpers.in_use"], cwd=PROJECT, check=False).returncode


@contextmanager
def stand_in(play: Play) -> Iterator[str]:
    """A stand-in API in a process of its own; gives its address."""
    arguments = [sys.executable, "-m", "tests.bench.stand_in", json.dumps(asdict(play))]
    with subprocess.Popen(arguments, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def seen(base_url: str) -> Seen:
    """What it saw so far."""
    with urlopen(f"{base_url}/seen", timeout=10) as answer:
        return Seen(**json.load(answer))


def manifest(folder: Path, installs: int) -> Path:
    """A list of so many installs."""
    path = folder / "installs.csv"
    lines = ["location_id,name", *(f"Loc{number:017d},Customer {number}" for number in range(installs))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def start(contender: Contender, base_url: str, installs: Path, folder: Path, load: Load) -> subprocess.Popen[bytes]:
    """A contender, started in a group of its own; what it says goes to a file."""
    with (folder / "said.txt").open("ab") as said:
        return subprocess.Popen(
            contender.command(installs, folder, load),
            env=environment(base_url, folder, load) | contender.settings,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def finish(process: subprocess.Popen[bytes], began: float) -> Used:
    """Wait for the end of a run. The usage is that of the process and of all that it waited for."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Used(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def run(contender: Contender, base_url: str, installs: Path, folder: Path, load: Load) -> Used:
    """A whole run."""
    began = time.monotonic()
    return finish(start(contender, base_url, installs, folder, load), began)


def killed(contender: Contender, base_url: str, installs: Path, folder: Path, load: Load, after: int) -> None:
    """A run that is killed, with all its processes, once so many pairs were handed out."""
    process = start(contender, base_url, installs, folder, load)
    until = time.monotonic() + _PATIENCE_SECONDS
    while len(seen(base_url).pairs) < after and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def window(at: list[float], seconds: float) -> int:
    """The most requests that any stretch of so many seconds held."""
    moments, first, most = sorted(at), 0, 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def lost(pairs: dict[str, str], told: Seen) -> int:
    """Accounts whose newest pair the contender does not hold, though it was handed out: their app is cut off now."""
    whole = {account: token for account, token in pairs.items() if len(token) == ACCESS_CHARACTERS}
    return sum(not whole.get(account, "").startswith(marks[-1]) for account, marks in told.pairs.items())


def twice(told: Seen) -> int:
    """Accounts that were given more than one pair: each may end the one before."""
    return sum(count > 1 for count in Counter({a: len(marks) for a, marks in told.pairs.items()}).values())
