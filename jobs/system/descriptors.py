"""File descriptors for the end of a command, so that its work cannot take the last of them."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.core.errors import refuse

if TYPE_CHECKING:
    from collections.abc import Iterator

# A report reads the ledger and its log, and writes a file and its folder under a lock; a module may be loaded for it.
_FOR_REPORTS = 8


def refuse_few_descriptors() -> None:
    """Raise UserError where this process cannot have the descriptors that the end of a run needs."""
    kept, lacking = _taken(_FOR_REPORTS)
    _close(kept)
    if lacking is not None:
        todo = "raise its limit of open files (ulimit -n)"
        raise refuse(f"has too few file descriptors for a run ({lacking.strerror})", "this process", todo)


@contextmanager
def one_descriptor_kept() -> Iterator[None]:
    """Keep a descriptor, where one can be had, until the block ends."""
    kept, _ = _taken(1)
    try:
        yield
    finally:
        _close(kept)


def _taken(count: int) -> tuple[list[int], OSError | None]:
    """Descriptors, and what kept them from being as many as were wanted."""
    kept: list[int] = []
    try:
        while len(kept) < count:
            kept.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as lacking:
        return kept, lacking
    return kept, None


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
