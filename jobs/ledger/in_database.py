"""Opens a ledger in PostgreSQL: to run on it, beside a run, only to read, or to fill it with a copy."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from jobs.core.errors import refuse
from jobs.ledger import shared_tables, tables
from jobs.ledger.engines import Purpose, transaction
from jobs.ledger.last_use import LastUse
from jobs.ledger.lease import LeaseKey
from jobs.ledger.leasing import leased
from jobs.ledger.ledger import Ledger
from jobs.ledger.moves import marks_of
from jobs.ledger.opening import empty_ledger, scratch_for
from jobs.ledger.postgres import database_of, open_engine, refusing
from jobs.ledger.recent import Recent
from jobs.ledger.refusals import usual_wait
from jobs.ledger.registry import find_if_made, find_ledger, found_or_made, make_ready, note_use
from jobs.ledger.shared_tables import speak_of
from jobs.ledger.sqlite import folder_for_temporary_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from jobs.config.settings import LedgerSettings
    from jobs.ledger.lease import Leases
    from jobs.ledger.moves import Marks
    from jobs.ledger.postgres import Database
    from jobs.ledger.refusals import Wait
    from jobs.ledger.registry import Known

_LOOK_SECONDS = 0.5  # Between two tries to reach a database that is away.
_NOTICE_SECONDS = 1.0  # Until it is said that the database is waited for, since nothing is sent meanwhile.
_LOSES = "a crash of the server loses pairs that were written last; set it on for this user (ALTER ROLE ... SET)"


def name_of(settings: LedgerSettings, folder: Path) -> str:
    """The name of the ledger of an output folder. Raises UserError if a database cannot hold it."""
    name = settings.name or folder.resolve().name
    if not name.isprintable():  # Bytes that are not UTF-8 are not printable either.
        raise refuse("has a name that cannot be that of a ledger in a database", repr(str(folder)), "set ledger.name")
    return name


def named(settings: LedgerSettings, folder: Path) -> str:
    """The ledger of an output folder by its name and place, without anything secret."""
    return f"the ledger {name_of(settings, folder)} of {database_of(settings).where}"


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
    engine, session = open_engine(database, recent.alarm)
    apps = [LeaseKey(base_url, client_id, "") for client_id in client_ids]
    with refusing(database), ExitStack() as undo:
        undo.callback(engine.dispose)  # Whoever is told why may keep the error, and the engine with it.
        make_ready(engine, database)
        with transaction(engine, Purpose.WRITE) as connection:
            known = found_or_made(connection, database, name, base_url, even_moved=even_moved)
            session.ledger = known.id
        leases = leased(session, settings, [*apps, LeaseKey(base_url, "", name)], holder)
        undo.callback(leases.give_back)
        leases.went_back = recent.alarm
        session.hurries = lambda: wait.hurries
        with transaction(engine, Purpose.WRITE) as connection:
            note_use(connection, session.ledger)
            _warn_of_late_commits(connection, database, wait)
        ledger = _ledger(engine, settings, folder, wait, leases, recent)
        ledger.last_use = _last_use(settings, folder, known)
        undo.pop_all()
    return ledger


def _last_use(settings: LedgerSettings, folder: Path, known: Known | None) -> LastUse:
    return LastUse(named(settings, folder), *((known.used_at, known.used_by) if known else ()))


def _warn_of_late_commits(connection: Connection, database: Database, wait: Wait) -> None:
    """Say so if a commit may be answered before it is synced."""
    if connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "off":
        wait.patience.say(f"{database.shown} has synchronous_commit off: {_LOSES}")


def fill_in_database(
    settings: LedgerSettings,
    folder: Path,
    base_url: str,
    holder: str,
    fill: Callable[[Connection], None],
    retire: Callable[[], None],
    *,
    replaces: bool,
) -> None:
    """Make the ledger of `folder`'s name with what `fill` writes, in one transaction.

    `retire` is called just before it is committed.
    `replaces`: the ledger is there, and its rows go. Raises UserError, with exit 11 if a run has its lease, and what the two
    raise.
    """
    name, database = name_of(settings, folder), database_of(settings)
    engine, session = open_engine(database)
    with ExitStack() as held, refusing(database):
        held.callback(engine.dispose)
        make_ready(engine, database)
        held.callback(leased(session, settings, [LeaseKey(base_url, "", name)], holder).give_back)
        with transaction(engine, Purpose.BULK) as connection:
            there = find_ledger(connection, database, name, base_url, even_moved=True)
            if (there is not None) != replaces:  # Another copy was faster.
                raise refuse("already holds a ledger", named(settings, folder), "look at it, and use a different name")
            number = (there or found_or_made(connection, database, name, base_url)).id
            speak_of(connection, number)
            for table in reversed(tables.metadata.sorted_tables):
                connection.execute(table.delete())
            fill(connection)
            note_use(connection, number)
            retire()


def open_beside(settings: LedgerSettings, folder: Path, base_url: str, wait: Wait, lease: str = "") -> Ledger:
    """The ledger of `folder`'s name, without a lease of its own: a run may be under way. Raises UserError.

    Tables of an earlier version are brought up to date. `lease` is the token of a run that was cut short. With it, each
    write proves that the run still has its leases.
    """
    name, database = name_of(settings, folder), database_of(settings)
    engine, session = open_engine(database)
    with refusing(database), ExitStack() as undo:
        undo.callback(engine.dispose)
        make_ready(engine, database)
        with transaction(engine, Purpose.READ) as connection:
            known = find_if_made(connection, database, name, base_url)
            if known is None:
                raise refuse("holds no such ledger", f"{database.where}, {name}", "use the output folder of a run")
            session.ledger = known.id
            if lease:
                leases = shared_tables.leases
                mine = select(func.count()).select_from(leases).where(leases.c.token == lease)
                session.token, session.idle_seconds = lease, settings.lease_seconds
                session.leases = max(1, connection.scalar(mine) or 0)
        undo.pop_all()
    return _ledger(engine, settings, folder, wait, None)


@contextmanager
def reading_from(settings: LedgerSettings, folder: Path, base_url: str) -> Iterator[Ledger]:
    """The ledger of `folder`'s name, or an empty one if there is none. Raises UserError."""
    name, database = name_of(settings, folder), database_of(settings)
    engine, session = open_engine(database)
    with refusing(database), ExitStack() as held:
        held.callback(engine.dispose)
        with transaction(engine, Purpose.READ) as connection:
            known = find_if_made(connection, database, name, base_url)
        session.ledger = known.id if known else 0
        ledger = _ledger(engine, settings, folder, usual_wait(), None) if known else empty_ledger(folder)
        held.callback(ledger.close)
        ledger.last_use = _last_use(settings, folder, known)
        yield ledger


def exists_in_database(settings: LedgerSettings, folder: Path, base_url: str) -> bool:
    """Whether the database has the ledger of `folder`'s name. Raises UserError."""
    with briefly_connected(settings) as (connection, database):
        return find_if_made(connection, database, name_of(settings, folder), base_url) is not None


def marks_in_database(settings: LedgerSettings, folder: Path, base_url: str) -> Marks | None:
    """The marks of the ledger of `folder`'s name, or None if there is none. Raises UserError."""
    with briefly_connected(settings) as (connection, database):
        known = find_if_made(connection, database, name_of(settings, folder), base_url, even_moved=True)
        if known is None:
            return None
        speak_of(connection, known.id)
        return marks_of(connection)


@contextmanager
def briefly_connected(settings: LedgerSettings) -> Iterator[tuple[Connection, Database]]:
    """A connection to look for a ledger, and its database."""
    database = database_of(settings)
    engine, _ = open_engine(database)
    try:
        with refusing(database), transaction(engine, Purpose.READ) as connection:
            yield connection, database
    finally:
        engine.dispose()


def _ledger(
    engine: Engine,
    settings: LedgerSettings,
    folder: Path,
    wait: Wait,
    leases: Leases | None,
    recent: Recent | None = None,
) -> Ledger:
    temporary, store = folder_for_temporary_files(folder)
    scratch = scratch_for(folder, temporary, wait, store)
    wait.patience = replace(
        wait.patience, seconds=settings.patience_seconds, notice=_NOTICE_SECONDS, look=_LOOK_SECONDS
    )
    return Ledger(engine, scratch, wait, leases, recent)
