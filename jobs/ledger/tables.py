"""The tables of the ledger, and how its SQLite file is opened.

`installs` is the truth; `broken` holds the lines of the newest manifest that cannot be used; `layouts` the user's
columns; `todo` the order of the run under way; `pairs` the
fingerprints of every pair ever recorded; `spends` those of the refresh tokens that were spent, or may be; `listed` and
`torn` (temporary, so never on disk under a name) the manifest of the run: its usable lines, with the old pairs in them,
and the broken ones; `bearers` and `locations` (temporary too) the agencies' living tokens and what they list; `reported` and `reported_lines` what the last report listed. Version 2 added `spends`, version 3
`reported`.
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

from sqlalchemy import (
    Boolean,
    Column,
    Engine,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    false,
    select,
    text,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from jobs.core.errors import Problem
from jobs.core.file_errors import TODO, FileError
from jobs.system.lock_holders import Patience, who_holds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection, ExceptionContext

VERSION = 3
_USUAL_CACHE_KIB, _MOST_CACHE_KIB = 2_000, 48 << 10
# What SQLite waits by itself; what lasts longer is waited for here, where it can be said.
_BUSY_MS = 100
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_MEANS = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_NOMEM: errno.ENOMEM}
_RIGHTS = (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_HELD_SECONDS, _NOTICE_SECONDS = 60.0, 5.0
metadata = MetaData()

meta = Table("meta", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

layouts = Table(
    "layouts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("columns", Text, nullable=False, unique=True),
)

installs = Table(
    "installs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("client_id", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("company_id", Text, nullable=False),
    Column("line", Integer, nullable=False),
    Column("position", Integer, index=True),
    Column("layout", Integer, ForeignKey("layouts.id"), nullable=False),
    Column("cells", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("tokens", Text),
    Column("route", Text, nullable=False, server_default=""),
    Column("cause", Text),
    Column("stage", Text),
    Column("message", Text, nullable=False, server_default=""),
    Column("http_status", Integer, nullable=False, server_default="0"),
    Column("trace_id", Text, nullable=False, server_default=""),
    Column("first_failed_at", Text, nullable=False, server_default=""),
    Column("last_tried_at", Text, nullable=False, server_default=""),
    Column("recovered_at", Text, nullable=False, server_default=""),
    UniqueConstraint("client_id", "level", "account_id"),
)
Index("failed_by_cause", installs.c.cause, sqlite_where=installs.c.cause.is_not(None))

broken = Table(
    "broken",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("line", Integer, nullable=False),
    Column("location_id", Text, nullable=False),
    Column("company_id", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("layout", Integer, nullable=False),
    Column("cells", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("seen_at", Text, nullable=False),
)

todo = Table(
    "todo",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("client_id", Text, nullable=False),
    Column("install", Integer, nullable=False),
    Index("todo_of_app", "client_id", "seq"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", Text, nullable=False, unique=True),
    Column("run", Text, nullable=False),
)

pairs = Table("pairs", metadata, Column("fingerprint", Text, primary_key=True), sqlite_with_rowid=False)

spends = Table(
    "spends",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("client_id", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("state", Text, nullable=False),
)

reported = Table("reported", metadata, Column("install", Integer, primary_key=True))

reported_lines = Table(
    "reported_lines",
    metadata,
    Column("line", Integer, primary_key=True),
    Column("location_id", Text, nullable=False),
    Column("company_id", Text, nullable=False),
    Column("cells", Text, nullable=False, index=True),
)

temporary = MetaData()
listed = Table(
    "listed",
    temporary,
    Column("position", Integer, primary_key=True),
    Column("line", Integer, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("company_id", Text, nullable=False),
    Column("access_token", Text, nullable=False),
    Column("refresh_token", Text, nullable=False),
    Column("cells", Text, nullable=False),
    Column("repeats", Boolean, nullable=False, server_default=false()),
    prefixes=["TEMPORARY"],
)
LISTED_KEY = text("CREATE INDEX listed_key ON listed (client_id, level, account_id, position)")

torn = Table(
    "torn",
    temporary,
    Column("position", Integer, primary_key=True),
    Column("line", Integer, nullable=False),
    Column("location_id", Text, nullable=False),
    Column("company_id", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("cells", Text, nullable=False),
    Column("cell_count", Integer, nullable=False),
    Column("why", Text, nullable=False),
    prefixes=["TEMPORARY"],
)

of_a_run = MetaData()
bearers = Table(
    "bearers",
    of_a_run,
    Column("id", Integer, primary_key=True),
    Column("client_id", Text, nullable=False),
    Column("company_id", Text, nullable=False),
    Column("token", Text, nullable=False),
    Index("bearers_of_agency", "client_id", "company_id"),
    Index("bearers_of_app", "client_id", "id"),
    prefixes=["TEMPORARY"],
    sqlite_autoincrement=True,
)

locations = Table(
    "locations",
    of_a_run,
    Column("client_id", Text, primary_key=True),
    Column("location_id", Text, primary_key=True),
    Column("company_id", Text, nullable=False),
    prefixes=["TEMPORARY"],
    sqlite_with_rowid=False,
)

SAME_INSTALL = (
    (listed.c.client_id == installs.c.client_id)
    & (listed.c.level == installs.c.level)
    & (listed.c.account_id == installs.c.account_id)
)


@contextmanager
def at_one_moment(engine: Engine) -> Iterator[Connection]:
    """A connection that sees the ledger as it stands at its first question, however much is written meanwhile."""
    with engine.connect() as connection:
        connection.execute(text("BEGIN"))  # Python's SQLite begins nothing for what only reads.
        yield connection


def remembered(connection: Connection, name: str) -> str | None:
    """What `remember` kept under `name`, if anything."""
    value: str | None = connection.scalar(select(meta.c.value).where(meta.c.name == name))
    return value


def remember(connection: Connection, name: str, value: str) -> None:
    """Keep `value` under `name`, in the place of what was there."""
    statement = upsert(meta).values(name=name, value=value)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": value}))


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
