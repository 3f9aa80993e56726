"""On which cores of the machine a run goes."""

from __future__ import annotations

import os
import random
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@contextmanager
def one_core(choose: Callable[[Sequence[int]], int] = random.choice) -> Iterator[None]:
    """Keep this thread, and those that it starts meanwhile, on one core: the interpreter runs them in turn anyway.

    On several they fight for the turn and find their caches cold, which is a sixth of what a request costs. Other
    programs are moved away by the system where cores are free. Where cores cannot be chosen, nothing is done.
    """
    allowed: set[int] = set()
    if sys.platform == "linux":
        with suppress(OSError):
            allowed = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {choose(sorted(allowed))})
    try:
        yield
    finally:
        if sys.platform == "linux" and allowed:
            with suppress(OSError):
                os.sched_setaffinity(0, allowed)
