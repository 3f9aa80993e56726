"""`make demo`: the job on the example list against the local sandbox, then the rerun, which touches only what failed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from jobs.sandbox.server import running
from jobs.sandbox.world import load_world

PROJECT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the job twice and show it. Returns 0 where both runs did what a rehearsal should."""
    world = load_world(PROJECT / "data" / "sandbox.example.json")
    client_id, secret = next(iter(world.clients.items()))
    codes = []
    folder = tempfile.mkdtemp(prefix="recover-demo-")  # It stays, to be looked at.
    with running(world) as sandbox:
        environment = os.environ | {
            "HIGHLEVEL_BASE_URL": sandbox.url,
            "HIGHLEVEL_CLIENT_ID": client_id,
            "HIGHLEVEL_CLIENT_SECRET": secret,
            "RECOVERY_RETRY__ATTEMPTS": "2",
            "RECOVERY_RETRY__MAX_WAIT_SECONDS": "2",
            # The user's own project may tell people of its runs, and of a rehearsal it must not.
            "RECOVERY_NOTIFY__URL": "",
            "RECOVERY_NOTIFY__COMMAND": "",
        }
        command = [sys.executable, "-m", "jobs", "run", "data/installs.example.csv", "--output", folder]
        for title in ("The first run", "The rerun: what is recovered is left alone"):
            sys.stdout.write(f"\n=== {title} ===\n")
            sys.stdout.flush()
            codes.append(subprocess.run(command, cwd=PROJECT, env=environment, check=False).returncode)  # noqa: S603
    sys.stdout.write(f"\nNothing real was touched. Look at {folder}/failures.html and results.csv beside it.\n")
    return 0 if codes == [1, 1] else 1


if __name__ == "__main__":
    sys.exit(main())
