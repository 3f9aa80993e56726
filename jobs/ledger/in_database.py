"""Opens a ledger in PostgreSQL: makes or upgrades the tables, finds the ledger by its name and API, and takes the leases."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from sqlalchemy import func, select, update
from sqlalchemy.exc import DBAPIError

from jobs.core.errors import UserError, refuse
from jobs.core.secret import plain
from jobs.ledger import shared_tables, tables
from jobs.ledger.engines import Purpose, transaction, upsert
from jobs.ledger.last_use import LastUse
from jobs.ledger.lease import LeaseKey, Leases, break_leases, held_leases
from jobs.ledger.ledger import Ledger
from jobs.ledger.moves import marks_of, refuse_moved
from jobs.ledger.opening import empty_ledger
from jobs.ledger.postgres import Database, Session, check_url, open_engine, problem_of
from jobs.ledger.recent import Recent
from jobs.ledger.refusals import AwayError, usual_wait
from jobs.ledger.scratch import Scratch
from jobs.ledger.shared_tables import ledgers, speak_of
from jobs.ledger.sqlite import folder_for_temporary_files, prepare
from jobs.system.lock_holders import this_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from jobs.config.settings import LedgerSettings
    from jobs.ledger.lease import Shown
    from jobs.ledger.moves import Marks
    from jobs.ledger.refusals import Wait

_MADE_MEANWHILE = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.DuplicateSchema,
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateObject,
)
_MOST_HOLDER = 500
_LOOK_SECONDS = 0.5  # Between two tries to reach a database that is away.
_NOTICE_SECONDS = 1.0  # Until it is said that the database is waited for, since nothing is sent meanwhile.

_LOSES = "a crash of the server loses pairs that were written last; set it on for this user (ALTER ROLE ... SET)"


class Known(NamedTuple):
    """A ledger that the database holds. It was last used at a time (UTC, ISO 8601) by a machine."""

    id: int
    base_url: str
    used_at: str = ""
    used_by: str = ""
    moved_to: str = ""


def name_of(settings: LedgerSettings, folder: Path) -> str:
    """The name of the ledger of an output folder. Raises UserError if a database cannot hold it."""
    name = settings.name or folder.resolve().name
    if not name.isprintable():  # Bytes that are not UTF-8 are not printable either.
        raise refuse("has a name that cannot be that of a ledger in a database", repr(str(folder)), "set ledger.name")
    return name


def named(settings: LedgerSettings, folder: Path) -> str:
    """The ledger of an output folder by its name and place, without anything secret."""
    return f"the ledger {name_of(settings, folder)} of {database_of(settings).shown}, schema {settings.schema}"


def database_of(settings: LedgerSettings) -> Database:
    """The database. Its answer is waited for a third of a lease. Raises UserError if the address must not be used."""
    check_url(settings.url)
    return Database(settings.url, settings.schema, settings.lease_seconds / 3)


@contextmanager
def _refusing(database: Database) -> Iterator[None]:
    """Turn errors of the database into a UserError: nothing has begun yet."""
    try:
        yield
    except AwayError as error:
        raise UserError(error.problem) from None
    except psycopg.Error as error:
        raise UserError(problem_of(database, error)) from None
    except DBAPIError as error:  # A right that this user lacks.
        if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise
        raise UserError(problem_of(database, error.orig)) from None


def connected(database: Database, reconnected: Callable[..., None] = lambda *_: None) -> tuple[Engine, Session]:
    """The engine of the database, and the session of its transactions. Nothing is known to be there yet."""
    session = Session(database)
    return open_engine(session, reconnected), session


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
    if not _has_schema(connection, database):
        connection.exec_driver_sql(f'CREATE SCHEMA "{database.schema}"')
    version = _version(connection, database)
    if version is None:
        shared_tables.make(connection)
    elif version < tables.VERSION:
        shared_tables.upgrade(connection)


def _version(connection: Connection, database: Database) -> int | None:
    """The version of the tables, or None if there are none. Raises as `make_ready`."""
    if not _has_schema(connection, database):
        return None
    version = shared_tables.version(connection)
    if version is not None and version > tables.VERSION:
        what = f"has version {version}, but this job only knows versions up to {tables.VERSION}"
        raise refuse(what, _where(database), "use the newer release of the job")
    return version


def _where(database: Database) -> str:
    return f"{database.shown}, schema {database.schema}"


def _has_schema(connection: Connection, database: Database) -> bool:
    """Whether there is such a schema. Raises UserError if this user must not look into it, and would find it empty."""
    query = "SELECT has_schema_privilege(oid, 'USAGE'), current_user FROM pg_namespace WHERE nspname = %s"
    found = connection.exec_driver_sql(query, (database.schema,)).one_or_none()
    if found is None:
        return False
    usable, user = found
    if not usable:
        todo = f"make {user} its owner: ALTER SCHEMA {database.schema} OWNER TO {user}, or set ledger.schema"
        raise refuse(f"must not be used by {user}", _where(database), todo)
    return True


def known_ledgers(connection: Connection, name: str) -> list[Known]:
    """The ledgers of this name, one for each API."""
    used = func.coalesce(func.to_char(func.timezone("UTC", ledgers.c.used_at), 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), "")
    query = select(ledgers.c.id, ledgers.c.base_url, used, ledgers.c.used_by, ledgers.c.moved_to)
    return [Known(*row) for row in connection.execute(query.where(ledgers.c.name == name).order_by(ledgers.c.base_url))]


def find(connection: Connection, name: str, base_url: str, where: str, *, even_moved: bool = False) -> Known | None:
    """The ledger of this name and API. Raises UserError if the name is known under another API alone, or if it was moved.

    `even_moved` allows the last.
    """
    found = known_ledgers(connection, name)
    mine = next((one for one in found if one.base_url == base_url), None)
    if mine is None and found:
        todo = "use a different --output or ledger.name, or set HIGHLEVEL_BASE_URL as it was"
        others = ", ".join(one.base_url for one in found)
        raise refuse(f"belongs to {others}, not to {base_url}", f"the ledger {name} of {where}", todo)
    if mine is not None and mine.moved_to and not even_moved:
        todo = "use that file without RECOVERY_LEDGER__URL, or use a different --output or ledger.name"
        raise refuse_moved(f"the ledger {name} of {where}", f"{mine.moved_to} on {mine.used_by}", todo)
    return mine


def found_or_made(connection: Connection, name: str, base_url: str, where: str, *, even_moved: bool = False) -> Known:
    """The ledger of this name and API, which is made if it is missing. Raises as `find`."""
    mine = find(connection, name, base_url, where, even_moved=even_moved)
    if mine is None:
        # Another start may make it at this moment.
        new = upsert(connection, ledgers).values(name=name, base_url=base_url).on_conflict_do_nothing()
        connection.execute(new)
        mine = find(connection, name, base_url, where)
    assert mine is not None
    return mine


def open_in_database(
    settings: LedgerSettings,
    folder: Path,
    base_url: str,
    wait: Wait,
    holder: str,
    client_ids: Iterable[str],
    *,
    even_moved: bool = False,
) -> Ledger:
    """The ledger of `folder`'s name, made if it is missing. `holder` has the leases of it and of these apps until it is closed.

    `even_moved`: also one that was moved. Raises UserError, with exit 11 if another run has a lease.
    """
    name, database = name_of(settings, folder), database_of(settings)
    recent = Recent(time.monotonic)
    engine, session = connected(database, recent.alarm)
    apps = [LeaseKey(base_url, client_id, "") for client_id in client_ids]
    with _refusing(database):
        make_ready(engine, database)
        with transaction(engine, Purpose.WRITE) as connection:
            known = found_or_made(connection, name, base_url, database.shown, even_moved=even_moved)
            session.ledger = known.id
        leases = _leased(session, settings, [*apps, LeaseKey(base_url, "", name)], holder)
        try:
            leases.went_back = recent.alarm
            session.hurries = lambda: wait.hurries
            with transaction(engine, Purpose.WRITE) as connection:
                _note_use(connection, session.ledger)
                _warn_of_late_commits(connection, database, wait)
            ledger = _ledger(engine, settings, folder, wait, leases, recent)
        except BaseException:
            leases.give_back()
            raise
    ledger.last_use = LastUse(named(settings, folder), known.used_at, known.used_by)
    return ledger


def take_leases(settings: LedgerSettings, base_url: str, client_ids: Iterable[str], holder: str) -> Leases:
    """The leases of these apps, which `holder` has until they are given back. Raises UserError, with exit 11 if another run
    has one.
    """
    database = database_of(settings)
    engine, _ = connected(database)
    leases = _leases(settings, database, [LeaseKey(base_url, client_id, "") for client_id in client_ids], holder)
    try:
        with _refusing(database):
            make_ready(engine, database)
            leases.take()
    finally:
        engine.dispose()
    return leases


def _leases(settings: LedgerSettings, database: Database, keys: list[LeaseKey], holder: str) -> Leases:
    # A list may have any name, also one that is not UTF-8.
    who = plain(f"{this_process()} ({holder})".encode(errors="replace").decode(), _MOST_HOLDER)
    return Leases(database, keys, settings.lease_seconds, settings.patience_seconds, who)


def fill_in_database(
    settings: LedgerSettings,
    folder: Path,
    base_url: str,
    holder: str,
    fill: Callable[[Connection], None],
    seal: Callable[[], None],
    *,
    replaces: bool,
) -> None:
    """Make the ledger of `folder`'s name with what `fill` writes, in one transaction, which is committed after `seal`.

    `replaces`: the ledger is there, and its rows go. Raises UserError, with exit 11 if a run has its lease, and what the two
    raise.
    """
    name, database = name_of(settings, folder), database_of(settings)
    engine, session = connected(database)
    with ExitStack() as held, _refusing(database):
        held.callback(engine.dispose)
        make_ready(engine, database)
        held.callback(_leased(session, settings, [LeaseKey(base_url, "", name)], holder).give_back)
        with transaction(engine, Purpose.BULK) as connection:
            there = find(connection, name, base_url, database.shown, even_moved=True)
            if (there is not None) != replaces:  # Another copy was faster.
                raise refuse("holds a ledger by now", named(settings, folder), "look at it, and use a different name")
            number = found_or_made(connection, name, base_url, database.shown, even_moved=True).id
            speak_of(connection, number)
            for table in reversed(tables.metadata.sorted_tables):
                connection.execute(table.delete())
            fill(connection)
            _note_use(connection, number)
            seal()


def _leased(session: Session, settings: LedgerSettings, keys: list[LeaseKey], holder: str) -> Leases:
    """These leases, taken. The session proves them from now on."""
    leases = _leases(settings, session.database, keys, holder)
    leases.take()
    session.token, session.leases, session.idle_seconds = leases.token, len(leases), settings.lease_seconds
    session.reachable, session.epochs = leases.reachable, leases.epochs
    return leases


def _warn_of_late_commits(connection: Connection, database: Database, wait: Wait) -> None:
    """Say so if a commit may be answered before it is synced."""
    if connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "off":
        wait.patience.say(f"{database.shown} has synchronous_commit off: {_LOSES}")


def _note_use(connection: Connection, ledger: int) -> None:
    """Remember where and when a ledger was used last."""
    mine = update(ledgers).where(ledgers.c.id == ledger)
    connection.execute(mine.values(used_at=func.clock_timestamp(), used_by=socket.gethostname()))


def leases_in(settings: LedgerSettings) -> list[Shown]:
    """All leases that somebody holds, also those whose time is over. Raises UserError."""
    database = database_of(settings)
    with _refusing(database):
        return held_leases(database)


def release_leases(
    settings: LedgerSettings, base_url: str, client_ids: Iterable[str], *, only_look: bool = False
) -> list[Shown]:
    """The leases that were broken, or with `only_look` those that would be: of this API, for these apps and for the ledger of
    the settings' name, or for all ledgers if that is empty. Raises UserError.
    """
    database = database_of(settings)
    act = held_leases if only_look else break_leases
    which = "base_url = %s AND (client_id = ANY(%s) OR (client_id = '' AND %s IN (ledger, '')))"
    with _refusing(database):
        return act(database, which, (base_url, [*client_ids], settings.name))


def end_leases(settings: LedgerSettings, token: str) -> None:
    """End the leases of a run that was cut short. If the database is away, they run out by themselves."""
    with suppress(psycopg.Error):
        break_leases(database_of(settings), "token = %s", (token,))


def open_beside(
    settings: LedgerSettings, folder: Path, base_url: str, wait: Wait, lease: str = "", *, only_looks: bool = False
) -> Ledger:
    """The ledger of `folder`'s name, without a lease of its own: a run may be under way. Raises UserError.

    Tables of an earlier version are brought up to date, unless the caller `only_looks`. `lease` is the token of a run that was cut short: then each write proves that the run still has its leases.
    """
    name, database = name_of(settings, folder), database_of(settings)
    engine, session = connected(database)
    if not only_looks:
        with _refusing(database):
            make_ready(engine, database)
    with _refusing(database), transaction(engine, Purpose.READ) as connection:
        known = _find(connection, database, name, base_url)
        if known is None:
            raise refuse("holds no such ledger", f"{_where(database)}, {name}", "use the output folder of a run")
        session.ledger = known.id
        if lease:
            mine = select(func.count()).select_from(shared_tables.leases).where(shared_tables.leases.c.token == lease)
            session.token, session.idle_seconds = lease, settings.lease_seconds
            session.leases = max(1, connection.scalar(mine) or 0)
    return _ledger(engine, settings, folder, wait, None)


@contextmanager
def reading_from(settings: LedgerSettings, folder: Path, base_url: str) -> Iterator[Ledger]:
    """The ledger of `folder`'s name, or an empty one if there is none. Raises UserError."""
    if look_up(settings, folder, base_url) is None:
        ledger = empty_ledger(folder)
    else:
        ledger = open_beside(settings, folder, base_url, usual_wait(), only_looks=True)
    try:
        with _refusing(database_of(settings)):
            yield ledger
    finally:
        ledger.close()


def look_up(settings: LedgerSettings, folder: Path, base_url: str) -> Known | None:
    """What the database knows of the ledger of `folder`'s name, or None if it has none. Raises UserError."""
    with _looking(settings) as (connection, database):
        return _find(connection, database, name_of(settings, folder), base_url)


def marks_in_database(settings: LedgerSettings, folder: Path, base_url: str) -> Marks | None:
    """The marks of the ledger of `folder`'s name, or None if there is none. Raises UserError."""
    with _looking(settings) as (connection, database):
        known = _find(connection, database, name_of(settings, folder), base_url, even_moved=True)
        if known is None:
            return None
        speak_of(connection, known.id)
        return marks_of(connection)


@contextmanager
def _looking(settings: LedgerSettings) -> Iterator[tuple[Connection, Database]]:
    """A connection to look for a ledger, and its database."""
    database = database_of(settings)
    engine, _ = connected(database)
    try:
        with _refusing(database), transaction(engine, Purpose.READ) as connection:
            yield connection, database
    finally:
        engine.dispose()


def _find(
    connection: Connection, database: Database, name: str, base_url: str, *, even_moved: bool = False
) -> Known | None:
    """The ledger of this name and API, or None. Nothing is made. Raises UserError as `find` does."""
    if _version(connection, database) is None:
        return None
    return find(connection, name, base_url, database.shown, even_moved=even_moved)


def _ledger(
    engine: Engine,
    settings: LedgerSettings,
    folder: Path,
    wait: Wait,
    leases: Leases | None,
    recent: Recent | None = None,
) -> Ledger:
    temporary, store = folder_for_temporary_files(folder)
    scratch = Scratch(lambda of_run: prepare(of_run, folder, temporary, wait, store))
    wait.patience = replace(
        wait.patience, seconds=settings.patience_seconds, notice=_NOTICE_SECONDS, look=_LOOK_SECONDS
    )
    return Ledger(engine, scratch, wait, leases, recent)
