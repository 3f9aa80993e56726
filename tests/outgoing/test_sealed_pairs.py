"""Sealed pairs on their way out: open in memory up to a bound, opened by an identity, and never sent as empty tokens."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pyrage
import pytest
from sqlalchemy import update

from jobs.ledger.deliveries import REST, free, let_tries_go_first, take_over
from jobs.ledger.engines import json_with
from jobs.ledger.tables import installs
from jobs.outgoing.deliver.command import CommandCourier
from jobs.outgoing.deliver.pool import PoolCourier
from jobs.outgoing.deliver.verdict import Later, No, Yes
from jobs.sealing.kept_pairs import KeptPairs
from jobs.sealing.opener import Opener
from jobs.sealing.sealer import Sealer
from tests.helpers.deliveries import FAST, played, recovered, waiting
from tests.helpers.made import URL
from tests.helpers.waiting import wait_until

REFUSES = """
import json, sys
for line in sys.stdin:
    pair = json.loads(line)
    print(json.dumps({"pair_id": pair["pair_id"], "error": f"no row for {pair['refresh_token']}"}), flush=True)
"""


@pytest.fixture
def identity():
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def sealed(home, identity):
    """`sealed(count, kept)` is a ledger with so many sealed pairs that were recorded beside `kept`."""

    @contextmanager
    def made(count, kept):
        sealer = Sealer([str(identity.to_public())], URL)
        with waiting(home, count, kept=kept, sealer=sealer) as waits:
            yield waits

    return made


class Target:
    """A target that keeps the refresh tokens that it was given, and says yes or what `judge` says."""

    kind = where = "made"

    def __init__(self, judge=lambda pair: Yes()):
        self.judge, self.got = judge, []

    def hand_over(self, pair):
        self.got.append(pair.data["refresh_token"])
        return self.judge(pair)

    def close(self):
        """Nothing is open."""


def refresh_tokens(*numbers, round_=0):
    return [f"refresh+{number}/{round_}" for number in numbers]


def turns(waits):
    return [(state, turn) for state, _, turn in waits.states().values()]


def test_what_does_not_fit_into_memory_rests_and_is_never_sent(sealed):
    with sealed(5, KeptPairs(most=2)) as waits:
        assert turns(waits) == [("waiting", "")] * 2 + [("waiting", "rest")] * 3
        courier = PoolCourier(waits.store, target := Target(), FAST)
        played(courier)
        assert sorted(target.got) == refresh_tokens(0, 1)
        assert (waits.count("delivered"), waits.count("waiting")) == (2, 3)
    assert (courier.report.attempted, courier.report.failed) == (2, 0)


def test_without_room_every_pair_rests(sealed):
    with sealed(3, KeptPairs(most=0)) as waits:
        assert turns(waits) == [("waiting", "rest")] * 3
        played(PoolCourier(waits.store, target := Target(), FAST))
        assert target.got == []


@pytest.mark.parametrize("verdict", [Yes(), No("not mine"), Later("busy")], ids=["taken", "refused", "left"])
def test_a_pair_that_is_settled_makes_room_for_another(sealed, verdict):
    with sealed(2, KeptPairs(most=1)) as waits:
        courier = PoolCourier(waits.store, target := Target(lambda _: verdict), replace(FAST, attempts=1))
        courier.start()
        wait_until(lambda: courier.report.attempted == 1)
        waits.recover(1, 1)
        wait_until(lambda: courier.report.attempted == 2)
        courier.finish()
        assert courier.ended(20)
    assert target.got == refresh_tokens(0) + refresh_tokens(1, round_=1)


def test_a_newer_pair_takes_the_room_of_the_one_it_overtakes(sealed):
    with sealed(2, KeptPairs(most=2)) as waits:
        waits.recover(0, 1)
        waits.recover(0, 2)
        played(PoolCourier(waits.store, target := Target(), FAST))
    assert sorted(target.got) == refresh_tokens(0, round_=2) + refresh_tokens(1)


def test_a_sealed_pair_that_nothing_here_opens_rests_and_is_never_sent_as_empty_tokens(sealed):
    with sealed(3, KeptPairs(most=1)) as waits:
        waits.take_over()  # As after a database that went back: all of them seem to be ready.
        assert turns(waits) == [("waiting", "")] * 3
        played(PoolCourier(waits.store, target := Target(), replace(FAST, workers=1)))
        assert target.got == refresh_tokens(0)
        assert turns(waits) == [("delivered", ""), ("waiting", "rest"), ("waiting", "rest")]


def test_what_rests_at_the_start_of_a_run_is_not_freed_by_a_try_that_fails(sealed):
    with sealed(2, KeptPairs()) as waits:
        waits.ledger.write(partial(take_over, turn=REST))
        assert turns(waits) == [("waiting", "rest")] * 2
        waits.execute("insert into todo (client_id, install) select client_id, id from installs")
        waits.ledger.write(let_tries_go_first)
        waits.ledger.write(free)
        assert turns(waits) == [("waiting", "rest")] * 2
        waits.ledger.write(take_over)
        assert turns(waits) == [("waiting", "")] * 2


def test_an_identity_opens_what_is_not_in_memory(sealed, identity):
    with sealed(200, KeptPairs(Opener([identity], URL), most=0)) as waits:
        played(PoolCourier(waits.store, target := Target(), replace(FAST, workers=8)))
        assert waits.count("delivered") == 200
    assert sorted(target.got) == sorted(refresh_tokens(*range(200)))


def test_what_the_identity_does_not_open_is_refused_and_the_rest_is_handed_over(sealed):
    another = pyrage.x25519.Identity.generate()
    why = "its sealed pair cannot be opened: no identity in --identity FILE opens it"
    with sealed(9, KeptPairs(Opener([another], URL), most=0)) as waits:
        waits.ledger.record([recovered(8, 1, "2026-11-26T03:00:00.000Z", Sealer([str(another.to_public())], URL))])
        news = played(courier := PoolCourier(waits.store, target := Target(), replace(FAST, workers=2)))
        assert [state[:2] for state in waits.states().values()] == [("refused", why)] * 8 + [("delivered", "")]
    assert target.got == refresh_tokens(8, round_=1)
    assert [one.why for one in news] == [why] * 8 + [""]
    assert (courier.report.attempted, courier.report.delivered, courier.report.failed) == (9, 1, 8)


@pytest.mark.parametrize("planted", ['"sealed": ""', '"sealed": 5'])
def test_a_pair_that_somebody_emptied_is_never_handed_over(sealed, identity, planted):
    with sealed(2, KeptPairs(Opener([identity], URL), most=0)) as waits:
        emptied = json_with(installs.c.tokens, f'{{"access_token": "", {planted}}}')
        waits.ledger.write(lambda connection: connection.execute(update(installs).values(tokens=emptied)))
        played(PoolCourier(waits.store, target := Target(), FAST))
    assert target.got == []


@pytest.mark.parametrize("says", ["yes", "no"])
def test_a_command_that_answers_at_its_end_takes_no_room_from_others_and_no_token_is_shown(sealed, tmp_path, says):
    error = {"yes": "", "no": """, "error": f"no row for {pair['refresh_token']}\""""}[says]
    at_the_end = f"""
import json, sys
for pair in [json.loads(line) for line in sys.stdin]:
    print(json.dumps({{"pair_id": pair["pair_id"]{error}}}))
"""
    with sealed(4, KeptPairs(most=2, most_given=1)) as waits:
        courier = CommandCourier(waits.store, [sys.executable, "-c", at_the_end], tmp_path, 20)
        courier.start()
        wait_until(lambda: turns(waits)[:2] == [("waiting", "sent")] * 2)
        waits.recover(2, 1)
        waits.recover(3, 1)
        courier.finish()
        assert courier.ended(20)
        told = [state[:2] for state in waits.states().values()]
    hidden = ("refused", "its reason is not shown, since it may hold the pair's tokens")
    assert told == {"yes": [("delivered", "")] * 4, "no": [hidden] * 3 + [("refused", "no row for ****")]}[says]


@pytest.mark.parametrize("by", ["memory", "identity"])
def test_why_a_command_refuses_a_sealed_pair_is_shown_without_its_tokens(sealed, identity, tmp_path, by):
    known = KeptPairs() if by == "memory" else KeptPairs(Opener([identity], URL), most=0)
    with sealed(3, known) as waits:
        played(courier := CommandCourier(waits.store, [sys.executable, "-c", REFUSES], tmp_path, 20))
        assert [state[:2] for state in waits.states().values()] == [("refused", "no row for ****")] * 3
    assert courier.report.failed == 3
