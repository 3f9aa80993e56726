"""The output folder: private to its owner, with space reserved on its disk for what is in flight."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from jobs.core.errors import refuse
from jobs.core.file_errors import doing
from jobs.system.files import PRIVATE, make_private_folder, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

RESERVE = ".reserve"
# Space for the largest usual answer of each worker, a page of the ledger for each, and a checkpoint.
_ROOM = 8 << 20


def make_folder(path: Path) -> Path:
    """The folder at `path`. A missing one is made private to its owner. Raises FileError."""
    make_private_folder(path)
    with doing("written to", path):
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EROFS if _is_read_only(path) else errno.EACCES, "")
    return path.resolve()


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def warnings_of(folder: Path) -> list[str]:
    """Warnings about an output folder: other users may write to it, or its file system does not sync folders."""
    found = []
    if folder.stat().st_mode & 0o022:
        found.append(f"other users can write to {folder} and replace its files: chmod go-w it")
    if not sync(folder):
        found.append(
            f"the file system of {folder} does not sync folders: a power cut may lose files that were just made"
        )
    return found


def refuse_folders(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError if a folder has the name of a file that the job writes."""
    for path in (folder / name for name in names):
        if path.is_dir() and not path.is_symlink():
            raise refuse("is a folder", str(path), "move it away")


@contextmanager
def reserve(folder: Path) -> Iterator[Callable[[], None]]:
    """Reserve space on the disk for what is in flight when the disk fills up, so that every new token can be stored.

    Yields a function that gives the space back and never raises. Raises FileError if there is not enough space.
    """
    kept = folder / RESERVE

    def give_back() -> None:
        with suppress(OSError):  # A disk that became read-only keeps it, and the next run removes it.
            kept.unlink(missing_ok=True)

    try:
        _keep_room(kept)
        yield give_back
    finally:
        give_back()


def _keep_room(kept: Path) -> None:
    with doing(f"given the {_ROOM >> 20} MiB that a run keeps in reserve", kept):
        kept.unlink(missing_ok=True)
        handle = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
        try:
            _allocate(handle)
        finally:
            os.close(handle)


def _allocate(handle: int) -> None:
    """Take the space: with one call, or by writing it if the system or the file system does not know that call."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, _ROOM)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}:
                raise
        else:
            return
    left = _ROOM
    while left:
        left -= os.write(handle, bytes(min(left, 1 << 20)))
