"""A user's program, started without a shell and without the job's credentials, and ended with all its children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# A program needs these to work and to write in the right language. Any other variable may hold an app's secret,
# because `client_secret_env` accepts any name.
_PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME")


def start_program(command: Sequence[str], folder: Path, *, errors: int) -> subprocess.Popen[bytes]:
    """The running program, in `folder`, with unbuffered pipes. `errors` says where its standard error goes. Raises
    OSError if it cannot be run.
    """
    return subprocess.Popen(  # noqa: S603 - the user's own command, split into words by the settings
        command,
        bufsize=0,
        cwd=folder,
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,
    )


def end_program(process: subprocess.Popen[bytes]) -> None:
    """Kill the program and its children, unless it has ended."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
