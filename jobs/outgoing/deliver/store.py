"""The waiting pairs of a ledger, as a courier reads and settles them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from jobs.core.clock import as_written
from jobs.ledger import deliveries
from jobs.ledger.deliveries import Settled
from jobs.outgoing.deliver.pair import Pair, key_of, pair_id_of, pair_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from jobs.core.model import Delivery
    from jobs.ledger.deliveries import PairKey, WaitingPair
    from jobs.ledger.ledger import Ledger

    Judge = Callable[[WaitingPair], tuple[Delivery, str]]


class Store:
    """The pairs of one ledger, known by `ledger_id`. `now` gives the time in UTC."""

    def __init__(self, ledger: Ledger, ledger_id: str, now: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._ledger_id = ledger_id
        self._now = now

    def waiting(self, most: int, without: Iterable[int]) -> list[WaitingPair]:
        """Up to so many pairs that may be handed over now. Raises UnwritableError."""
        return self._ledger.ask_to_send(partial(deliveries.waiting, most=most, without=without))

    def may_send(self) -> bool:
        """Whether a pair may be handed over now (see `Ledger`)."""
        return self._ledger.may_send()

    def hand_out(self, most: int) -> list[WaitingPair]:
        """Up to so many pairs that may be handed over now, each only once in a run. Raises UnwritableError."""
        keys = [pair.key for pair in self.waiting(most, ())]
        return self._ledger.write(partial(deliveries.hand_out, keys=keys)) if keys else []

    def answered(self, answers: Mapping[str, Judge]) -> list[tuple[WaitingPair, Delivery, str]]:
        """The pairs that these answers settle, by their ids. Writes the answers down, synced. An answer about any
        other pair is ignored. Raises UnwritableError.
        """
        keys = {key: judge for pair_id, judge in answers.items() if (key := key_of(self._ledger_id, pair_id))}

        def settle(connection: Connection) -> list[tuple[WaitingPair, Delivery, str]]:
            found = deliveries.handed_out(connection, keys)
            judged = [(pair, *keys[pair.key](pair)) for pair in found]
            at = as_written(self._now())
            deliveries.settle(connection, [Settled(pair.key, state, at, why) for pair, state, why in judged])
            return judged

        return self._ledger.write(settle) if keys else []

    def settle(self, judged: Sequence[tuple[PairKey, Delivery, str]]) -> None:
        """Write down, synced, what happened to pairs. Raises UnwritableError."""
        at = as_written(self._now())
        rows = [Settled(key, state, at, why) for key, state, why in judged]
        self._ledger.write(partial(deliveries.settle, settled=rows))

    def id_of(self, key: PairKey) -> str:
        """The id of a pair."""
        return pair_id_of(self._ledger_id, key)

    def pair(self, waiting: WaitingPair) -> Pair:
        """A pair as a target sees it at this moment."""
        return pair_of(self.id_of(waiting.key), waiting.record, self._now())
