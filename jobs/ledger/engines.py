"""What SQLite and PostgreSQL do in different ways. Everything else of the ledger is the same code for both.

A connection says by its dialect which of the two it is. In PostgreSQL many ledgers share the tables, so the column
`ledger` belongs to every key (see `postgres`).
"""

from __future__ import annotations

from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, TypeDecorator, func, insert, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Column, Connection, Dialect, Engine, Table
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.sql.compiler import SQLCompiler

BLAME = "blame"
"""The name of what a connection to PostgreSQL knows: how to turn an error of the driver into an AwayError, if it is one."""
_NUL = "\ufdd0"  # One of Unicode's "noncharacters", which are for a program's own use.
_USUAL_CACHE_KIB, _MOST_CACHE_KIB = 2_000, 48 << 10


class Purpose(StrEnum):
    """What a transaction is for. The engine begins it accordingly."""

    WRITE = "write"  # It is exclusive from its first statement on.
    BULK = "bulk"  # The same, and it may take long: nothing is sent meanwhile.
    ONE_MOMENT = "one moment"  # It sees the ledger as it is at its first query, even if others write meanwhile.
    READ = "read"

    @property
    def writes(self) -> bool:
        """Whether the transaction is committed at its end."""
        return self in {Purpose.WRITE, Purpose.BULK}


@contextmanager
def transaction(engine: Engine, purpose: Purpose) -> Iterator[Connection]:
    """A connection in a transaction. One that writes is committed at the end of the block, or rolled back by an exception."""
    with engine.connect().execution_options(purpose=purpose) as connection:
        yield connection
        if purpose.writes:
            connection.commit()


def purpose_of(connection: Connection) -> Purpose:
    """What the transaction that begins on this connection is for."""
    return Purpose(connection.get_execution_options().get("purpose", Purpose.READ))


def is_postgres(one: Connection | Engine) -> bool:
    """Whether this is PostgreSQL; otherwise it is SQLite."""
    return one.dialect.name == "postgresql"


def upsert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can say what happens on a conflict."""
    if is_postgres(connection):
        from sqlalchemy.dialects import postgresql  # slow to import, and needed only there

        return postgresql.insert(table)
    return sqlite.insert(table)


def key_of(connection: Connection, *columns: str) -> list[str]:
    """The columns of a table's unique key."""
    return ["ledger", *columns] if is_postgres(connection) else [*columns]


class AnyText(TypeDecorator[str]):
    """Text with any sign. PostgreSQL takes no NUL, so there a sign that nobody writes stands for it."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The text as the database takes it."""
        return value.replace("\0", _NUL) if value and dialect.name == "postgresql" else value

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """The text as it was."""
        return value.replace(_NUL, "\0") if value and dialect.name == "postgresql" else value


class json_value(GenericFunction[str]):  # noqa: N801 - a function of SQL
    """A value of a JSON object in a text column: the column, then the name in the object."""

    type = Text()
    inherit_cache = True


class json_with(GenericFunction[str]):  # noqa: N801 - a function of SQL
    """A JSON object in a text column with some of its values replaced: the column, then an object of these as text."""

    type = Text()
    inherit_cache = True


_IN_SQL = {
    (json_value, "sqlite"): "json_extract({0}, '$.' || {1})",
    (json_value, "postgresql"): "(CAST({0} AS json) ->> {1})",
    (json_with, "sqlite"): "json_patch({0}, {1})",
    (json_with, "postgresql"): "CAST(CAST({0} AS jsonb) || CAST({1} AS jsonb) AS text)",
}


def _written(words: str, element: GenericFunction[str], compiler: SQLCompiler, **kw: Any) -> str:
    return words.format(*(compiler.process(part, **kw) for part in element.clauses))


for (_function, _dialect), _words in _IN_SQL.items():
    compiles(_function, _dialect)(partial(_written, _words))


def with_names(connection: Connection) -> Dialect:
    """The dialect of a statement whose parameters keep their names, for the driver."""
    return connection.dialect if is_postgres(connection) else sqlite.dialect(paramstyle="named")


def insert_many(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all have the same columns."""
    if not rows:
        return
    if not is_postgres(connection):
        connection.execute(insert(table), rows)
        return
    names = [*rows[0]]
    columns = ", ".join(f'"{name}"' for name in names)
    types = {name: table.c[name].type.dialect_impl(connection.dialect) for name in names}
    known = {name: kind.bind_processor(connection.dialect) for name, kind in types.items()}
    changed = [(name, change) for name, change in known.items() if change]
    cursor: Any = connection.connection.cursor()
    blame = connection.info[BLAME]
    try:
        with cursor, cursor.copy(f"COPY {_stored(table)} ({columns}) FROM STDIN") as copy:
            for row in rows:
                values = {**row, **{name: change(row[name]) for name, change in changed}}
                copy.write_row([values[name] for name in names])
    except connection.dialect.loaded_dbapi.Error as error:
        # SQLAlchemy does not know COPY, so it does not hear of its errors either.
        if away := blame(error):
            connection.invalidate()
            raise away from None
        raise


def index_long_text(connection: Connection, column: Column[str]) -> None:
    """Make an index on a column of a temporary table, whatever length its texts have."""
    # PostgreSQL's usual index takes no more than some 2,700 bytes.
    using = "USING hash " if is_postgres(connection) else ""
    connection.exec_driver_sql(
        f"CREATE INDEX {column.table.name}_{column.name} ON {column.table.name} {using}({column.name})"
    )


def _stored(table: Table) -> str:
    """The table behind the view of one ledger, since COPY takes no view. A temporary table is itself."""
    return table.name if "TEMPORARY" in table._prefixes else f"all_{table.name}"  # noqa: SLF001 - it has no public name


def continue_numbers(connection: Connection, table: Table) -> None:
    """Let the next number that the engine makes for a row of `table` be larger than all that were inserted.

    SQLite does so by itself. In PostgreSQL, other ledgers take numbers meanwhile. Taking them too never goes back.
    """
    number = table.autoincrement_column
    if number is None or not is_postgres(connection):
        return
    most = connection.scalar(select(func.max(number))) or 0
    sequence = connection.exec_driver_sql(
        f"SELECT pg_get_serial_sequence('{_stored(table)}', '{number.name}')"
    ).scalar()
    last = connection.exec_driver_sql(f"SELECT last_value FROM {sequence}").scalar() or 0  # noqa: S608 - our own name
    taking = "SELECT count(nextval(%s)) FROM generate_series(1, %s)"
    connection.exec_driver_sql(taking, (sequence, most - last + 1))  # One more: a new sequence has not given its first.


@contextmanager
def ready_for(connection: Connection, table: Table, rows: int) -> Iterator[None]:
    """Make ready for a block that compares `table`, which is new and has so many rows, with the ledger.

    SQLite gets a larger cache: a small one writes an index that grows in random order many times. PostgreSQL has to be
    told what a new temporary table holds.
    """
    if is_postgres(connection):
        connection.exec_driver_sql(f"ANALYZE {table.name}")
        yield
        return
    kib = min(_MOST_CACHE_KIB, max(_USUAL_CACHE_KIB, rows // 16))
    connection.exec_driver_sql(f"PRAGMA cache_size = -{kib}")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA cache_size = -{_USUAL_CACHE_KIB}")
