"""Importing large libraries cheaply."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def importing() -> Iterator[None]:
    """For a block of imports: they make much and throw nothing away, so to look for garbage meanwhile is a fifth of a start.

    What they made stays to the end, so it is not looked through later either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
