"""What `recover seal` reads and writes: the pairs of a ledger a page at a time, each with its new sealed text."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, func, literal_column, select, update

from jobs.core.fingerprints import sealed_mark
from jobs.core.model import InstallKey, Level
from jobs.ledger.engines import json_value
from jobs.ledger.reads import recipients_to_text, tokens_from_text, tokens_to_text
from jobs.ledger.tables import HAS_OPEN_PAIR, HAS_SEALED_PAIR, installs
from jobs.ledger.writes import MARK, Statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

    from jobs.core.model import Tokens

_PAGE = 500
_REPLACE = Statement(
    lambda _: update(installs).where(installs.c.id == bindparam("one")).values(tokens=bindparam("new_tokens"))
)


class Pair(NamedTuple):
    """The pair of an install, by its number in the ledger."""

    number: int
    key: InstallKey
    tokens: Tokens
    recovered_at: str


def how_many(connection: Connection, recipients: Sequence[str]) -> tuple[int, int]:
    """How many pairs are open, and how many are sealed for others than these recipients."""
    open_pairs, for_others = (
        connection.scalar(select(func.count()).select_from(installs).where(one))
        for one in (HAS_OPEN_PAIR, _is_for_others(recipients))
    )
    return open_pairs or 0, for_others or 0


def pairs_after(connection: Connection, last: int) -> list[Pair]:
    """The next pairs, also purged ones, whose numbers are higher than `last`. Empty: there are no more."""
    # Python decides about each pair. Asked to do that, PostgreSQL may look at all pairs before it takes the first.
    names = installs.c
    columns = (names.id, names.client_id, names.level, names.account_id, names.tokens, names.recovered_at)
    mine = (names.tokens.is_not(None), names.id > last)
    found = connection.execute(select(*columns).where(*mine).order_by(names.id).limit(_PAGE))
    return [
        Pair(number, InstallKey(client_id, Level(level), account_id), tokens_from_text(text), at)
        for number, client_id, level, account_id, text, at in found
    ]


def _is_for_others(recipients: Sequence[str]) -> ColumnElement[bool]:
    return HAS_SEALED_PAIR & (
        json_value(installs.c.tokens, literal_column("'sealed_for'")) != recipients_to_text(recipients)
    )


def replace_tokens(connection: Connection, sealed: Sequence[tuple[int, Tokens]]) -> None:
    """Write the sealed pairs of installs, by their numbers. The ledger knows their texts from then on."""
    _REPLACE.execute(connection, [{"one": number, "new_tokens": tokens_to_text(tokens)} for number, tokens in sealed])
    texts = [tokens.sealed.text for _, tokens in sealed if tokens.sealed is not None]
    MARK.execute(connection, [{"mark": sealed_mark(text)} for text in texts])
