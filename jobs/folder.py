"""The output folder: who holds it, and files replaced whole, with their modes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import pwd
import secrets
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from jobs.core.errors import Exit, refuse
from jobs.core.file_errors import doing
from jobs.patience import Patience, holders, this_process, who_holds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

LOCK = ".lock"
RESERVE = ".reserve"
_PRIVATE = 0o600
_LEFT_BEHIND = ".new-"
# The answers of all workers at their largest usual size, a page of the ledger each, and a checkpoint.
_ROOM = 8 << 20
_REPORTS_SECONDS, _NOTICE_SECONDS = 300.0, 2.0
# What a file system answers that has no locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
# What one answers that syncs no folders (SMB, sshfs and others of FUSE); what it was asked for is done all the same.
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EBADF}


def make_folder(path: Path) -> Path:
    """The folder at `path`, made for its owner alone where it is missing, else left as it is. Raises FileError."""
    _make_private(path)
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


def _make_private(path: Path) -> None:
    """Make `path` and the parents it lacks, each for its owner alone and durable under its name. Raises FileError."""
    with doing("made", path):
        lacking = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(lacking):
            folder.mkdir(mode=0o700, exist_ok=True)
            sync(folder.parent)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


@contextmanager
def hold(file: Path, what: str, holder: str) -> Iterator[None]:
    """Hold the lock `file` for the block. Raises UserError with exit 11 where another process has it, and FileError.

    The system lets go of it when its holder dies, however it dies. `holder` is what this process says of itself.
    """
    with doing("locked", file):
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE)
    try:
        with doing("locked", file):
            taken = _try_lock(handle, file)
        if not taken:
            raise refuse(f"is held by {_holder(handle, file)}", what, "wait for it to end", Exit.HELD)
        with suppress(OSError):  # On a full disk the lock holds all the same; it only lacks a name.
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{this_process()}: {holder}".encode(errors="replace"), 0)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int, file: Path) -> bool:
    """Whether the lock is taken now. Raises UserError where its file system has none."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        todo = "give a folder on a disk of this machine: --output, and XDG_STATE_HOME for the lock of an app"
        raise refuse("is on a file system that has no locks", str(file), todo) from None
    return True


def _holder(handle: int, file: Path) -> str:
    """Who holds the lock, in its own words where they are the holder's and not those of one that was killed before."""
    said = os.pread(handle, 1_000, 0).decode(errors="replace").strip()
    found = holders([file])
    if said and not found:
        return said  # The system does not tell, as on a network disk.
    return said if any(said.startswith(f"process {pid} on ") for pid in found) else who_holds(file)


def app_lock(environment: Mapping[str, str], base_url: str, client_id: str) -> Path:
    """The lock file of an app of an API, for all runs of this user on this machine. Raises UserError.

    The state folder comes first: cron has no runtime folder, and both must find the same file.
    """
    me = os.getuid()
    state = environment.get("XDG_STATE_HOME") or str(_home(environment) / ".local" / "state")
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{me}"
    name = hashlib.sha256(f"{base_url}\0{client_id}".encode()).hexdigest()[:32] + ".lock"
    for place in (state, runtime):
        if folder := _usable(Path(place) / "highlevel-recovery"):
            return folder / name
    # As the XDG specification asks of a user who has neither.
    folder = _usable(_temporary() / f"highlevel-recovery-{me}")
    if folder is not None and folder.lstat().st_uid == me and not folder.lstat().st_mode & 0o022:
        return folder / name
    raise refuse("cannot hold the lock of the app", state, "set XDG_STATE_HOME to a folder that this user may write to")


def _usable(folder: Path) -> Path | None:
    try:
        _make_private(folder)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # That says nothing of the folder.
            raise
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def _temporary() -> Path:
    """The folder for temporary files, whether it can be used or not."""
    with suppress(FileNotFoundError):
        return Path(tempfile.gettempdir())
    return Path("/tmp")  # noqa: S108 - it is looked at before it is used


def _home(environment: Mapping[str, str]) -> Path:
    try:
        return Path(environment.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/")  # A user without a name, as in a container.


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well: whole, synced, private from its first byte.

    A link in its place is replaced, not followed. Raises FileError.
    """
    new = path.with_name(f"{_LEFT_BEHIND}{path.name}-{secrets.token_hex(4)}")
    with doing("written", path):
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except BaseException:
            with suppress(OSError):  # What went wrong first is what is told.
                new.unlink(missing_ok=True)
            raise
        sync(path.parent)


def sync(path: Path) -> bool:
    """Make a file's content, or the names in a folder, durable. Returns False for a folder whose file system does not do that."""
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


def refuse_folders(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError where a folder stands in the place of a file."""
    for path in (folder / name for name in names):
        if path.is_dir() and not path.is_symlink():
            raise refuse("is a folder", str(path), "move it away")


def patience_for_reports(say: Callable[[str], None]) -> Patience:
    """How long another process that writes the reports is waited for: longer than a million rows take."""
    return Patience(_REPORTS_SECONDS, _NOTICE_SECONDS, say)


@contextmanager
def alone(folder: Path, patience: Patience) -> Iterator[None]:
    """Write reports one process at a time, so that what was read earlier never replaces what was read later.

    Raises UserError where another one writes them for longer than `patience` lasts, and FileError.
    """
    with doing("locked", folder):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not patience.wait(lambda: _lock_folder(handle), lambda: f"waiting: {_who_writes(folder)}"):
            raise refuse(_who_writes(folder), str(folder), "wait for it to end, or end it, then run this again")
        yield
    finally:
        os.close(handle)


def _lock_folder(handle: int) -> bool:
    """Whether the folder is taken now, also where its disk (of a network) has no locks on folders and does without."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _who_writes(folder: Path) -> str:
    return f"{who_holds(folder)} is writing the reports in {folder}"


def clear_left_behind(folder: Path) -> None:
    """Remove the half-written files of a run that was killed; they hold tokens. Raises FileError."""
    for file in folder.glob(f"{_LEFT_BEHIND}*"):
        with doing("removed", file):
            file.unlink(missing_ok=True)


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
        handle = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE)
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


def make_private_file(path: Path) -> None:
    """Create `path` for its owner alone, where it is missing: SQLite gives its side files the same mode."""
    with doing("made", path):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _PRIVATE))
        except FileExistsError:
            return
        sync(path.parent)
