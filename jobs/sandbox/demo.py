"""`make demo`: the job on the example list against the local sandbox, the rerun, and a night on which Reconnect is removed.

The third run's list is what the first two left behind: its pairs are old ones by then.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.sandbox.server import running
from jobs.sandbox.world import load_world

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs.sandbox.world import World

PROJECT = Path(__file__).resolve().parent.parent.parent


def main() -> int:
    """Run the job three times and show it. Returns 0 where all runs did what a rehearsal should."""
    world = load_world(PROJECT / "data" / "sandbox.example.json")
    first, second = (tempfile.mkdtemp(prefix="recover-demo-") for _ in range(2))  # They stay, to be looked at.
    run = ["data/installs.example.csv", "--output", first]
    codes = _play(world, {"The first run": run, "The rerun: what is recovered is left alone": run})
    routes = ["--routes", "reconnect,agency,refresh"]
    later = {
        "A later night, Reconnect is removed: results.csv is the list, its pairs are the old ones": [
            f"{first}/results.csv", "--output", second, *routes
        ]
    }  # fmt: skip
    codes += _play(replace(world, reconnect_removed=True), later)
    sys.stdout.write(f"\nNothing real was touched. Look at {first}/failures.html and results.csv beside it,\n")
    sys.stdout.write(f"and at the column route in {second}/results.csv.\n")
    return 0 if codes == [1, 1, 1] else 1


def _play(world: World, runs: Mapping[str, list[str]]) -> list[int]:
    """Run the job with these arguments against a sandbox of this world. Returns the exit codes."""
    client_id, secret = next(iter(world.clients.items()))
    codes = []
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
        for title, arguments in runs.items():
            sys.stdout.write(f"\n=== {title} ===\n")
            sys.stdout.flush()
            command = [sys.executable, "-m", "jobs", "run", *arguments]
            codes.append(subprocess.run(command, cwd=PROJECT, env=environment, check=False).returncode)  # noqa: S603
    return codes


if __name__ == "__main__":
    sys.exit(main())
