"""Whether the pairs of a ledger are sealed. A ledger never holds open pairs beside sealed ones.

Only `recover seal` has both for a while. `meta` says so from its first transaction to its last.
"""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from jobs.core.errors import refuse
from jobs.ledger.tables import HAS_PAIR, HAS_SEALED_PAIR, installs, meta, remember, remembered

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

_SEALING = "sealing"


def is_sealed(connection: Connection) -> bool:
    """Whether the pairs of the ledger are sealed. False if there are none."""
    return _first_pair_is_sealed(connection) is True


def holds_sealed_pairs(connection: Connection) -> bool:
    """Whether any pair is sealed, even if somebody wrote an open one beside it."""
    return connection.execute(select(installs.c.id).where(HAS_SEALED_PAIR).limit(1)).first() is not None


def is_open(connection: Connection) -> bool:
    """Whether the pairs of the ledger are open. False if there are none."""
    return _first_pair_is_sealed(connection) is False


def _first_pair_is_sealed(connection: Connection) -> bool | None:
    """Whether some pair is sealed, which all others are too then. None if there is no pair."""
    return connection.scalar(select(HAS_SEALED_PAIR).select_from(installs).where(HAS_PAIR).limit(1))


def refuse_mixed(connection: Connection, folder: Path, *, seals: bool) -> None:
    """Raise UserError if a run's new pairs would not be sealed as the old ones are. `seals`: it seals them."""
    todo = f"run {command_for(folder)}"
    refuse_half_sealed(connection, folder, todo)
    if seals:
        refuse_open(connection, folder, todo)
    elif is_sealed(connection):
        what = "holds sealed pairs, but seal.recipients is empty, so new pairs would be open"
        raise refuse(what, str(folder), "set seal.recipients as it was, or use a different --output")


def refuse_open(connection: Connection, folder: Path, todo: str) -> None:
    """Raise UserError if the pairs are open, although the settings have recipients. `todo` is how to seal them."""
    if is_open(connection):
        raise refuse("holds pairs that are not sealed, but seal.recipients is set", str(folder), f"{todo} first")


def refuse_half_sealed(connection: Connection, folder: Path, todo: str = "") -> None:
    """Raise UserError if `recover seal` has begun and not ended. `todo` is how to run it."""
    if is_half_sealed(connection):
        what = "holds pairs that `recover seal` began to seal and did not finish"
        raise refuse(what, str(folder), f"{todo or f'run {command_for(folder)}'} again")


def command_for(folder: Path, more: str = "") -> str:
    """The command that seals the ledger of this folder, with `more` after it."""
    return f"`recover seal {quote(str(folder))}{more}`"


def is_half_sealed(connection: Connection) -> bool:
    """Whether `recover seal` has begun and not ended."""
    return remembered(connection, _SEALING) is not None


def begin_sealing(connection: Connection) -> None:
    """Remember that `recover seal` has begun."""
    remember(connection, _SEALING, "begun")


def end_sealing(connection: Connection) -> None:
    """Remember that no open pair is left."""
    connection.execute(delete(meta).where(meta.c.name == _SEALING))
