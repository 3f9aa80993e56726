"""`make demo`: runs the job on the example list against a local sandbox, runs it again, and then without Reconnect.

The list of the third run is the result of the first two. Its pairs are old ones by then. The fourth run hands its pairs
over to a store that is down at first and refuses one. Then the waiting pairs are delivered, and the delivered ones purged.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.sandbox.alone import ALONE
from jobs.sandbox.receiver import Answer, Receiver, new_secret, receiving
from jobs.sandbox.server import running
from jobs.sandbox.world import load_world

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs.sandbox.world import World

_REFUSED = "LocHarborDental00001"
PROJECT = Path(__file__).resolve().parent.parent.parent


def main() -> int:
    """0 if all commands ended as they should. Plays them, and shows what they say."""
    world = load_world(PROJECT / "data" / "sandbox.example.json")
    first, second = (
        tempfile.mkdtemp(prefix="recover-demo-") for _ in range(2)
    )  # They stay, so that the user can look at them.
    run = ["run", "data/installs.example.csv", "--output", first]
    codes = play(world, {"The first run": run, "The same run again: it leaves recovered installs alone": run})
    routes = ["--routes", "reconnect,agency,refresh"]
    later = {
        "A later night without Reconnect: the list is results.csv, and its pairs are the old ones": [
            "run", f"{first}/results.csv", "--output", second, *routes
        ]
    }  # fmt: skip
    codes += play(replace(world, reconnect_removed=True), later)
    codes += _hand_over(world)
    sys.stdout.write(f"\nNothing real was touched. Look at {first}/failures.html and results.csv beside it,\n")
    sys.stdout.write(f"and at the column route in {second}/results.csv.\n")
    return 0 if codes == [1, 1, 1, 1, 1, 0] else 1


def _hand_over(world: World) -> list[int]:
    """A run that delivers, `recover deliver`, and `recover purge`. Returns their exit codes."""
    folder = tempfile.mkdtemp(prefix="recover-demo-")
    down = deque[Answer]([503] * 2)
    store = Receiver(new_secret(), refuses=frozenset({_REFUSED}), answers=down)
    commands = {
        "Each new pair goes to a store, which is down at first and refuses one": [
            "run", "data/installs.example.csv", "--output", folder
        ],
        "What waited is delivered": ["deliver", folder],
        "What was delivered is purged": ["purge", folder],
    }  # fmt: skip
    with receiving(store, Path(folder) / "your-app.sqlite3"):
        patient = {"RECOVERY_DELIVER__ATTEMPTS": "1", "RECOVERY_DELIVER__GIVE_UP_AFTER": "2"}
        target = {"RECOVERY_DELIVER__URL": store.url, "RECOVERY_DELIVER__SECRET": store.secret}
        codes = play(world, commands, target | patient)
        sys.stdout.write(f"\nThe store holds {len(store.stored())} pairs; it refused the one of {_REFUSED}.\n")
    return codes


def play(world: World, runs: Mapping[str, list[str]], more: Mapping[str, str] | None = None) -> list[int]:
    """The exit codes of commands with these arguments, run against a sandbox of this world. `more` are variables."""
    client_id, secret = next(iter(world.clients.items()))
    codes = []
    with running(world) as sandbox:
        environment = os.environ | {
            "HIGHLEVEL_BASE_URL": sandbox.url,
            "HIGHLEVEL_CLIENT_ID": client_id,
            "HIGHLEVEL_CLIENT_SECRET": secret,
            "RECOVERY_RETRY__ATTEMPTS": "2",
            "RECOVERY_RETRY__MAX_WAIT_SECONDS": "2",
            **ALONE,
            **(more or {}),
        }
        for title, arguments in runs.items():
            sys.stdout.write(f"\n=== {title} ===\n")
            sys.stdout.flush()
            command = [sys.executable, "-m", "jobs", *arguments]
            codes.append(subprocess.run(command, cwd=PROJECT, env=environment, check=False).returncode)  # noqa: S603
    return codes


if __name__ == "__main__":
    sys.exit(main())
