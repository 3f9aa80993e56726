"""Forgets pairs. A scrub after that leaves no byte of a purged token (see `scrubbing`).

If a purge is killed in the middle, the next one goes through it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, update

from jobs.core.model import Delivery
from jobs.ledger.deliveries import IS_DELIVERED, let_new_ones_wait
from jobs.ledger.engines import json_with
from jobs.ledger.tables import HAS_PAIR, deliveries, installs

if TYPE_CHECKING:
    from sqlalchemy import Connection

_NO_TOKENS = '{"access_token": "", "refresh_token": "", "sealed": null, "fingerprint": null, "sealed_for": null}'


def forget(connection: Connection, *, everything: bool, at: str) -> int:
    """Empty the tokens of delivered pairs, or of all. Returns how many were forgotten."""
    if everything:
        let_new_ones_wait(connection)
        lost = select(installs.c.id).where(HAS_PAIR, ~IS_DELIVERED)
        gone = update(deliveries).where(deliveries.c.install.in_(lost))
        connection.execute(gone.values(state=Delivery.PURGED.value, turn="", at=at, why=""))
    mine = HAS_PAIR if everything else HAS_PAIR & IS_DELIVERED
    emptied = json_with(installs.c.tokens, _NO_TOKENS)
    return int(connection.execute(update(installs).where(mine).values(tokens=emptied)).rowcount)
