"""Whether the pairs of a ledger are sealed, and for whom. A ledger never holds open pairs beside sealed ones.

`meta` keeps the fingerprints of the recipients of new pairs, and that `recover seal` has begun and not ended.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from jobs.core.errors import refuse
from jobs.ledger.tables import HAS_OPEN_PAIR, installs, meta, remember, remembered

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy import Connection

_SEALED_TO = "sealed_to"
SEALING = "sealing"


def is_sealed(connection: Connection) -> bool:
    """Whether the pairs of the ledger are sealed."""
    return remembered(connection, _SEALED_TO) is not None


def seal_from_now_on(connection: Connection, recipients: Sequence[str]) -> None:
    """Remember that the pairs of the ledger are sealed, new ones for these recipients (by their fingerprints)."""
    remember(connection, _SEALED_TO, json.dumps([*recipients]))


def begin(connection: Connection, recipients: Sequence[str], folder: Path) -> None:
    """Begin a run whose new pairs are sealed for `recipients` (none: they are open). Raises UserError as `refuse_mixed`."""
    refuse_mixed(connection, recipients, folder)
    if recipients:
        seal_from_now_on(connection, recipients)


def refuse_mixed(connection: Connection, recipients: Sequence[str], folder: Path) -> None:
    """Raise UserError if new pairs would not be sealed as the old ones are. `folder` is that of the ledger."""
    refuse_half_sealed(connection, folder, f"run `recover seal {folder}`", seals=bool(recipients))
    if not recipients and is_sealed(connection):
        what = "holds sealed pairs, but seal.recipients is empty, so new pairs would be open"
        raise refuse(what, str(folder), "set seal.recipients as it was, or use a different --output")


def refuse_half_sealed(connection: Connection, folder: Path, todo: str, *, seals: bool) -> None:
    """Raise UserError if `recover seal` has begun and not ended, or it must come first because the settings have recipients
    (`seals`). `todo` is how to run it.
    """
    where = str(folder)
    if is_half_sealed(connection):
        raise refuse("holds pairs that `recover seal` began to seal and did not finish", where, f"{todo} again")
    if seals and connection.execute(select(installs.c.id).where(HAS_OPEN_PAIR).limit(1)).first():
        raise refuse("holds pairs that are not sealed, but seal.recipients is set", where, f"{todo} first")


def is_half_sealed(connection: Connection) -> bool:
    """Whether `recover seal` has begun and not ended."""
    return remembered(connection, SEALING) is not None


def begin_sealing(connection: Connection, recipients: Sequence[str]) -> None:
    """Remember that `recover seal` has begun, and for whom."""
    seal_from_now_on(connection, recipients)
    remember(connection, SEALING, "begun")


def end_sealing(connection: Connection) -> None:
    """Remember that no open pair is left."""
    connection.execute(delete(meta).where(meta.c.name == SEALING))
