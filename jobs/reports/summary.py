"""summary.json: how a run ended, for a program to read."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.core.model import Run

_NOT_TOLD = {"met", "recovered_before", "kept", "sealed", "rate_limited"}


def is_summary(path: Path) -> bool:
    """Whether a file is the summary of a run, and not something else of that name."""
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(told, dict) and {"run_id", "base_url", "counts"} <= told.keys()


def write(file: BinaryIO, run: Run) -> None:
    """Write the run under the names that programs rely on. A value that is not known yet is null."""
    told = {name: value for name, value in asdict(run).items() if name not in _NOT_TOLD}
    told["finished_at"] = run.finished_at or None
    file.write(json.dumps(told, indent=2, ensure_ascii=False).encode() + b"\n")
