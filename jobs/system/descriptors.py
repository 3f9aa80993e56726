"""Keeps file descriptors for the end of a command, so that its work cannot use them all."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.core.errors import refuse

if TYPE_CHECKING:
    from collections.abc import Iterator

# A report reads the ledger and its log, writes a file and its folder, holds a lock, and may load a module. A workbook has a
# temporary file for each of its five sheets, and one for what is put together.
_FOR_REPORTS = 14


def refuse_few_descriptors() -> None:
    """Raise UserError if this process cannot get the descriptors that the end of a run needs."""
    kept, error = _taken(_FOR_REPORTS)
    _close(kept)
    if error is not None:
        todo = "raise its limit of open files (ulimit -n)"
        raise refuse(f"has too few file descriptors for a run ({error.strerror})", "this process", todo)


@contextmanager
def one_descriptor_kept() -> Iterator[None]:
    """Keep a descriptor until the block ends, if there is one left."""
    kept, _ = _taken(1)
    try:
        yield
    finally:
        _close(kept)


def _taken(count: int) -> tuple[list[int], OSError | None]:
    """Up to `count` descriptors, and the error that stopped at fewer."""
    kept: list[int] = []
    try:
        while len(kept) < count:
            kept.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return kept, error
    return kept, None


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
