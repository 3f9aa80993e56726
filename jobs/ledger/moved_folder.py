"""An output folder that is moved or removed while a run is under way: its ledger lives on, open and without a name."""

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
    """A question to ask later: whether the file at `path` is still the one that is there now."""
    was = path.stat()

    def in_place() -> bool:
        try:
            return os.path.samestat(path.stat(), was)
        except OSError:
            return False

    return in_place


def bring_back(ledger: Ledger, folder: Path) -> None:
    """Write all that the open ledger knows into `folder`, made again. Raises FileError."""
    path = folder / LEDGER
    if path.exists():
        what = f"is not the ledger of this run any more; {folder} was replaced under way"
        raise FileError(Problem(what, str(path), "move it away, and put the folder of this run back in its place"))
    make_folder(folder)
    make_private_file(path)
    ledger.copy_to(path)
    sync(path)
    sync(folder)
