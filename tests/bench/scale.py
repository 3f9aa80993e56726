"""What a long list costs: `python -m tests.bench.scale 1000000`. Nothing is sent; the ledger is filled by SQL instead.

Each command is run by itself: its wall clock, its CPU time, its peak memory.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from tests.bench import measure
from tests.bench.contenders import Load, environment
from tests.bench.stand_in import ACCESS_CHARACTERS, REFRESH_CHARACTERS

_PAIR = {
    "access_token": "a" * ACCESS_CHARACTERS,
    "refresh_token": "r" * REFRESH_CHARACTERS,
    "token_type": "Bearer",
    "expires_at": "2026-11-25T10:00:00Z",
    "scope": "contacts.readonly",
    "user_type": "Location",
    "user_id": "BenchUser00000000001",
    "company_id": "BenchCompany00000001",
    "location_id": "Loc00000000000000000",
    "trace_id": "trace-1",
}
_MOMENT = "2026-11-24T10:00:00.000Z"


def main(installs: int) -> int:
    """Measure every command that sends nothing, on a list of so many installs."""
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        listed, output = measure.manifest(folder, installs), folder / "out"
        into = ["--output", str(output)]
        told("plan, all new", folder, "plan", str(listed), *into)
        told("enrolment and reports", folder, "run", str(listed), *into, "--max-duration", "0s")
        fill(output / "ledger.sqlite3", status="failed", cause="not_installed", stage="reconnect", http_status=400)
        told("reports, all failed", folder, "report", str(output))
        fill(output / "ledger.sqlite3", status="recovered", cause=None, tokens=json.dumps(_PAIR), recovered_at=_MOMENT)
        (output / "results.csv").unlink()  # Its pairs are not those of the ledger's marks.
        told("reports, all recovered", folder, "report", str(output))
        (output / "results.csv").unlink()
        told("plan, all recovered", folder, "plan", str(listed), *into)
        told("rerun, nothing to do", folder, "run", str(listed), *into)
    return 0


def told(title: str, folder: Path, *arguments: str) -> None:
    """Run one command, and say what it took."""
    command = [str(Path(sys.executable).with_name("recover")), *arguments]
    with (folder / "said.txt").open("wb") as said:
        began = time.monotonic()
        known = environment("http://127.0.0.1:9", folder, Load(10, 1))
        process = subprocess.Popen(command, env=known, cwd=folder, stdout=said, stderr=said)
        used = measure.finish(process, began)
    line = f"{title}: {used.wall:.1f} s, {used.cpu:.1f} s of CPU, {used.peak:.0f} MB, exit {process.returncode}"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def fill(ledger: Path, **values: object) -> None:
    """Give every install this outcome."""
    columns = ", ".join(f"{name} = :{name}" for name in values)
    with closing(sqlite3.connect(ledger)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"UPDATE installs SET attempts = 1, last_tried_at = '{_MOMENT}', {columns}", values)


if __name__ == "__main__":
    sys.exit(measure.in_use() or main(int(sys.argv[1])))
