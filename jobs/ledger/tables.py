"""The tables of the ledger.

- `installs` is the truth. `layouts` holds the user's columns.
- `broken` holds the lines of the newest manifest that cannot be used.
- `todo` is the order of the current run.
- `pairs` holds the fingerprints of every pair ever recorded.
- `spends` (since version 2) holds the fingerprints of refresh tokens that are or may be spent.
- `reported` and `reported_lines` (since version 3) hold what the last report listed.
- `deliveries` (since version 4) says how the pair recovered at that moment stands with the app's own store.
- `meta` holds single values by name, such as whether `recover seal` is under way (since version 5, see `sealed`).
- `listed` and `torn` are temporary: the usable lines of the manifest, and the broken ones, while they are taken in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    func,
    literal_column,
    select,
)

from jobs.ledger.engines import AnyText, json_value, key_of, upsert

if TYPE_CHECKING:
    from sqlalchemy import Connection

VERSION = 5  # Since then, a pair may be sealed: an earlier job would take it for a purged one.
metadata = MetaData()
LONG = {"long": True}
"""The `info` of a column whose texts may be too long for PostgreSQL's usual index."""

meta = Table("meta", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

layouts = Table(
    "layouts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("columns", Text, nullable=False, unique=True, info=LONG),
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
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("line", Integer, nullable=False),
    Column("location_id", AnyText, nullable=False),
    Column("company_id", AnyText, nullable=False),
    Column("client_id", AnyText, nullable=False),
    Column("layout", Integer, nullable=False),
    Column("cells", Text, nullable=False),
    Column("why", AnyText, nullable=False),
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

reported = Table("reported", metadata, Column("install", Integer, primary_key=True, autoincrement=False))

reported_lines = Table(
    "reported_lines",
    metadata,
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("location_id", AnyText, nullable=False),
    Column("company_id", AnyText, nullable=False),
    Column("cells", Text, nullable=False, index=True, info=LONG),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("install", Integer, primary_key=True, autoincrement=False),
    Column("recovered_at", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="waiting"),
    Column("turn", Text, nullable=False, server_default=""),
    Column("at", Text, nullable=False, server_default=""),
    Column("why", Text, nullable=False, server_default=""),
)
Index("deliveries_waiting", deliveries.c.turn, deliveries.c.install, sqlite_where=deliveries.c.state == "waiting")

temporary = MetaData()
listed = Table(
    "listed",
    temporary,
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("line", Integer, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("company_id", Text, nullable=False),
    Column("cells", Text, nullable=False),
    Column("repeats", Boolean, nullable=False, server_default=false()),
    prefixes=["TEMPORARY"],
)

torn = Table(
    "torn",
    temporary,
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("line", Integer, nullable=False),
    Column("location_id", AnyText, nullable=False),
    Column("company_id", AnyText, nullable=False),
    Column("client_id", AnyText, nullable=False),
    Column("cells", Text, nullable=False),
    Column("cell_count", Integer, nullable=False),
    Column("why", AnyText, nullable=False),
    prefixes=["TEMPORARY"],
)

OF_KEPT_PAIR = (deliveries.c.install == installs.c.id) & (deliveries.c.recovered_at == installs.c.recovered_at)
"""A row of `deliveries` that speaks of the pair an install has now."""
HAS_OPEN_PAIR = installs.c.tokens.is_not(None) & (json_value(installs.c.tokens, literal_column("'access_token'")) != "")
"""An install whose pair is here, and not sealed."""
HAS_SEALED_PAIR = installs.c.tokens.is_not(None) & (
    func.coalesce(json_value(installs.c.tokens, literal_column("'sealed'")), "") != ""
)
HAS_PAIR = HAS_OPEN_PAIR | HAS_SEALED_PAIR
"""An install whose pair is still here. A purged pair has neither tokens nor a sealed text."""
SAME_INSTALL = (
    (listed.c.client_id == installs.c.client_id)
    & (listed.c.level == installs.c.level)
    & (listed.c.account_id == installs.c.account_id)
)


def remembered(connection: Connection, name: str) -> str | None:
    """The value that `remember` stored under `name`, or None."""
    value: str | None = connection.scalar(select(meta.c.value).where(meta.c.name == name))
    return value


def remember(connection: Connection, name: str, value: str) -> None:
    """Store `value` under `name`, in place of the earlier value."""
    statement = upsert(connection, meta).values(name=name, value=value)
    key = key_of(connection, "name")
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_={"value": value}))
