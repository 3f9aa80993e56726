"""A job in a folder of its own, run as a user runs it, against a sandbox over real sockets."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.world import World

PROJECT = Path(__file__).resolve().parent.parent
CLIENT_ID = "66c8a1b2c3d4e5f6a7b8c9d0-m0testing"
SECRET = "canary-client-secret/with+signs"
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

    @property
    def output(self):
        return self.folder / "out"

    def manifest(self, text: str | bytes, name: str = "installs.csv") -> Path:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "jobs", *map(str, arguments)],
            cwd=PROJECT,
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

        def start(installs=None, default="recovered", **more) -> Job:
            world = World({CLIENT_ID: SECRET}, installs or {}, default, **more)
            sandbox = stack.enter_context(running(world))
            kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
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
