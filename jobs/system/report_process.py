"""The reports of a run that a signal ends. A separate process renders them, and it can be ended too.

At the first signal, the process renders what is known so far while the requests in flight go on, because nobody may wait
for their end. At the second signal, the process replaces the run itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.core.errors import Exit
    from jobs.core.model import Run

_CODE = Path(__file__).resolve().parent.parent.parent
_END_SECONDS = 2.0


@dataclass(slots=True)
class ReportBeside:
    """`recover report` on `folder`, in a process beside the run."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Begin it once. If the system cannot start it, the run's own reports at the end must do."""
        if self.process is not None:
            return
        words, environment = _job("report", "--", os.fspath(self.folder))
        quiet, alone = subprocess.DEVNULL, True  # Keys such as Ctrl-C are for the run.
        with suppress(OSError):
            self.process = subprocess.Popen(  # noqa: S603 - the job itself
                words, env=environment, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=alone
            )

    def end(self) -> None:
        """End it if it has not ended. The reports that come now know more."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def leave_reports(folder: Path, code: Exit, command: str, run: Run, lease: str) -> None:
    """End this process as `kill -9` would, and replace it by `recover report`, which exits with `code`.

    `command` is what to run next, for the message about the end. The `run` knows how many requests were made, which the
    ledger does not. The other process gives the run's `lease` back ('': it has none). This returns only if the system cannot
    start it.
    """
    counted = ("--requests", str(run.this_run.requests), "--rate-limited", str(run.rate_limited))
    cut_short = ("--cut-short", str(int(code)), "--run-id", run.run_id, *counted, "--then", command, "--lease", lease)
    words, environment = _job("report", *cut_short, "--", os.fspath(folder))
    with suppress(OSError):
        os.execve(sys.executable, words, environment)  # noqa: S606 - no shell is the point


def _job(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """The words and the environment of another process of the job."""
    # Files in the working directory must not become modules of the job: hence -P, and no empty entry in the path.
    places = [str(_CODE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    return [sys.executable, "-P", "-m", "jobs", *arguments], environment
