"""Which ledgers a database holds, by name and API, in tables that are made or brought up to date at a start."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from sqlalchemy import func, select, update
from sqlalchemy.exc import DBAPIError

from jobs.core.errors import refuse
from jobs.ledger import shared_tables, tables
from jobs.ledger.engines import Purpose, transaction, upsert
from jobs.ledger.moves import refuse_moved
from jobs.ledger.shared_tables import ledgers

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from jobs.ledger.postgres import Database

_MADE_MEANWHILE = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.DuplicateSchema,
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateObject,
)


# Those of extensions, like pg_stat_statements in the schema public, do not count.
_RELATION = """
SELECT relname FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s)
AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
ORDER BY relname LIMIT 1"""


class Known(NamedTuple):
    """A ledger that the database holds. It was last used at a time (UTC, ISO 8601) by a machine."""

    id: int
    base_url: str
    used_at: str = ""
    used_by: str = ""
    moved_to: str = ""


def make_ready(engine: Engine, database: Database) -> None:
    """Make the schema and the tables, or bring them up to date, all or nothing. Raises UserError if they are newer than this
    job, or not this user's to use.
    """

    def once() -> None:
        with transaction(engine, Purpose.WRITE) as connection:
            _make_ready(connection, database)

    try:
        once()
    except DBAPIError as error:
        if not isinstance(error.orig, _MADE_MEANWHILE):
            raise
        once()  # Another start made them at the same moment. They are all there now.


def _make_ready(connection: Connection, database: Database) -> None:
    version = _version(connection, database)
    if version is None:
        if not _has_schema(connection, database):
            connection.exec_driver_sql(f'CREATE SCHEMA "{database.schema}"')
        shared_tables.make(connection)
    elif version < tables.VERSION:
        shared_tables.upgrade(connection)


def _version(connection: Connection, database: Database) -> int | None:
    """The version of the tables, or None if there are none. Raises as `make_ready`."""
    if not _has_schema(connection, database):
        return None
    # Asked first: another start makes all of its tables at one moment, the version among them.
    strange = connection.exec_driver_sql(_RELATION, (database.schema,)).scalar()
    version = shared_tables.version(connection)
    if version is None and strange is not None:
        what = f"has a schema {database.schema} that holds something else, like {strange}"
        raise refuse(what, database.where, "set ledger.schema to one that is not there yet, or is empty")
    if version is not None and version > tables.VERSION:
        what = f"has version {version}, but this job only knows versions up to {tables.VERSION}"
        raise refuse(what, database.where, "use the newer release of the job")
    return version


def _has_schema(connection: Connection, database: Database) -> bool:
    """Whether there is such a schema. Raises UserError if this user must not look into it, and would find it empty."""
    query = "SELECT has_schema_privilege(oid, 'USAGE'), current_user FROM pg_namespace WHERE nspname = %s"
    found = connection.exec_driver_sql(query, (database.schema,)).one_or_none()
    if found is None:
        return False
    usable, user = found
    if not usable:
        todo = f"make {user} its owner: ALTER SCHEMA {database.schema} OWNER TO {user}, or set ledger.schema"
        raise refuse(f"cannot be used by {user} (it has no USAGE right)", database.where, todo)
    return True


def ledgers_named(connection: Connection, name: str) -> list[Known]:
    """The ledgers of this name, one for each API."""
    used = func.coalesce(func.to_char(func.timezone("UTC", ledgers.c.used_at), 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), "")
    query = select(ledgers.c.id, ledgers.c.base_url, used, ledgers.c.used_by, ledgers.c.moved_to)
    return [Known(*row) for row in connection.execute(query.where(ledgers.c.name == name).order_by(ledgers.c.base_url))]


def find_ledger(
    connection: Connection, database: Database, name: str, base_url: str, *, even_moved: bool = False
) -> Known | None:
    """The ledger of this name and API. Raises UserError if the name is known under another API alone, or if it was moved.

    `even_moved` allows the last.
    """
    found = ledgers_named(connection, name)
    mine = next((one for one in found if one.base_url == base_url), None)
    if mine is None and found:
        todo = "use a different --output or ledger.name, or set HIGHLEVEL_BASE_URL as it was"
        others = ", ".join(one.base_url for one in found)
        raise refuse(f"belongs to {others}, not to {base_url}", f"the ledger {name} of {database.shown}", todo)
    if mine is not None and mine.moved_to and not even_moved:
        todo = "unset RECOVERY_LEDGER__URL to use that file, or use a different --output or ledger.name"
        raise refuse_moved(f"the ledger {name} of {database.shown}", f"{mine.moved_to} on {mine.used_by}", todo)
    return mine


def found_or_made(
    connection: Connection, database: Database, name: str, base_url: str, *, even_moved: bool = False
) -> Known:
    """The ledger of this name and API, which is made if it is missing. Raises as `find_ledger`."""
    mine = find_ledger(connection, database, name, base_url, even_moved=even_moved)
    if mine is None:
        # Another start may make it at this moment.
        new = upsert(connection, ledgers).values(name=name, base_url=base_url).on_conflict_do_nothing()
        connection.execute(new)
        mine = find_ledger(connection, database, name, base_url)
    assert mine is not None
    return mine


def find_if_made(
    connection: Connection, database: Database, name: str, base_url: str, *, even_moved: bool = False
) -> Known | None:
    """The ledger of this name and API, or None. Nothing is made. Raises UserError as `find_ledger` does."""
    if _version(connection, database) is None:
        return None
    return find_ledger(connection, database, name, base_url, even_moved=even_moved)


def note_use(connection: Connection, ledger: int) -> None:
    """Remember where and when a ledger was used last."""
    mine = update(ledgers).where(ledgers.c.id == ledger)
    connection.execute(mine.values(used_at=func.clock_timestamp(), used_by=socket.gethostname()))
