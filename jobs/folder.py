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

from jobs.errors import Exit, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

LOCK = ".lock"
RESERVE = ".reserve"
_PRIVATE = 0o600
_LEFT_BEHIND = ".new-"
# The answers of all workers at their largest usual size, a page of the ledger each, and a checkpoint.
_ROOM = 8 << 20


def make_folder(path: Path) -> Path:
    """The folder at `path`, private to its owner, made where it is missing. Raises UserError."""
    try:
        _make_private(path)
        if path.stat().st_mode & 0o077 and path.stat().st_uid == os.getuid():
            path.chmod(0o700)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError
    except OSError as error:
        reason = error.strerror or "it may not be written"
        raise refuse(f"cannot be used ({reason})", str(path), "give another --output, or mend the folder") from None
    return path.resolve()


def _make_private(path: Path) -> None:
    """Make `path` and the parents it lacks, each for its owner alone and durable under its name. Raises OSError."""
    lacking = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(lacking):
        folder.mkdir(mode=0o700, exist_ok=True)
        sync(folder.parent)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


@contextmanager
def hold(file: Path, what: str, holder: str) -> Iterator[None]:
    """Hold the lock `file` for the block. Raises UserError with exit 11 where another process has it.

    The system lets go of it when its holder dies, however it dies.
    """
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE)
    except OSError as error:
        raise refuse(f"cannot be locked ({error.strerror})", str(file), "mend the folder") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.pread(handle, 500, 0).decode(errors="replace").strip() or "another run"
            raise refuse(f"is held by {other}", what, "wait for it to end", Exit.HELD) from None
        with suppress(OSError):  # On a full disk the lock holds all the same; it only lacks a name.
            os.ftruncate(handle, 0)
            os.pwrite(handle, holder.encode(errors="replace"), 0)
        yield
    finally:
        os.close(handle)


def app_lock(environment: Mapping[str, str], base_url: str, client_id: str) -> Path:
    """The lock file of an app of an API, for all runs of this user on this machine. Raises UserError.

    The state folder comes first: cron has no runtime folder, and both must find the same file.
    """
    me = os.getuid()
    state = environment.get("XDG_STATE_HOME") or str(_home(environment) / ".local" / "state")
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{me}"
    name = hashlib.sha256(f"{base_url}\0{client_id}".encode()).hexdigest()[:32] + ".lock"
    places = [Path(place) / "highlevel-recovery" for place in (state, runtime)]
    # As the XDG specification asks of a user who has neither.
    for folder in (*places, Path(tempfile.gettempdir()) / f"highlevel-recovery-{me}"):
        try:
            _make_private(folder)
            of = folder.lstat()
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK) and (folder in places or (of.st_uid == me and not of.st_mode & 0o022)):
            return folder / name
    raise refuse("no folder for the lock of the app", state, "set XDG_STATE_HOME to a folder of yours")


def _home(environment: Mapping[str, str]) -> Path:
    try:
        return Path(environment.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/")  # A user without a name, as in a container.


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well: whole, synced, private from its first byte.

    A link in its place is replaced, not followed. Raises OSError.
    """
    new = path.with_name(f"{_LEFT_BEHIND}{path.name}-{secrets.token_hex(4)}")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse_folders(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError where a folder stands in the place of a file."""
    for path in (folder / name for name in names):
        if path.is_dir() and not path.is_symlink():
            raise refuse("is a folder", str(path), "move it away")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Write reports one process at a time, so that what was read earlier never replaces what was read later."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # A network disk without locks on folders does without.
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def clear_left_behind(folder: Path) -> None:
    """Remove the half-written files of a run that was killed; they hold tokens."""
    for file in folder.glob(f"{_LEFT_BEHIND}*"):
        file.unlink(missing_ok=True)


@contextmanager
def reserve(folder: Path) -> Iterator[Callable[[], None]]:
    """Keep room on the disk for what is in flight when it fills up, so that no token is minted that cannot be stored.

    Yields what gives the room back. Raises UserError where there is no such room.
    """
    kept = folder / RESERVE
    kept.unlink(missing_ok=True)

    def give_back() -> None:
        kept.unlink(missing_ok=True)

    try:
        handle = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE)
        try:
            os.posix_fallocate(handle, 0, _ROOM)
        finally:
            os.close(handle)
    except OSError as error:
        give_back()
        what = f"has no {_ROOM >> 20} MiB to spare ({error.strerror})"
        raise refuse(what, str(folder), "make room, or give an --output on another disk") from None
    try:
        yield give_back
    finally:
        give_back()


def make_private_file(path: Path) -> None:
    """Create `path` for its owner alone, where it is missing: SQLite gives its side files the same mode."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _PRIVATE))
    except FileExistsError:
        return
    sync(path.parent)
