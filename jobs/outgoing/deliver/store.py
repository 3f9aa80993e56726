"""The waiting pairs of a ledger, as a courier reads and settles them. A courier sees only open pairs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from jobs.core.clock import as_written
from jobs.core.model import Delivery, Tokens
from jobs.ledger import deliveries
from jobs.ledger.deliveries import Settled, WaitingPair
from jobs.outgoing.deliver.pair import Pair, key_of, pair_id_of, pair_of
from jobs.sealing.opener import NEEDS_IDENTITY, Unread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from jobs.ledger.deliveries import PairKey
    from jobs.ledger.ledger import Ledger
    from jobs.sealing.kept_pairs import KeptPairs

    Judge = Callable[[WaitingPair], tuple[Delivery, str]]
    Judged = tuple[WaitingPair, Delivery, str]


class Found(NamedTuple):
    """Pairs that may be handed over now, and those that could not be opened and were settled. `full`: more may wait."""

    pairs: list[WaitingPair]
    refused: list[Judged]
    full: bool


class Store:
    """The pairs of one ledger, known by `ledger_id`. `kept` has or opens sealed ones. `now` gives the time in UTC."""

    def __init__(self, ledger: Ledger, ledger_id: str, now: Callable[[], datetime], kept: KeptPairs) -> None:
        self._ledger = ledger
        self._ledger_id = ledger_id
        self._now = now
        self._kept = kept

    def waiting(self, most: int, without: Iterable[int]) -> Found:
        """Up to so many pairs that may be handed over now. A sealed pair that nothing here opens rests.

        Raises UnwritableError.
        """
        found = self._ledger.ask_to_send(partial(deliveries.waiting, most=most, without=without))
        pairs, others = [], []
        for pair in found:
            match self._opened(pair):
                case Tokens() as tokens:
                    pairs.append(pair.opened(tokens))
                case Unread() as unread:
                    state = Delivery.WAITING if unread == NEEDS_IDENTITY else Delivery.REFUSED
                    others.append((pair, state, f"its sealed pair {unread.words}"))
        self.settle(others)
        return Found(pairs, [one for one in others if one[1] is Delivery.REFUSED], len(found) == most)

    def _opened(self, pair: WaitingPair) -> Tokens | Unread:
        opened = self._kept.opened(pair.record.key, pair.key.recovered_at, pair.tokens)
        # Whatever the ledger came to hold: empty tokens would end the pair that the app has.
        return opened if isinstance(opened, Unread) or opened.is_open else Unread("it holds no tokens")

    def may_send(self) -> bool:
        """Whether a pair may be handed over now (see `Ledger`)."""
        return self._ledger.may_send()

    def hand_out(self, most: int) -> Found:
        """The same, each pair only once in a run. Raises UnwritableError."""
        found = self.waiting(most, ())
        opened = {pair.key: pair for pair in found.pairs}
        given = self._ledger.write(partial(deliveries.hand_out, keys=[*opened])) if opened else []
        for pair in given:
            self._kept.give(pair.record.key, pair.key.recovered_at)
        return found._replace(pairs=[opened[pair.key] for pair in given])

    def answered(self, answers: Mapping[str, Judge]) -> list[Judged]:
        """The pairs that these answers settle, by their ids. Writes the answers down, synced. An answer about any
        other pair is ignored. Raises UnwritableError.
        """
        keys = {key: judge for pair_id, judge in answers.items() if (key := key_of(self._ledger_id, pair_id))}

        def settle(connection: Connection) -> list[Judged]:
            found = [(pair, self._opened(pair)) for pair in deliveries.handed_out(connection, keys)]
            known = [pair.opened(one) if isinstance(one, Tokens) else pair for pair, one in found]
            judged = [(pair, *keys[pair.key](pair)) for pair in known]
            at = as_written(self._now())
            deliveries.settle(connection, [Settled(pair.key, state, at, why) for pair, state, why in judged])
            return judged

        settled = self._ledger.write(settle) if keys else []
        self._forget(settled)
        return settled

    def settle(self, judged: Sequence[Judged]) -> None:
        """Write down, synced, what happened to pairs. Raises UnwritableError."""
        at = as_written(self._now())
        rows = [Settled(pair.key, state, at, why) for pair, state, why in judged]
        if rows:
            self._ledger.write(partial(deliveries.settle, settled=rows))
        self._forget(judged)

    def _forget(self, settled: Iterable[Judged]) -> None:
        for pair, *_ in settled:
            self._kept.forget(pair.record.key, pair.key.recovered_at)

    def id_of(self, key: PairKey) -> str:
        """The id of a pair."""
        return pair_id_of(self._ledger_id, key)

    def pair(self, waiting: WaitingPair) -> Pair:
        """A pair as a target sees it at this moment."""
        return pair_of(self.id_of(waiting.key), waiting.record, self._now())
