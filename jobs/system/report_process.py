"""The reports of a run that a signal ends: rendered by another process, which can be ended too.

At the first signal one renders what stands while what is in flight goes on, since nobody may wait for the end of that.
At a second one it takes the place of the run itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.core.errors import Exit

_CODE = Path(__file__).resolve().parent.parent.parent
_END_SECONDS = 2.0


@dataclass(slots=True)
class ReportBeside:
    """`recover report` on `folder`, beside the run."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Begin it, once; where the system has no room for it, the run's own reports at its end have to do."""
        if self.process is not None:
            return
        words, environment = _job("report", "--", os.fspath(self.folder))
        quiet, alone = subprocess.DEVNULL, True  # What the keyboard sends is for the run.
        with suppress(OSError):
            self.process = subprocess.Popen(  # noqa: S603 - the job itself
                words, env=environment, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=alone
            )

    def end(self) -> None:
        """End it, where it has not ended: the reports that come now know more."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def leave_reports(folder: Path, code: Exit, command: str) -> None:
    """End all that this process does, as `kill -9` would, and let `recover report` go on in its place and exit with `code`.

    `command` is what to run next, for whoever is told of the end. It returns only where the system has no room for that.
    An impatient third signal is ignored until the other is there.
    """
    words, environment = _job("report", "--cut-short", str(int(code)), "--then", command, "--", os.fspath(folder))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.execve(sys.executable, words, environment)  # noqa: S606 - no shell is the point


def _job(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """The words and the environment of another process of the job."""
    # What lies in the folder where the run was started is no part of this: hence -P, and no empty place.
    places = [str(_CODE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    return [sys.executable, "-P", "-m", "jobs", *arguments], environment
