"""A job in a folder of its own, run as a user runs it, against a sandbox over real sockets."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.world import World

PROJECT = Path(__file__).resolve().parent.parent
CLIENT_ID = "66c8a1b2c3d4e5f6a7b8c9d0-m0testing"
SECRET = "canary-client-secret/with+signs"
KEPT = ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG")
FAST = {
    "RECOVERY_PACE__REQUESTS_PER_SECOND": "500",
    "RECOVERY_RETRY__MIN_WAIT_SECONDS": "0",
    "RECOVERY_RETRY__MAX_WAIT_SECONDS": "0.05",
}


@dataclass
class Job:
    """Runs of the job on one output folder."""

    folder: Path
    sandbox: Sandbox
    environment: dict[str, str] = field(default_factory=dict)
    project: Path = PROJECT
    command: tuple[object, ...] = (sys.executable, "-m", "jobs")

    @property
    def output(self):
        return self.folder / "out"

    def manifest(self, text: str | bytes, name: str = "installs.csv") -> Path:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*map(str, (*self.command, *arguments))],
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def run(self, manifest: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        return self("run", manifest, "--output", self.output, *arguments)

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.output / name).open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))

    def results(self) -> dict[str, dict[str, str]]:
        return {row["location_id"] or row["company_id"]: row for row in self.table("results.csv")}

    def failures(self) -> dict[str, dict[str, str]]:
        return {row["location_id"] or row["company_id"]: row for row in self.table("failures.csv")}

    def summary(self) -> dict[str, object]:
        return json.loads((self.output / "summary.json").read_text())


@pytest.fixture
def play(tmp_path):
    """`play(installs={...}, **world)` gives a job against a sandbox that plays this world."""
    with ExitStack() as stack:

        def start(installs=None, default="recovered", clients=None, **more) -> Job:
            world = World(clients or {CLIENT_ID: SECRET}, installs or {}, default, **more)
            sandbox = stack.enter_context(running(world))
            kept = {name: os.environ[name] for name in KEPT if name in os.environ}
            environment = (
                kept
                | FAST
                | {
                    "HIGHLEVEL_BASE_URL": sandbox.url,
                    "HIGHLEVEL_CLIENT_ID": CLIENT_ID,
                    "HIGHLEVEL_CLIENT_SECRET": SECRET,
                    "XDG_STATE_HOME": str(tmp_path / "state"),
                }
            )
            return Job(tmp_path, sandbox, environment)

        yield start


@dataclass
class Stage:
    """Runs of a job that cost little (see `stage.py`), and that are killed where asked: at the n-th time of a moment,
    or some seconds after it."""

    job: Job
    process: subprocess.Popen[str]
    owed: int = 0

    def start(self, *arguments, kill_at=("", 0), kill_after=0.0, **more):
        task = {
            "arguments": [str(argument) for argument in arguments],
            "environment": self.job.environment,
            "out": str(self.job.folder / "said"),
            "kill_at": kill_at,
            "kill_after": kill_after,
            **more,
        }
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        self.owed += 1

    def end(self):
        self.owed -= 1
        return json.loads(self.process.stdout.readline())

    def run(self, manifest, output, *arguments, **more):
        self.start("run", manifest, "--output", output, "--workers", 3, *arguments, **more)
        return self.end()

    def said(self):
        """All that was said since the last time."""
        file = self.job.folder / "said"
        text = file.read_text(errors="replace") if file.exists() else ""
        file.unlink(missing_ok=True)
        return text


@pytest.fixture
def behaviours():
    return {}


@pytest.fixture(scope="session")
def stage_process():
    with subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.stage"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def stage(play, behaviours, stage_process):
    made = Stage(play(behaviours), stage_process)
    yield made
    while made.owed:
        made.end()


def wait_until(condition, seconds=20):
    """Come back when it has happened."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def pairs(output):
    """The refresh tokens that the ledger holds, by account: as SQLite reads them from what a run left."""
    if not (output / "ledger.sqlite3").exists():
        return {}
    with closing(sqlite3.connect(output / "ledger.sqlite3")) as connection:
        if not connection.execute("select 1 from sqlite_master where name = 'installs'").fetchone():
            return {}
        rows = connection.execute("select account_id, tokens from installs where tokens is not null").fetchall()
    return {account: json.loads(tokens)["refresh_token"] for account, tokens in rows}
