"""How this process is set up before anything else: its standard streams are open, and it leaves no core dump."""

from __future__ import annotations

import os
import resource

_PR_SET_DUMPABLE = 4


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
