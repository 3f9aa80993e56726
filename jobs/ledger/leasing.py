"""Takes, shows and breaks the leases of a database, as the settings name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.core.secret import plain
from jobs.ledger.lease import LeaseKey, Leases, break_leases, held_leases
from jobs.ledger.postgres import database_of, open_engine, refusing
from jobs.ledger.registry import make_ready
from jobs.system.lock_holders import this_process

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobs.config.settings import LedgerSettings
    from jobs.ledger.lease import Shown
    from jobs.ledger.postgres import Session

_MOST_HOLDER = 500


def take_leases(settings: LedgerSettings, base_url: str, client_ids: Iterable[str], holder: str) -> Leases:
    """The leases of these apps, which `holder` has until they are given back. Raises UserError, with exit 11 if another run
    has one.
    """
    database = database_of(settings)
    engine, session = open_engine(database)
    try:
        with refusing(database):
            make_ready(engine, database)
            return leased(session, settings, [LeaseKey(base_url, client_id, "") for client_id in client_ids], holder)
    finally:
        engine.dispose()


def leased(session: Session, settings: LedgerSettings, keys: list[LeaseKey], holder: str) -> Leases:
    """These leases, taken. The session proves them from now on."""
    # A list may have any name, also one that is not UTF-8.
    who = plain(f"{this_process()} ({holder})".encode(errors="replace").decode(), _MOST_HOLDER)
    leases = Leases(session.database, keys, settings.lease_seconds, settings.patience_seconds, who)
    leases.take()
    session.token, session.leases, session.idle_seconds = leases.token, len(leases), settings.lease_seconds
    session.reachable, session.epochs = leases.reachable, leases.epochs
    return leases


def where_leases_are(settings: LedgerSettings) -> str:
    """The database and its schema, without anything secret. Raises UserError."""
    return database_of(settings).where


def leases_in(settings: LedgerSettings) -> list[Shown]:
    """All leases that somebody holds, also those whose time is over. Raises UserError."""
    database = database_of(settings)
    with refusing(database):
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
    with refusing(database):
        return act(database, which, (base_url, [*client_ids], settings.name))
