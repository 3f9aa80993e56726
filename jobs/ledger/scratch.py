"""What only this run may know: the old pairs of its list, the agencies' tokens, and the locations that agencies list.

It is a temporary SQLite database, whatever engine the ledger has. It never has a name on disk, and it ends with the
process. So the ledger holds no old token, and neither memory nor a database elsewhere has to hold a million of them.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Column, Index, Integer, MetaData, Table, Text, bindparam, create_engine, insert, select
from sqlalchemy.pool import StaticPool

from jobs.core.model import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Engine

_T = TypeVar("_T")
metadata = MetaData()

old_pairs = Table(
    "old_pairs",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("client_id", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("access_token", Text, nullable=False),
    Column("refresh_token", Text, nullable=False),
)

bearers = Table(
    "bearers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("client_id", Text, nullable=False),
    Column("company_id", Text, nullable=False),
    Column("token", Text, nullable=False),
    Index("bearers_of_agency", "client_id", "company_id"),
    Index("bearers_of_app", "client_id", "id"),
    sqlite_autoincrement=True,
)

locations = Table(
    "locations",
    metadata,
    Column("client_id", Text, primary_key=True),
    Column("location_id", Text, primary_key=True),
    Column("company_id", Text, nullable=False),
    sqlite_with_rowid=False,
)


class Scratch:
    """The temporary database. Only one thread may use it."""

    def __init__(self, prepare: Callable[[Engine], None]) -> None:
        # SQLite takes an empty name for a database on disk that it removes at its end.
        self._engine = create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect("", check_same_thread=False),
            poolclass=StaticPool,
            hide_parameters=True,
        )
        prepare(self._engine)
        self.keep(metadata.create_all)

    def close(self) -> None:
        """Forget everything."""
        self._engine.dispose()

    def ask(self, question: Callable[[Connection], _T]) -> _T:
        """What `question` reads."""
        with self._engine.connect() as connection:
            return question(connection)

    def keep(self, act: Callable[[Connection], _T]) -> _T:
        """What `act` returns, which may write. Raises UnwritableError if the disk for temporary files is full."""
        with self._engine.begin() as connection:
            return act(connection)


def replace_old_pairs(connection: Connection) -> None:
    """Forget the old pairs of an earlier list."""
    connection.execute(old_pairs.delete())


def keep_old_pairs(connection: Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Keep old pairs, by the position of their line in the list."""
    if rows:
        connection.execute(insert(old_pairs), rows)


_OLD_TOKENS = select(old_pairs.c.position, old_pairs.c.refresh_token).where(
    old_pairs.c.position.in_(bindparam("positions", expanding=True)), old_pairs.c.refresh_token != ""
)


def old_tokens(connection: Connection, positions: Collection[int]) -> dict[int, str]:
    """The old refresh tokens of these lines, of those that have one."""
    return {row[0]: row[1] for row in connection.execute(_OLD_TOKENS, {"positions": list(positions)})}


def has_old_token(connection: Connection) -> bool:
    """Whether any line has an old refresh token."""
    query = select(old_pairs.c.position).where(old_pairs.c.refresh_token != "").limit(1)
    return connection.execute(query).first() is not None


def agency_tokens(connection: Connection) -> Iterator[tuple[str, str, str]]:
    """The old access tokens of agencies, in the order of the list: client id, company id, token."""
    wanted = (old_pairs.c.level == Level.AGENCY.value, old_pairs.c.access_token != "")
    query = select(old_pairs.c.client_id, old_pairs.c.account_id, old_pairs.c.access_token)
    yield from map(tuple, connection.execute(query.where(*wanted).order_by(old_pairs.c.position)))
