"""Ledgers with pairs that wait to be handed over, and a courier's work on them, without a run."""

from __future__ import annotations

import tracemalloc
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import text

from jobs.core.clock import as_written, utc
from jobs.core.model import Install, InstallKey, Level, Recovered, Route, Tokens
from jobs.core.secret import Secret
from jobs.ledger.deliveries import take_over
from jobs.outgoing.deliver.courier import Policy
from jobs.outgoing.deliver.pair import Pair, made_up_pair
from jobs.outgoing.deliver.store import Store
from jobs.sealing.kept_pairs import KeptPairs
from tests.helpers.made import CLIENT_ID, as_place, enrol, opened, place

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.ledger.ledger import Ledger
    from jobs.ledger.place import Place
    from jobs.outgoing.deliver.courier import Courier
    from jobs.sealing.sealer import Sealer

FAST = Policy(min_wait=0, max_wait=0.01)
LEDGER_ID = "led-ger"


def tokens_of(number, round_=0):
    """A pair whose tokens do not look like any."""
    return Tokens(
        Secret(f"access+{number}/{round_}"), Secret(f"refresh+{number}/{round_}"), "Bearer", "2026-11-27T02:00:00.000Z",
        "contacts.readonly", "Location", "user", "", f"Loc{number:017}", "",
    )  # fmt: skip


@dataclass
class Waiting:
    """A ledger whose pairs wait, and its store."""

    ledger: Ledger
    store: Store
    sealer: Sealer | None = None

    def recover(self, number, round_=1, at=None):
        """A newer pair of an install."""
        self.ledger.record([recovered(number, round_, at or as_written(utc()), self.sealer)])

    def states(self):
        """How each install's kept pair stands."""
        query = "select i.account_id, d.state, d.why, d.turn from deliveries d join installs i on i.id = d.install order by 1"
        return self.ledger.ask(lambda one: {row[0]: tuple(row)[1:] for row in one.execute(text(query))})

    def count(self, state):
        return sum(one[0] == state for one in self.states().values())

    def take_over(self):
        self.ledger.write(take_over)

    def execute(self, statement):
        self.ledger.write(lambda connection: connection.execute(text(statement)))


def recovered(number, round_, at, sealer=None):
    """An install and its new pair, which `sealer` seals."""
    install = Install(InstallKey(CLIENT_ID, Level.SUB_ACCOUNT, f"Loc{number:017}"), "")
    tokens = tokens_of(number, round_)
    tokens = sealer.seal(install.key, tokens, at) if sealer else tokens
    return install, Recovered(tokens, Route.RECONNECT, 1, at)


@contextmanager
def waiting(where: Path | Place, count: int, columns=("plan",), cells=("gold",), kept=None, sealer=None):
    """A ledger with so many pairs that wait. With a `sealer` they are sealed, and `kept` knows some of them."""
    home = as_place(where)
    home.folder.mkdir(exist_ok=True)
    ledger = opened(home)
    ledger.delivers = kept or KeptPairs()
    try:
        rows = (place(number, "", *cells) for number in range(count))
        enrol(ledger, rows, columns, "2026-11-26T01:00:00.000Z")
        made = Waiting(ledger, Store(ledger, LEDGER_ID, utc, ledger.delivers), sealer)
        for start in range(0, count, 1000):
            ledger.record(
                [
                    recovered(number, 0, "2026-11-26T02:00:00.000Z", sealer)
                    for number in range(start, min(count, start + 1000))
                ]
            )
        yield made
    finally:
        ledger.close()


def played(courier: Courier):
    """Hand over all that waits; returns the news."""
    courier.start()
    courier.finish()
    assert courier.ended(60)
    return courier.news()


def most_memory(courier: Courier):
    """Hand over all that waits; returns how many bytes Python held at once meanwhile."""
    tracemalloc.start()
    try:
        courier.start()
        courier.finish()
        while not courier.ended(0.1):
            courier.news()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def a_pair(**more) -> Pair:
    """A pair of nobody's, with other values."""
    pair = made_up_pair(utc())
    return replace(pair, data=pair.data | {"access_token": "access+0/0", "refresh_token": "refresh+0/0"} | more)
