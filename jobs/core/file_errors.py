"""Refusals of the operating system, as a person needs them: which file, which act, why, and what to do.

An error is a bug of the job if it has no row here and the job cannot name the act: a missing file, a closed handle.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.core.errors import Exit, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RIGHTS = "give this user the right to do so, or use a different --output"

TODO: dict[int, str] = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space within this user's quota on that disk, or have the quota raised",
    errno.EROFS: "make it writable again, or use a different --output",
    errno.EIO: "check the disk: the system's log (dmesg) says what failed",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EMFILE: "raise the limit of open files of this process (ulimit -n)",
    errno.ENFILE: "end other programs, or raise the limit of open files of this machine (fs.file-max)",
    errno.ENOMEM: "free memory on this machine, or raise the job's limit",
    errno.EFBIG: "raise the limit on file size (ulimit -f)",
    errno.ELOOP: "move the link away",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ESTALE: "mount the network disk again",
    errno.ENODEV: "mount the disk again",
    errno.ENXIO: "mount the disk again",
}
"""What to do about a refusal that is never a bug of the job."""

_TODO_WITH_A_NAME = TODO | {
    errno.ENOENT: "check whether its folder was moved or removed",
    errno.EISDIR: "move the folder away",
    errno.ENOTDIR: "move away the file that has the folder's name",
}
_ELSE = "check that file and its folder, or use a different --output"

_NOT_THE_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def what_to_do(error: BaseException, otherwise: str) -> str:
    """What to do about an error with a file: `otherwise`, unless this process or machine has run out of something."""
    number = getattr(error, "errno", None)
    return TODO[number] if number in _NOT_THE_FILES else otherwise


class FileError(OSError):
    """The system refused an act on a file. `problem` is for a person. `because` is the reason a run gives if it stops, and
    `code` the exit code of any other command.
    """

    because = "disk"
    code = Exit.CANNOT_START

    def __init__(self, problem: Problem, number: int = 0) -> None:
        super().__init__(number, str(problem))
        self.problem = problem

    def __str__(self) -> str:
        return str(self.problem)


def problem_of(error: OSError) -> Problem | None:
    """The problem for a person to act on, or None if the error is a bug of the job."""
    if isinstance(error, FileError):
        return error.problem
    if error.errno not in TODO:
        return None
    where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    what = "cannot be used" if where else "the system refused a file"
    return Problem(f"{what} ({os.strerror(error.errno)})", where, TODO[error.errno])


@contextmanager
def doing(act: str, path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a FileError that names the act (`written`, `read`, ...) and the file."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        number = error.errno or 0
        why = os.strerror(number) if number else str(error)
        problem = Problem(f"cannot be {act} ({why})", str(path), _TODO_WITH_A_NAME.get(number, _ELSE))
        raise FileError(problem, number) from error
