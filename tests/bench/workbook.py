"""failures.xlsx of 5,000 failures, beside what pandas and openpyxl take to make such a workbook of failures.csv.

This job's time is what `recover report` takes longer with the workbook than without it. Its memory is that of the whole
command, with every report.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import measure
from tests.bench.contenders import OURS, PROJECT, Load, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.measure import Used
    from tests.bench.scenarios import Figures

PANDAS = "pandas and openpyxl"
CPU, PEAK = "failures.xlsx: CPU s", "failures.xlsx: peak MB"
_COLUMNS = ("name", "email", "plan", "city", "phone", "since", "manager", "note")
_CELLS = ("gold", "Springfield", "+1 555 0100", "2024-02-29", "Sam", "has called twice, and wants an answer by email")


def play_workbook(failures: int = 5_000) -> Iterator[tuple[str, Figures]]:
    """One round: the figures of both."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        output = folder / "out"
        _run(folder, "tests.bench.workbook", output, failures)
        without = _run(folder, "jobs", "report", output, workbook="false")
        ours = _run(folder, "jobs", "report", output, workbook="true")
        pandas = _run(folder, "tests.bench.to_excel", output / "failures.csv", folder / "by-pandas.xlsx")
    yield OURS, {CPU: ours.cpu - without.cpu, PEAK: ours.peak}
    yield PANDAS, {CPU: pandas.cpu, PEAK: pandas.peak}


def _run(folder: Path, module: str, *arguments: object, workbook: str = "false") -> Used:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    known = environment("http://127.0.0.1:9", folder, Load(10, 1)) | {"RECOVERY_REPORTS__WORKBOOK": workbook}
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=PROJECT, env=known, stdout=subprocess.DEVNULL)
    used = measure.finish(process, began)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return used


def fail(folder: Path, failures: int) -> None:
    """Leave a run in which so many installs failed, of all causes, with eight columns of the user."""
    # Not before: a process that is started counts what its starter holds into its own peak.
    from jobs.core.model import Cause
    from tests.helpers.made import make_run, person, place

    causes = [cause for cause in Cause if cause is not Cause.INVALID_ROW]
    rows = [place(number, f"Co{number % 50:018}", *person(number), *_CELLS) for number in range(failures)]
    make_run(folder, _COLUMNS, [(row, causes[number % len(causes)]) for number, row in enumerate(rows)])


if __name__ == "__main__":
    fail(Path(sys.argv[1]), int(sys.argv[2]))
