"""Who may work: one run on a folder, one run of an app, one writer of a folder's reports.

The operating system releases a lock when its holder dies.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import pwd
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.core.errors import Exit, refuse
from jobs.core.file_errors import doing
from jobs.system.files import PRIVATE, make_private_folder
from jobs.system.lock_holders import Patience, holders, this_process, who_holds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LOCK = ".lock"
_REPORTS_SECONDS, _NOTICE_SECONDS = 300.0, 2.0
# Errors of a file system without locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def hold(file: Path, what: str, holder: str) -> Iterator[None]:
    """Hold the lock `file` for the block. Raises UserError with exit 11 if another process has it, and FileError.

    The system releases the lock however its holder dies. `holder` is what this process says about itself.
    """
    with doing("locked", file):
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
    try:
        with doing("locked", file):
            taken = _try_lock(handle, file)
        if not taken:
            raise refuse(f"is held by {_holder(handle, file)}", what, "wait for it to end", Exit.HELD)
        with suppress(OSError):  # On a full disk the lock still works, only without a name.
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{this_process()}: {holder}".encode(errors="replace"), 0)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int, file: Path) -> bool:
    """Whether this process now has the lock. Raises UserError if the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        todo = "use a folder on a disk of this machine: --output, and XDG_STATE_HOME for the lock of an app"
        raise refuse("is on a file system that has no locks", str(file), todo) from None
    return True


def _holder(handle: int, file: Path) -> str:
    """Who holds the lock. Uses the words in the file if the holder wrote them, and not a run that was killed before."""
    said = os.pread(handle, 1_000, 0).decode(errors="replace").strip()
    found = holders([file])
    if said and not found:
        return said  # The system does not know the holder, as on a network disk.
    return said if any(said.startswith(f"process {pid} on ") for pid in found) else who_holds(file)


def app_lock(environment: Mapping[str, str], base_url: str, client_id: str) -> Path:
    """The lock file of an app of an API, the same for all runs of this user on this machine. Raises UserError.

    The state folder comes first, because cron has no runtime folder and must find the same file. As the XDG specification
    has it, a folder that is not absolute is ignored.
    """
    me = os.getuid()
    state = _absolute(environment, "XDG_STATE_HOME") or str(_home(environment) / ".local" / "state")
    runtime = _absolute(environment, "XDG_RUNTIME_DIR") or f"/run/user/{me}"
    name = hashlib.sha256(f"{base_url}\0{client_id}".encode()).hexdigest()[:32] + ".lock"
    for place in (state, runtime):
        if folder := _usable(Path(place) / "highlevel-recovery"):
            return folder / name
    # The XDG specification asks for a replacement folder if a user has neither.
    folder = _usable(_temporary() / f"highlevel-recovery-{me}")
    if folder is not None and folder.lstat().st_uid == me and not folder.lstat().st_mode & 0o022:
        return folder / name
    raise refuse("cannot hold the lock of the app", state, "set XDG_STATE_HOME to a folder that this user may write to")


def _absolute(environment: Mapping[str, str], name: str) -> str:
    """The folder that a variable names, or empty if it is not an absolute path."""
    value = environment.get(name, "")
    return value if Path(value).is_absolute() else ""


def _usable(folder: Path) -> Path | None:
    try:
        make_private_folder(folder)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # This error says nothing about the folder.
            raise
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def _temporary() -> Path:
    """The folder for temporary files, even if it cannot be used."""
    with suppress(FileNotFoundError):
        return Path(tempfile.gettempdir())
    return Path("/tmp")  # noqa: S108 - the caller checks it before use


def _home(environment: Mapping[str, str]) -> Path:
    try:
        return Path(_absolute(environment, "HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/")  # A user without a name, as in a container.


def patience_for_reports(say: Callable[[str], None]) -> Patience:
    """How long to wait for another process that writes the reports: longer than a million rows take."""
    return Patience(_REPORTS_SECONDS, _NOTICE_SECONDS, say)


@contextmanager
def alone(folder: Path, patience: Patience) -> Iterator[None]:
    """Let one process at a time write reports, so that older data never replaces newer data.

    Raises UserError if another process writes them for longer than `patience` lasts, and FileError.
    """
    with doing("locked", folder):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not patience.wait(lambda: _lock_folder(handle), lambda: f"waiting: {_who_writes(folder)}"):
            raise refuse(_who_writes(folder), str(folder), "wait until it ends, or end it, and run this again")
        yield
    finally:
        os.close(handle)


def _lock_folder(handle: int) -> bool:
    """Whether this process now has the lock of the folder. True too if a (network) disk has no locks on folders."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _who_writes(folder: Path) -> str:
    return f"{who_holds(folder)} is writing the reports in {folder}"
