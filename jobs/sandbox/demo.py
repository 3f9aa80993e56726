"""`make demo`: runs the job on the example list against a local sandbox, runs it again, and then without Reconnect.

The list of the third run is the result of the first two. Its pairs are old ones by then.
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
    """0 if all three runs ended as they should. Runs the job three times and shows it."""
    world = load_world(PROJECT / "data" / "sandbox.example.json")
    first, second = (
        tempfile.mkdtemp(prefix="recover-demo-") for _ in range(2)
    )  # They stay, so that the user can look at them.
    run = ["data/installs.example.csv", "--output", first]
    codes = _play(world, {"The first run": run, "The same run again: it leaves recovered installs alone": run})
    routes = ["--routes", "reconnect,agency,refresh"]
    later = {
        "A later night without Reconnect: the list is results.csv, and its pairs are the old ones": [
            f"{first}/results.csv", "--output", second, *routes
        ]
    }  # fmt: skip
    codes += _play(replace(world, reconnect_removed=True), later)
    sys.stdout.write(f"\nNothing real was touched. Look at {first}/failures.html and results.csv beside it,\n")
    sys.stdout.write(f"and at the column route in {second}/results.csv.\n")
    return 0 if codes == [1, 1, 1] else 1


def _play(world: World, runs: Mapping[str, list[str]]) -> list[int]:
    """The exit codes of runs with these arguments against a sandbox of this world."""
    client_id, secret = next(iter(world.clients.items()))
    codes = []
    with running(world) as sandbox:
        environment = os.environ | {
            "HIGHLEVEL_BASE_URL": sandbox.url,
            "HIGHLEVEL_CLIENT_ID": client_id,
            "HIGHLEVEL_CLIENT_SECRET": secret,
            "RECOVERY_RETRY__ATTEMPTS": "2",
            "RECOVERY_RETRY__MAX_WAIT_SECONDS": "2",
            # The user's project may notify people of its runs, but it must not notify them of a rehearsal.
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
