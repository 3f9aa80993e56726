"""The marks of a ledger: where it came from, and where it went, so that only the newest of its copies is used.

Each copy has an id. The new ledger keeps it as the one that it came as, and the old ledger as the one that it moved as.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jobs.core.errors import refuse
from jobs.ledger import shared_tables
from jobs.ledger.engines import is_postgres
from jobs.ledger.tables import remember, remembered

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from jobs.core.errors import UserError

_CAME_AS, _MOVED_AS, _MOVED_TO = "came_as", "moved_as", "moved_to"
OF_THE_PLACE = ("base_url", _CAME_AS, _MOVED_AS, _MOVED_TO)
"""What `meta` says about the place of a ledger, which a copy elsewhere does not take along."""


class Marks(NamedTuple):
    """The ids of the copy that a ledger came as and of the one that it moved as, and where it moved to. Empty: never."""

    came_as: str = ""
    moved_as: str = ""
    moved_to: str = ""


def marks_of(connection: Connection) -> Marks:
    """The marks of a ledger."""
    return Marks(*(remembered(connection, name) or "" for name in (_CAME_AS, _MOVED_AS, _MOVED_TO)))


def mark(connection: Connection, marks: Marks) -> None:
    """Replace the marks of a ledger."""
    for name, value in zip((_CAME_AS, _MOVED_AS, _MOVED_TO), marks, strict=True):
        remember(connection, name, value)
    if is_postgres(connection):
        shared_tables.mark_as_moved(connection, marks.moved_to)


def refuse_moved(what: str, moved_to: str, todo: str) -> UserError:
    """The error for the use of a ledger that was moved."""
    again = "if that copy was cut short, repeat `recover ledger copy`"
    return refuse(f"was moved to {moved_to}", what, f"{todo}; {again}")


def is_copied(source: Marks, target: Marks | None) -> bool:
    """Whether the target already is the copy that the source says it moved as."""
    return target is not None and bool(source.moved_as) and source.moved_as == target.came_as


def may_replace(source: Marks, target: Marks) -> bool:
    """Whether the source is what became of the target, so that nothing is lost if the target is replaced."""
    return bool(target.moved_as) and target.moved_as == source.came_as
