"""The tables of the ledger, and how its SQLite file is opened.

`installs` is the truth; `broken` holds the lines of the newest manifest that cannot be used; `layouts` the user's
columns; `todo` the order of the run under way; `pairs` the
fingerprints of every pair ever recorded; `spends` those of the refresh tokens that were spent, or may be; `listed` and
`torn` (temporary, so never on disk under a name) the manifest of the run: its usable lines, with the old pairs in them,
and the broken ones; `reported` and `reported_lines` what the last report listed. Version 2 added `spends`, version 3
`reported`.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
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

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection, ExceptionContext

VERSION = 3
_USUAL_CACHE_KIB, _MOST_CACHE_KIB = 2_000, 48 << 10
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


class UnwritableError(OSError):
    """The disk will not have what is to be written, or will not give back what was."""

    def __str__(self) -> str:
        return self.strerror or ""


class DamagedError(UnwritableError):
    """The ledger's file is no ledger any more."""


def open_file(path: Path) -> Engine:
    """The engine of a ledger's file, which exists; every commit is synced before it returns.

    What it is used for raises UnwritableError where the disk is at fault.
    """
    return _prepared(create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool), "wal")


def open_memory() -> Engine:
    """A ledger that is nowhere, for a plan without one."""
    return _prepared(create_engine("sqlite://"), "memory")


@contextmanager
def cache_for(connection: Connection, installs: int) -> Iterator[None]:
    """A cache for a block that writes so many keys without order: in a small one their index is written many times over."""
    kib = min(_MOST_CACHE_KIB, max(_USUAL_CACHE_KIB, installs // 16))
    connection.exec_driver_sql(f"PRAGMA cache_size = -{kib}")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA cache_size = -{_USUAL_CACHE_KIB}")


def _prepared(engine: Engine, journal: str) -> Engine:
    def connected(connection: Any, _record: Any) -> None:
        for pragma in (f"journal_mode={journal}", "synchronous=FULL", "temp_store=FILE", "busy_timeout=10000"):
            connection.execute(f"PRAGMA {pragma}")

    event.listen(engine, "connect", connected)
    event.listen(engine, "handle_error", _blame_the_disk)
    return engine


def _blame_the_disk(context: ExceptionContext) -> None:
    """Tell a disk at fault from a bug of ours, which SQLite calls a plain error."""
    error = context.original_exception
    kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    no_text = isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode to UTF-8")
    if no_text or kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        raise DamagedError(0, f"the ledger is damaged ({error})")
    if isinstance(error, sqlite3.OperationalError) and kind != sqlite3.SQLITE_ERROR:
        raise UnwritableError(0, f"the ledger cannot be used ({error})")
