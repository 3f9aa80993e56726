"""How this process is set up before anything else: its standard streams are open, it leaves no core dump, and it has the
memory to load the job.
"""

from __future__ import annotations

import os
import resource

from jobs.core.errors import Problem

_PR_SET_DUMPABLE = 4
_LEAST_MEMORY_MB = 256  # With less, modules of the job and of its libraries do not load.


def fill_streams() -> None:
    """Put an empty stream in place of each closed standard stream. Otherwise the next opened file would become one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def no_core_dumps() -> None:
    """Keep secrets out of core dumps, also if the system pipes them to a program."""
    import ctypes  # Not before the streams are filled: libffi keeps a file of its own open.

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def too_little_memory() -> Problem | None:
    """The problem that this process may not use the memory that the job needs (`ulimit -v`), or None."""
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY or most >= _LEAST_MEMORY_MB << 20:
        return None
    what = f"may use only {most >> 20} MB of memory (ulimit -v)"
    return Problem(what, "this process", f"raise that limit to {_LEAST_MEMORY_MB} MB or more")
