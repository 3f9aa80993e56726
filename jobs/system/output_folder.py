"""The output folder: made for its owner alone, with room kept on its disk for what is in flight."""

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
# The answers of all workers at their largest usual size, a page of the ledger each, and a checkpoint.
_ROOM = 8 << 20


def make_folder(path: Path) -> Path:
    """The folder at `path`, made for its owner alone where it is missing, else left as it is. Raises FileError."""
    make_private_folder(path)
    with doing("written to", path):
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EROFS if _is_read_only(path) else errno.EACCES, "")
    return path.resolve()


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def warnings_of(folder: Path) -> list[str]:
    """What a person should know of an output folder: others may write to it, or its file system does not sync it."""
    found = []
    if folder.stat().st_mode & 0o022:
        found.append(f"{folder} can be written to by others, who may take the place of its files: chmod go-w it")
    if not sync(folder):
        found.append(
            f"the file system of {folder} syncs no folders: a power cut may cost the names of files that were just made"
        )
    return found


def refuse_folders(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError where a folder stands in the place of a file."""
    for path in (folder / name for name in names):
        if path.is_dir() and not path.is_symlink():
            raise refuse("is a folder", str(path), "move it away")


@contextmanager
def reserve(folder: Path) -> Iterator[Callable[[], None]]:
    """Keep room on the disk for what is in flight when it fills up, so that no token is minted that cannot be stored.

    Yields what gives the room back, and never raises. Raises FileError where there is no such room.
    """
    kept = folder / RESERVE

    def give_back() -> None:
        with suppress(OSError):  # A disk that turned read-only keeps it; the next run takes it away.
            kept.unlink(missing_ok=True)

    try:
        _keep_room(kept)
        yield give_back
    finally:
        give_back()


def _keep_room(kept: Path) -> None:
    with doing(f"given the {_ROOM >> 20} MiB that a run keeps to spare", kept):
        kept.unlink(missing_ok=True)
        handle = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
        try:
            _allocate(handle)
        finally:
            os.close(handle)


def _allocate(handle: int) -> None:
    """Take the room: by asking for it, or, where the system or the file system knows no such call, by filling it."""
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
