"""Writes files whole and synced, private from their first byte, and removes what killed runs left half-written."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from glob import escape
from typing import TYPE_CHECKING, BinaryIO

from jobs.core.file_errors import doing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRIVATE = 0o600
_LEFT_BEHIND = ".new-"
# Errors of a file system that does not sync folders (SMB, sshfs and other FUSE ones). The act itself is done.
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EBADF}


def make_private_folder(path: Path) -> None:
    """Make `path` and its missing parents, each private to its owner and synced. Raises FileError."""
    with doing("made", path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)
            sync(folder.parent)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def name_while_new(path: Path) -> Path:
    """A name beside `path` for a file that becomes it when it is whole. `clear_left_behind` knows it."""
    return path.with_name(f"{_LEFT_BEHIND}{path.name}-{secrets.token_hex(4)}")


@contextmanager
def replacing(path: Path, mode: int = PRIVATE) -> Iterator[BinaryIO]:
    """A new file that replaces `path` when the block ends without an error: whole, synced, with this mode from its first byte.

    A link at `path` is replaced and never followed. Raises FileError.
    """
    new = name_while_new(path)
    with doing("written", path):
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
        try:
            with os.fdopen(handle, "wb") as file:
                if mode != PRIVATE:
                    os.fchmod(handle, mode)  # Whatever the umask says.
                yield file
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except BaseException:
            with suppress(OSError):  # The first error is the one to report.
                new.unlink(missing_ok=True)
            raise
        sync(path.parent)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A private folder beside `path`, for the temporary files of whatever writes it. It is removed when the block ends, and its
    files take no room from then on, even if a library still holds them open.

    `clear_left_behind` removes that of a killed run. Raises FileError.
    """
    folder = name_while_new(path)
    with doing("written", path):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            for file in folder.iterdir():
                os.truncate(file, 0)
            shutil.rmtree(folder)


def sync(path: Path) -> bool:
    """Whether a file's content, or the names in a folder, are now durable. False if the file system does not sync folders."""
    with doing("synced", path):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _NO_SYNC or not path.is_dir():
                raise
            return False
        finally:
            os.close(handle)
    return True


def remove(path: Path) -> bool:
    """Whether there was such a file, which is removed. Raises FileError."""
    with doing("removed", path):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
    return True


def clear_left_behind(folder: Path, name: str = "") -> None:
    """Remove what a killed run left half-written (of the file called `name`). It may hold tokens. Raises FileError."""
    for left in folder.glob(f"{_LEFT_BEHIND}{escape(name)}-*" if name else f"{_LEFT_BEHIND}*"):
        with doing("removed", left):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)


def make_private_file(path: Path) -> None:
    """Create `path`, private to its owner, if it is missing. SQLite gives its side files the same mode."""
    with doing("made", path):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, PRIVATE))
        except FileExistsError:
            return
        sync(path.parent)
