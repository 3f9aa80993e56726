"""A job in a folder of its own, run as a user runs it, and what it left."""

from __future__ import annotations

import csv
import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.helpers.waiting import wait_until

if TYPE_CHECKING:
    from jobs.sandbox.server import Sandbox
    from tests.helpers.fork_server import Forked, ForkServer

PROJECT = Path(__file__).resolve().parent.parent.parent
CLIENT_ID = "66c8a1b2c3d4e5f6a7b8c9d0-m0testing"
SECRET = "canary-client-secret/with+signs"
_TOKEN = re.compile(rb"eyJ[\w-]+\.[\w-]+\.[\w-]+")
KEPT = {name: os.environ[name] for name in ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG") if name in os.environ}
FAST = {
    "RECOVERY_PACE__REQUESTS_PER_SECOND": "500",
    "RECOVERY_RETRY__MIN_WAIT_SECONDS": "0",
    "RECOVERY_RETRY__MAX_WAIT_SECONDS": "0.05",
}


@dataclass
class Job:
    """Runs of the job on one output folder. A run is a fork of a process that has loaded everything; `alone` and
    `process` are processes of their own, for tests of the process itself. `tokens` are all that the sandbox gave out."""

    folder: Path
    sandbox: Sandbox
    forks: ForkServer
    environment: dict[str, str] = field(default_factory=dict)
    project: Path = PROJECT
    command: tuple[object, ...] = ()
    tokens: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sandbox.hear = self._hear

    def _hear(self, body: bytes) -> None:
        self.tokens += [token.decode() for token in _TOKEN.findall(body)]

    @property
    def output(self):
        return self.folder / "out"

    def manifest(self, text: str | bytes, name: str = "installs.csv") -> Path:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def process(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*map(str, (*(self.command or (sys.executable, "-m", "jobs")), *arguments))],
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def alone(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run it in a process of its own, to its end."""
        process = self.process(*arguments)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def start(self, *arguments: object, **more: object) -> Forked:
        return self.forks.piped(arguments, self.environment, **more)

    def start_on(self, stream: int, *arguments: object, **more: object) -> Forked:
        """It writes to this stream alone."""
        return self.forks.start(arguments, self.environment, stream, stream, **more)

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        if self.command or self.project != PROJECT:
            return self.alone(*arguments)
        return self.forks.run(arguments, self.environment)

    def run(self, manifest: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        return self("run", manifest, "--output", self.output, *arguments)

    def calls(self, call: str) -> list[str]:
        """The accounts for which a call was answered, in the order of time."""
        return [seen.account_id for seen in self.sandbox.seen if seen.call == call]

    def issued(self) -> dict[str, str]:
        """The newest refresh token of each account, as the sandbox issued them."""
        return dict(self.sandbox.codes.issued)

    def arrived(self) -> int:
        """How many requests have arrived; an answer may still be on its way."""
        return sum(self.sandbox.tries.values()) + len(self.sandbox.codes.sent)

    def slow_down(self, seconds: float) -> None:
        """From now on each answer takes so long; come back when one is on its way."""
        self.sandbox.world = replace(self.sandbox.world, latency_seconds=seconds)
        before = self.arrived()
        wait_until(lambda: self.arrived() > before)

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.output / name).open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))

    def results(self) -> dict[str, dict[str, str]]:
        return {row["location_id"] or row["company_id"]: row for row in self.table("results.csv")}

    def failures(self) -> dict[str, dict[str, str]]:
        return {row["location_id"] or row["company_id"]: row for row in self.table("failures.csv")}

    def summary(self) -> dict[str, object]:
        return json.loads((self.output / "summary.json").read_text())


_PROGRAM = """
import json, pathlib, sys
kept = pathlib.Path(sys.argv[1]).open("a")
for line in sys.stdin:
    pair = json.loads(line)
    kept.write(line)
    kept.flush()
    print(f"stored {pair['refresh_token']}", file=sys.stderr, flush=True)
    print(json.dumps({"pair_id": pair["pair_id"]}), flush=True)
"""


def deliver_to_a_command(job: Job) -> Path:
    """Let pairs go to a command that talks too much. Returns the file of the lines that it has stored."""
    program, kept = job.folder / "program.py", job.folder / "kept"
    program.write_text(_PROGRAM)
    job.environment["RECOVERY_DELIVER__COMMAND"] = json.dumps([sys.executable, str(program), str(kept)])
    return kept


@dataclass
class Stage:
    """Runs that are killed where asked: at the n-th time of a moment (see `fork_server`), or some seconds after it."""

    job: Job
    owed: list[Forked] = field(default_factory=list)

    def start(self, *arguments, kill_at=("", 0), kill_after=0.0, **more):
        moments = {"kill_at": kill_at, "kill_after": kill_after}
        with (self.job.folder / "said").open("ab") as said:
            task = {"moments": moments, **more}
            self.owed.append(self.job.start_on(said.fileno(), *arguments, **task))

    def end(self):
        """The exit code (below 0: minus the signal), and how often each moment was met."""
        run = self.owed.pop(0)
        return {"code": run.wait(), "moments": run.moments}

    def run(self, manifest, output, *arguments, **more):
        self.start("run", manifest, "--output", output, "--workers", 3, *arguments, **more)
        return self.end()

    def heard(self):
        """All that was said so far."""
        file = self.job.folder / "said"
        return file.read_text(errors="replace") if file.exists() else ""

    def said(self):
        """All that was said since the last time."""
        text = self.heard()
        (self.job.folder / "said").unlink(missing_ok=True)
        return text


def pairs(output):
    """The refresh tokens that the ledger holds, by account: as SQLite reads them from what a run left."""
    if not (output / "ledger.sqlite3").exists():
        return {}
    with closing(sqlite3.connect(output / "ledger.sqlite3")) as connection:
        if not connection.execute("select 1 from sqlite_master where name = 'installs'").fetchone():
            return {}
        rows = connection.execute("select account_id, tokens from installs where tokens is not null").fetchall()
    return {account: json.loads(tokens)["refresh_token"] for account, tokens in rows}
