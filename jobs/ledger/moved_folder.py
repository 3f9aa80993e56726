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

    from jobs.ledger.ledger import Ledger
    from jobs.ledger.place import Place


def anchor(place: Place) -> Callable[[], bool]:
    """A function that tells later whether the ledger's file is still where it is now, or its folder if it is elsewhere."""
    path = place.folder if place.in_database else place.folder / LEDGER
    was = path.stat()

    def in_place() -> bool:
        try:
            return os.path.samestat(path.stat(), was)
        except OSError:
            return False

    return in_place


def bring_back(ledger: Ledger, place: Place) -> None:
    """Make the folder again and write everything that the open ledger knows into it. Raises FileError."""
    folder, path = place.folder, place.folder / LEDGER
    if place.in_database:
        make_folder(folder)
        return
    if path.exists():
        what = f"is not the ledger of this run any more, because {folder} was replaced during the run"
        raise FileError(Problem(what, str(path), "move it away, and put this run's folder back"))
    make_folder(folder)
    make_private_file(path)
    ledger.copy_to(path)
    sync(path)
    sync(folder)
