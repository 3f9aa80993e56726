"""What to do if the output folder is moved or removed during a run. The open ledger still works without its name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jobs.core.errors import Problem
from jobs.core.file_errors import FileError
from jobs.ledger.opening import LEDGER
from jobs.system.files import make_private_file, sync
from jobs.system.output_folder import make_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.ledger.ledger import Ledger


def anchor(path: Path) -> Callable[[], bool]:
    """A function that tells later whether `path` is still the same file as now."""
    was = path.stat()

    def in_place() -> bool:
        try:
            return os.path.samestat(path.stat(), was)
        except OSError:
            return False

    return in_place


def bring_back(ledger: Ledger, folder: Path) -> None:
    """Make `folder` again and write everything that the open ledger knows into it. Raises FileError."""
    path = folder / LEDGER
    if path.exists():
        what = f"is not the ledger of this run any more, because {folder} was replaced during the run"
        raise FileError(Problem(what, str(path), "move it away, and put this run's folder back"))
    make_folder(folder)
    make_private_file(path)
    ledger.copy_to(path)
    sync(path)
    sync(folder)
