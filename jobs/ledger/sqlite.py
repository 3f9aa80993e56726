"""How the ledger's SQLite file is opened, waited for while another program holds it, and what its errors mean.

Every commit is synced before it returns. A disk that refuses becomes an UnwritableError, a holder that does not let go a
HeldError; anything else is a bug.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from jobs.core.errors import Problem
from jobs.core.file_errors import TODO, FileError
from jobs.system.lock_holders import Patience, who_holds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine, ExceptionContext

_USUAL_CACHE_KIB, _MOST_CACHE_KIB = 2_000, 48 << 10
# What SQLite waits by itself; what lasts longer is waited for here, where it can be said.
_BUSY_MS = 100
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_MEANS = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_NOMEM: errno.ENOMEM}
_RIGHTS = (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_HELD_SECONDS, _NOTICE_SECONDS = 60.0, 5.0


@contextmanager
def at_one_moment(engine: Engine) -> Iterator[Connection]:
    """A connection that sees the ledger as it stands at its first question, however much is written meanwhile."""
    with engine.connect() as connection:
        connection.execute(text("BEGIN"))  # Python's SQLite begins nothing for what only reads.
        yield connection


class UnwritableError(FileError):
    """The disk will not have what is to be written, or will not give back what was."""


DAMAGED = "restore it, or move it away and give another --output"


class DamagedError(UnwritableError):
    """The ledger's file is no ledger any more."""


class HeldError(UnwritableError):
    """Another program holds the ledger, for longer than it was waited for."""

    because = "ledger"


def _nothing(*_: object) -> None:
    """Nobody listens."""


@dataclass(slots=True)
class Wait:
    """How a ledger that another program holds is waited for: `pause` is called before, `go_on` where that helped."""

    patience: Patience
    pause: Callable[[], None] = _nothing
    go_on: Callable[[], None] = _nothing


def usual_wait(say: Callable[[str], None] = _nothing) -> Wait:
    """Wait for a minute, and `say` so after five seconds."""
    return Wait(Patience(_HELD_SECONDS, _NOTICE_SECONDS, say))


def open_file(path: Path, wait: Wait) -> Engine:
    """The engine of a ledger's file, which exists; every commit is synced before it returns.

    What it is used for raises UnwritableError where the disk is at fault, and HeldError as `wait` says. What SQLite
    needs for a moment lies beside the file, without a name.
    """
    keep_temporary_files_in(path.parent)
    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool, hide_parameters=True)
    prepare(engine, path, path.parent, wait, "journal_mode=wal", "synchronous=FULL", "temp_store=FILE")
    return engine


def keep_temporary_files_in(folder: Path) -> None:
    """Have SQLite make its temporary files in `folder`, for all of this process; it takes their names away at once."""
    with closing(sqlite3.connect(":memory:")) as connection, suppress(sqlite3.OperationalError):
        # The one way that also reaches an SQLite that is loaded already; one built without it uses the system's folder.
        connection.execute(f"PRAGMA temp_store_directory={_quoted(folder)}")


def open_memory() -> Engine:
    """A ledger that is nowhere, for a plan without one."""
    return create_engine("sqlite://", hide_parameters=True)


@contextmanager
def cache_for(connection: Connection, installs: int) -> Iterator[None]:
    """A cache for a block that writes so many keys without order: in a small one their index is written many times over."""
    kib = min(_MOST_CACHE_KIB, max(_USUAL_CACHE_KIB, installs // 16))
    connection.exec_driver_sql(f"PRAGMA cache_size = -{kib}")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA cache_size = -{_USUAL_CACHE_KIB}")


def prepare(engine: Engine, path: Path, scratch: Path, wait: Wait, *pragmas: str) -> None:
    """Let all that the engine of the file at `path` executes wait where another program holds it, and blame the disk.

    `scratch` is where its temporary files lie.
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
    event.listen(engine, "do_execute", execute)
    event.listen(engine, "do_executemany", execute_many)
    event.listen(engine, "handle_error", partial(_blame_the_disk, path, scratch))


def _patiently(act: Callable[[], object], path: Path, wait: Wait) -> None:
    """Do it, as soon as no other program holds the ledger. Raises HeldError, and what `act` raises.

    A statement that found the ledger held has done nothing, and a transaction takes it with its first statement.
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
    wait.pause()
    if not wait.patience.wait(done, lambda: f"waiting for the ledger: {_holder(path)}; nothing is sent meanwhile"):
        raise _held(path)
    wait.go_on()


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
    """Tell a disk at fault from a bug of ours, which SQLite calls a plain error."""
    error = context.original_exception
    no_text = isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode to UTF-8")
    if no_text or _kind(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        raise DamagedError(Problem(f"is damaged ({error})", str(path), DAMAGED))
    if isinstance(error, sqlite3.OperationalError) and _kind(error) in _BUSY:
        raise _held(path)
    if isinstance(error, sqlite3.OperationalError) and _kind(error) != sqlite3.SQLITE_ERROR:
        number = _number(error, path)
        what = f"cannot be used ({os.strerror(number)}; SQLite says: {error})"
        # A ledger's file never grows but where its temporary files lie too, save for one that is only read.
        where = scratch if number == errno.ENOSPC else path
        raise UnwritableError(Problem(what, str(where), TODO[number]), number)


def _number(error: sqlite3.OperationalError, path: Path) -> int:
    """What the system meant by what SQLite calls a disk error. SQLite does not tell, so the disk is asked once more."""
    if _kind(error) in _MEANS:
        return _MEANS[_kind(error)]
    try:
        with TemporaryFile(dir=path.parent, buffering=0) as probe:
            probe.write(bytes(4096))
            os.fsync(probe.fileno())
    except OSError as refused:
        return refused.errno if refused.errno in TODO else errno.EIO
    return errno.EACCES if _kind(error) in _RIGHTS else errno.EIO
