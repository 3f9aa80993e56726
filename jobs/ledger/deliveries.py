"""Which pairs wait to be handed over to the app's own store, which were taken, and which were refused.

A row is about the pair that was recovered at its `recovered_at`, and a newer pair of the install replaces it. `turn`
says why a waiting pair is left alone for now: the run tries its install first (`try`), enough was done in this run
(`rest`), or a command has it and has not answered yet (`sent`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, func, inspect, literal, literal_column, select, tuple_, update

from jobs.core.model import Delivery, Record, Tokens
from jobs.ledger.engines import key_of, upsert
from jobs.ledger.reads import as_record, layout_names
from jobs.ledger.tables import HAS_PAIR, OF_KEPT_PAIR, deliveries, installs, remember, remembered, todo

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import Connection, Select

TRY, REST, SENT = "try", "rest", "sent"
_NAME = "ledger_id"
# Written out in full, since SQLite recognises a partial index by its exact words.
_WAITS = deliveries.c.state == literal_column(f"'{Delivery.WAITING.value}'")
IS_DELIVERED = select(deliveries.c.install).where(OF_KEPT_PAIR, deliveries.c.state == Delivery.DELIVERED.value).exists()
"""An install whose pair was taken by a store."""
_WAITING = select(installs).join(deliveries, OF_KEPT_PAIR).where(_WAITS)


class PairKey(NamedTuple):
    """A pair: the number of its install in the ledger, and when it was recovered (UTC, ISO 8601)."""

    install: int
    recovered_at: str


@dataclass(frozen=True, slots=True)
class WaitingPair:
    """A waiting pair, with everything that is known about its install."""

    key: PairKey
    record: Record

    @property
    def tokens(self) -> Tokens:
        """Its tokens, which may be sealed."""
        assert self.record.tokens is not None
        return self.record.tokens

    def opened(self, tokens: Tokens) -> WaitingPair:
        """The same pair with its open tokens."""
        return replace(self, record=replace(self.record, tokens=tokens))


class Settled(NamedTuple):
    """What happened to a pair at `at` (UTC, ISO 8601). A pair that is still `WAITING` rests for this run."""

    key: PairKey
    state: Delivery
    at: str
    why: str = ""


def ledger_id(connection: Connection, fresh: str) -> str:
    """The id that tells the pairs of this ledger from those of another. A ledger without one gets `fresh`."""
    known = remembered(connection, _NAME)
    if known is None:
        remember(connection, _NAME, fresh)
    return known or fresh


def take_over(connection: Connection, turn: str = "") -> None:
    """Let every kept pair wait that no store has taken: new ones, those that rested, and those that were refused before.

    With the turn `REST` all of them rest.
    """
    refused = deliveries.c.state == Delivery.REFUSED.value
    connection.execute(update(deliveries).where(refused).values(state=Delivery.WAITING.value))
    let_new_ones_wait(connection)
    connection.execute(update(deliveries).where(_WAITS, deliveries.c.turn != turn).values(turn=turn))


def let_new_ones_wait(connection: Connection) -> None:
    """Let every kept pair wait that has no row yet."""
    kept = select(installs.c.id, installs.c.recovered_at, literal(Delivery.WAITING.value))
    known = select(deliveries.c.install).where(OF_KEPT_PAIR).exists()
    statement = upsert(connection, deliveries).from_select(
        ["install", "recovered_at", "state"], kept.where(HAS_PAIR, ~known)
    )
    taken = {name: statement.excluded[name] for name in ("recovered_at", "state")}
    key = key_of(connection, "install")
    anew = {**taken, "turn": "", "at": "", "why": ""}
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=anew))


def let_tries_go_first(connection: Connection) -> None:
    """Leave the pairs of installs alone that the run will try. Those that rest go on resting."""
    lined_up = deliveries.c.install.in_(select(todo.c.install))
    connection.execute(update(deliveries).where(lined_up, _WAITS, deliveries.c.turn == "").values(turn=TRY))


def free(connection: Connection) -> None:
    """Free the pairs that were left alone because of a try. Nothing is tried any more."""
    connection.execute(update(deliveries).where(deliveries.c.turn == TRY).values(turn=""))


def waiting(connection: Connection, most: int, without: Iterable[int] = ()) -> list[WaitingPair]:
    """Up to so many pairs that may be handed over now, except those of the installs `without`."""
    mine = (deliveries.c.turn == "") & deliveries.c.install.not_in(list(without))
    return _pairs(connection, _WAITING.where(mine).order_by(deliveries.c.install).limit(most))


def hand_out(connection: Connection, keys: Collection[PairKey]) -> list[WaitingPair]:
    """Those of these waiting pairs that no newer one has overtaken. They are given out only once, until they are taken over
    again. Done twice, since the answer to its commit was lost, it gives the same pairs.
    """
    mine = tuple_(deliveries.c.install, deliveries.c.recovered_at).in_([tuple(key) for key in keys])
    connection.execute(update(deliveries).where(mine, deliveries.c.turn == "").values(turn=SENT))
    return handed_out(connection, keys)


def handed_out(connection: Connection, keys: Collection[PairKey]) -> list[WaitingPair]:
    """The pairs among `keys` that were handed out and have no answer yet."""
    mine = (deliveries.c.turn == SENT) & deliveries.c.install.in_([key.install for key in keys])
    return [pair for pair in _pairs(connection, _WAITING.where(mine)) if pair.key in keys]


def _pairs(connection: Connection, query: Select[Any]) -> list[WaitingPair]:
    names = layout_names(connection)
    rows = connection.execute(query).mappings().all()
    return [WaitingPair(PairKey(row["id"], row["recovered_at"]), as_record(dict(row), names)) for row in rows]


_SETTLE = (
    update(deliveries)
    .where(deliveries.c.install == bindparam("one"), deliveries.c.recovered_at == bindparam("pair"))
    .values(state=bindparam("now"), turn=bindparam("left"), at=bindparam("moment"), why=bindparam("words"))
)


def settle(connection: Connection, settled: Sequence[Settled]) -> None:
    """Write down what happened to pairs. A pair that a newer one has overtaken is skipped."""
    rows = [
        {
            "one": one.key.install,
            "pair": one.key.recovered_at,
            "now": one.state.value,
            "left": REST if one.state is Delivery.WAITING else "",
            "moment": one.at,
            "words": one.why,
        }
        for one in settled
    ]
    if rows:
        connection.execute(_SETTLE, rows)


def hand_over_again(connection: Connection, account_ids: Sequence[str] | None) -> set[str]:
    """Let delivered and refused pairs of these accounts (None: of all) wait again. Returns the ids that were found."""
    kept = select(installs.c.id).where(HAS_PAIR)
    if account_ids is None:
        again = kept
        found: set[str] = set()
    else:
        again = kept.where(installs.c.account_id.in_(account_ids))
        found = set(connection.scalars(select(installs.c.account_id).where(installs.c.id.in_(again))))
    mine = deliveries.c.install.in_(again)
    connection.execute(update(deliveries).where(mine).values(state=Delivery.WAITING.value, turn="", at="", why=""))
    return found


def leave_others(connection: Connection, account_ids: Sequence[str]) -> None:
    """Leave the waiting pairs of other accounts alone for this run."""
    mine = select(installs.c.id).where(installs.c.account_id.in_(account_ids))
    others = _WAITS & deliveries.c.install.not_in(mine)
    connection.execute(update(deliveries).where(others).values(turn=REST))


def how_many_wait(connection: Connection, *, even_taken: bool = False) -> int:
    """How many kept pairs no store has taken (`even_taken`: all kept pairs). Without deliveries these are all of them."""
    kept = select(func.count()).select_from(installs).where(HAS_PAIR)
    if not even_taken and inspect(connection).has_table(deliveries.name):
        kept = kept.where(~IS_DELIVERED)
    return connection.scalar(kept) or 0
