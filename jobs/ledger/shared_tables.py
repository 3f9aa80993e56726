"""The ledger's tables where one PostgreSQL schema holds many ledgers.

Each table is `all_<name>`, with the number of its ledger, and `<name>` is a view of one ledger's rows, so that the same
queries serve both engines. Which ledger, is a setting of the transaction: a pooler gives each transaction another session.
A transaction without the setting fails, so ledgers are never mixed.

Row-level security would not do, since a superuser passes it. A schema for each ledger would need the right to make schemas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    insert,
    select,
    text,
    update,
)

from jobs.ledger import tables
from jobs.ledger.engines import AnyText

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

LEDGER = "highlevel_recovery.ledger"
_NUMBER = f"current_setting('{LEDGER}')::bigint"
# Bytes in order, as in SQLite, whatever the database's language is.
_TEXT = Text(collation="C")

own = MetaData()
schema_version = Table("schema_version", own, Column("version", Integer, nullable=False))

ledgers = Table(
    "ledgers",
    own,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("name", Text, nullable=False),
    Column("base_url", Text, nullable=False),
    Column("used_at", DateTime(timezone=True)),
    Column("used_by", Text, nullable=False, server_default=""),
    Column("moved_to", Text, nullable=False, server_default=""),
    UniqueConstraint("name", "base_url"),
)

leases = Table(
    "leases",
    own,
    Column("base_url", Text, primary_key=True),
    Column("client_id", Text, primary_key=True),  # Empty: the lease of a ledger.
    Column("ledger", Text, primary_key=True),  # Empty: the lease of an app.
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    Column("token", Text, nullable=False, server_default=""),  # Empty: nobody holds it.
    Column("holder", Text, nullable=False, server_default=""),
    Column("since", DateTime(timezone=True)),
    Column("until", DateTime(timezone=True)),
    Column("limits", Text, nullable=False, server_default=""),  # What the app has used of its limits, as JSON.
    Column("limits_at", DateTime(timezone=True)),
)


def make(connection: Connection) -> None:
    """Make all tables and views in the connection's current schema."""
    _make_missing(connection)
    connection.execute(insert(schema_version).values(version=tables.VERSION))


def version(connection: Connection) -> int | None:
    """The version of the tables, or None if there are none."""
    if connection.exec_driver_sql("SELECT to_regclass('schema_version')").scalar() is None:
        return None
    return connection.scalar(select(schema_version.c.version))


def upgrade(connection: Connection) -> None:
    """Bring the tables of an earlier version up to date. Every version so far has only added tables.

    A start that comes second waits for the first, and finds nothing to do.
    """
    older = schema_version.c.version < tables.VERSION
    if connection.execute(update(schema_version).where(older).values(version=tables.VERSION)).rowcount:
        _make_missing(connection)


def _make_missing(connection: Connection) -> None:
    """Make the tables that are missing, and replace all views."""
    shared = MetaData()
    for table in tables.metadata.sorted_tables:
        _shared(table, shared)
    own.create_all(connection)
    shared.create_all(connection)
    # The planner's statistics are a table of the server's, with samples of what a column holds.
    connection.exec_driver_sql("ALTER TABLE all_installs ALTER COLUMN tokens SET STATISTICS 0")
    for table in tables.metadata.sorted_tables:
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        view = f'SELECT ledger, {names} FROM "all_{table.name}" WHERE ledger = {_NUMBER} WITH LOCAL CHECK OPTION'  # noqa: S608 - our own names
        connection.exec_driver_sql(f'CREATE OR REPLACE VIEW "{table.name}" AS {view}')


def speak_of(connection: Connection, ledger: int) -> None:
    """Let the rest of the transaction read and write this ledger."""
    connection.exec_driver_sql("SELECT set_config(%s, %s, true)", (LEDGER, str(ledger)))


def mark_as_moved(connection: Connection, moved_to: str) -> None:
    """Say in the list of ledgers where the transaction's ledger was moved to. Empty: nowhere."""
    mine = ledgers.c.id == text(_NUMBER)
    connection.execute(update(ledgers).where(mine).values(moved_to=moved_to))


def _shared(table: Table, metadata: MetaData) -> None:
    """The table for all ledgers. The number of the ledger comes first in every key and index."""
    columns = [_column(column) for column in table.columns]
    unique = [one.columns for one in table.constraints if isinstance(one, UniqueConstraint)]
    keys = [[column.name for column in columns] for columns in unique if not _are_long(columns)]
    Table(
        f"all_{table.name}",
        metadata,
        Column("ledger", BigInteger, nullable=False, server_default=text(_NUMBER)),
        *columns,
        PrimaryKeyConstraint("ledger", *(column.name for column in table.primary_key)),
        *(UniqueConstraint("ledger", *key) for key in keys),
        *(_index(index) for index in table.indexes),
    )


def _column(column: Column[Any]) -> Column[Any]:
    number = isinstance(column.type, Integer)
    makes_numbers = column.primary_key and number and column.autoincrement is not False
    generated = [Identity()] if makes_numbers else []
    kind: Any = BigInteger() if number else _TEXT if isinstance(column.type, Text | AnyText) else column.type
    default: Any = column.server_default
    return Column(
        column.name, kind, *generated, nullable=column.nullable, server_default=default.arg if default else None
    )


def _index(index: Index) -> Index:
    if _are_long(index.columns):
        return Index(f"all_{index.name}", *(column.name for column in index.columns), postgresql_using="hash")
    where = index.dialect_options["sqlite"]["where"]
    names = [column.name for column in index.columns]
    if where is None:
        return Index(f"all_{index.name}", "ledger", *names)
    words = str(where.compile(compile_kwargs={"literal_binds": True, "include_table": False}))
    return Index(f"all_{index.name}", "ledger", *names, postgresql_where=text(words))


def _are_long(columns: Iterable[Column[Any]]) -> bool:
    """Whether texts among these columns may not fit into a usual index."""
    return any(column.info == tables.LONG for column in columns)
