"""Opens the ledger's SQLite file, waits while another program holds it, and says what its errors mean.

Every commit is synced before it returns. If the disk refuses, that is an UnwritableError. If another program does not
release the file, that is a HeldError. Any other error is a bug.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool

from jobs.core.errors import Problem
from jobs.core.file_errors import TODO
from jobs.ledger.engines import Purpose, purpose_of
from jobs.ledger.refusals import DAMAGED, DamagedError, HeldError, UnwritableError
from jobs.system.lock_holders import who_holds

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine, ExceptionContext

    from jobs.ledger.refusals import Wait

# SQLite's own wait. A longer wait happens here, where the job can tell the user.
_BUSY_MS = 100
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_MEANS = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_NOMEM: errno.ENOMEM}
_RIGHTS = (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
# One connection stays open for as long as the ledger: it still works if the folder is moved or removed. Others are opened
# for as long as they are needed.
POOL: dict[str, Any] = {
    "poolclass": QueuePool,
    "pool_size": 1,
    "max_overflow": -1,
    "connect_args": {"check_same_thread": False},
}
# The ledger, its -wal, its -shm, and a folder that is synced. SQLite lets go of them before it reports an error.
_OPEN_AT_ONCE = 4


def open_file(path: Path, wait: Wait) -> Engine:
    """The engine of an existing ledger file. Every commit is synced before it returns.

    Statements raise UnwritableError if the disk is at fault, and HeldError after the `wait`. SQLite's temporary files are
    in the same folder, without a name.
    """
    keep_temporary_files_in(path.parent)
    engine = create_engine(URL.create("sqlite", database=str(path)), **POOL, hide_parameters=True)
    prepare(engine, path, path.parent, wait, "journal_mode=wal", "synchronous=FULL", temp_store_for(path.parent))
    return engine


def in_one_file(engine: Engine) -> None:
    """Close the engine of a file that nobody else uses, and leave all of it in that file, without a journal beside it."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=delete")
    engine.dispose()


def keep_temporary_files_in(folder: Path) -> None:
    """Make SQLite put this process's temporary files into `folder`. It removes their names at once."""
    with closing(sqlite3.connect(":memory:")) as connection, suppress(sqlite3.OperationalError, UnicodeError):
        # Only this reaches an SQLite that is loaded already. A build without it uses the system's folder.
        connection.execute(f"PRAGMA temp_store_directory={_quoted(folder)}")


def temp_store_for(folder: Path) -> str:
    """SQLite's setting for temporary files that belong into `folder`. If its path is not UTF-8, no setting can name it: memory."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        return "temp_store=MEMORY"
    return "temp_store=FILE"


def folder_for_temporary_files(otherwise: Path) -> tuple[Path, str]:
    """The system's folder for temporary files, and SQLite's setting for it. Without such a folder: memory."""
    try:
        return Path(tempfile.gettempdir()), "temp_store=FILE"
    except FileNotFoundError:
        return otherwise, "temp_store=MEMORY"


def open_memory() -> Engine:
    """The engine of an empty ledger in memory, for a plan without a ledger."""
    return create_engine("sqlite://", hide_parameters=True)


def prepare(engine: Engine, path: Path, scratch: Path, wait: Wait, *pragmas: str) -> None:
    """Make every statement of the engine wait if another program holds the file at `path`, and report disk errors as such.

    `scratch` is the folder of its temporary files.
    """

    def patiently(act: Callable[[], object]) -> None:
        _patiently(act, path, wait)

    def connected(connection: Any, _record: Any) -> None:
        for pragma in (f"busy_timeout={_BUSY_MS}", *pragmas):
            patiently(partial(connection.execute, f"PRAGMA {pragma}"))

    def execute(cursor: Any, statement: str, parameters: Any, _context: Any) -> bool:
        patiently(partial(cursor.execute, statement, parameters))
        return True

    def execute_many(cursor: Any, statement: str, parameters: Any, _context: Any) -> bool:
        patiently(partial(cursor.executemany, statement, parameters))
        return True

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "do_execute", execute)
    event.listen(engine, "do_executemany", execute_many)
    event.listen(engine, "handle_error", partial(_blame_the_disk, path, scratch))


_BEGINS = {Purpose.WRITE: "BEGIN IMMEDIATE", Purpose.BULK: "BEGIN IMMEDIATE", Purpose.ONE_MOMENT: "BEGIN"}


def _begin(connection: Connection) -> None:
    """Begin a transaction. Python's SQLite begins none for reads, and locks the ledger only with the first write."""
    if words := _BEGINS.get(purpose_of(connection)):
        connection.exec_driver_sql(words)


def _patiently(act: Callable[[], object], path: Path, wait: Wait) -> None:
    """Call `act` as soon as no other program holds the ledger. Raises HeldError, and what `act` raises.

    This is safe: a statement that finds the ledger held has done nothing, and a transaction locks it with its first statement.
    """

    def done() -> bool:
        try:
            act()
        except sqlite3.OperationalError as error:
            if _kind(error) not in _BUSY:
                raise
            return False
        return True

    if done():
        return
    words = "waiting for the ledger: {}; nothing is sent meanwhile"
    with wait.paused():
        if not wait.patience.wait(done, lambda: words.format(_holder(path))):
            raise _held(path)


def _held(path: Path) -> HeldError:
    return HeldError(Problem(_holder(path), str(path), "end that program, then run this again"))


def _holder(path: Path) -> str:
    beside = (path.with_name(f"{path.name}{end}") for end in ("-shm", "-wal"))
    return f"{who_holds(path, *beside)} holds it"


def _quoted(text: object) -> str:
    return "'" + str(text).replace("'", "''") + "'"


def _kind(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _blame_the_disk(path: Path, scratch: Path, context: ExceptionContext) -> None:
    """Raise an error that names the disk or the other program if one of them is at fault. A bug of ours stays as it is."""
    error = context.original_exception
    no_text = isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode to UTF-8")
    if no_text or _kind(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        raise DamagedError(Problem(f"is damaged ({error})", str(path), DAMAGED))
    if isinstance(error, sqlite3.OperationalError) and _kind(error) in _BUSY:
        raise _held(path)
    if isinstance(error, sqlite3.OperationalError) and _kind(error) != sqlite3.SQLITE_ERROR:
        number = _number(error, path)
        what = f"cannot be used ({os.strerror(number)}; SQLite says: {error})"
        # A ledger that is written has its temporary files in its own folder. One that is only read can fill only `scratch`.
        where = scratch if number == errno.ENOSPC else path
        raise UnwritableError(Problem(what, str(where), TODO[number]), number)


def _number(error: sqlite3.OperationalError, path: Path) -> int:
    """The system's error number for what SQLite calls a disk error. SQLite hides it, so this opens and writes as it does."""
    if _kind(error) in _MEANS:
        return _MEANS[_kind(error)]
    try:
        with ExitStack() as stack:
            probe, *_ = [stack.enter_context(TemporaryFile(dir=path.parent, buffering=0)) for _ in range(_OPEN_AT_ONCE)]
            probe.write(bytes(4096))
            os.fsync(probe.fileno())
    except OSError as refused:
        return refused.errno if refused.errno in TODO else errno.EIO
    return errno.EACCES if _kind(error) in _RIGHTS else errno.EIO
