"""A run that a second signal ends at once: a process takes its place that only renders what the ledger holds."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.errors import Exit

_CODE = Path(__file__).resolve().parent.parent


def leave_reports(folder: Path, code: Exit) -> None:
    """End all that this process does, as `kill -9` would, and let `recover report` go on in its place and exit with `code`.

    It returns only where the system has no room for that. An impatient third Ctrl-C is ignored until the other is there.
    """
    # What lies in the folder where the run was started is no part of this: hence -P, and no empty place.
    places = [str(_CODE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    options = ["report", "--cut-short", str(int(code)), "--", os.fspath(folder)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        os.execve(sys.executable, [sys.executable, "-P", "-m", "jobs", *options], environment)  # noqa: S606 - no shell is the point
    except OSError:
        return
