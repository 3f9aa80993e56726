"""Whether the set of failed installs has changed since a run last ended. A notification of changes depends on it."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import select

from jobs.core.model import Status
from jobs.ledger.engines import Purpose
from jobs.ledger.refusals import UnwritableError
from jobs.ledger.tables import broken, installs, remember, remembered

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from jobs.ledger.ledger import Ledger

_NAME = "failed_set"
_PAGE = 1_000  # Otherwise PostgreSQL's driver reads all rows into memory at once.
_NONE = hashlib.sha256().hexdigest()


def failed_set_changed(ledger: Ledger) -> bool:
    """Whether the failed installs are different from those of the last call. Saves a fingerprint for the next call."""
    try:
        before, now = ledger.ask(_fingerprints, Purpose.ONE_MOMENT)
        # Compared before the write, which is done twice if a database's answer is lost.
        if now != before:
            ledger.write(partial(remember, name=_NAME, value=now))
    except UnwritableError:
        return True  # If the disk refuses the write, that is news too.
    return now != before


def _fingerprints(connection: Connection) -> tuple[str, str]:
    """The fingerprint of the last call, and the one of now."""
    return remembered(connection, _NAME) or _NONE, _fingerprint(connection)


def _fingerprint(connection: Connection) -> str:
    """The fingerprint of INPUT's failed installs and broken lines. Their order in INPUT does not matter."""
    mark = hashlib.sha256()
    key = (installs.c.client_id, installs.c.level, installs.c.account_id)
    listed = installs.c.position.is_not(None), installs.c.status == Status.FAILED
    torn = (broken.c.location_id, broken.c.company_id, broken.c.cells)
    for query in (select(*key).where(*listed).order_by(*key), select(*torn).order_by(*torn)):
        for row in connection.execute(query, execution_options={"yield_per": _PAGE}):
            mark.update("\0".join(row).encode() + b"\n")
    return mark.hexdigest()
