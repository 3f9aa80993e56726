"""What hands over beside a run: several at once, tried again, held, given up, stopped, and never kept in memory."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import event

from jobs.core.model import Delivery
from jobs.outgoing.deliver.courier import Policy
from jobs.outgoing.deliver.pool import PoolCourier
from jobs.outgoing.deliver.verdict import Later, No, Over, Yes
from tests.helpers.deliveries import FAST, most_memory, played, waiting
from tests.helpers.waiting import wait_until


class Store:
    """A target in this process that judges as `judge(pair, number of its try)` says."""

    kind = where = "made"

    def __init__(self, judge=lambda pair, try_: Yes()):
        self.judge = judge
        self.tries = {}
        self.calls = []
        self.closed = 0
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def hand_over(self, pair):
        with self.lock:
            place = pair.data["location_id"]
            try_ = self.tries[place] = self.tries.get(place, 0) + 1
            self.calls.append((time.monotonic(), pair.pair_id, pair.data["refresh_token"]))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return self.judge(pair, try_)
        finally:
            with self.lock:
                self.at_once -= 1

    def close(self):
        self.closed += 1


def alone(**more):
    return Policy(workers=1, min_wait=0, max_wait=0.01, **more)


def test_every_pair_that_waits_is_handed_over_written_down_and_told(home):
    store = Store()
    with waiting(home, 50) as waits:
        courier = PoolCourier(waits.store, store, FAST)
        news = played(courier)
        assert waits.count("delivered") == 50
    assert sorted(one.resource_id for one in news) == sorted(store.tries)
    assert {one.state for one in news} == {Delivery.DELIVERED}
    report = courier.report
    assert (report.target, report.attempted, report.delivered, report.failed) == ("made", 50, 50, 0)
    assert report.rested_because is None
    assert store.closed == 1
    assert store.most_at_once <= FAST.workers


def test_as_many_are_handed_over_at_once_as_there_are_workers(tmp_path):
    together = threading.Barrier(4, timeout=20)

    def judge(pair, try_):
        together.wait()
        return Yes()

    store = Store(judge)
    with waiting(tmp_path, 8) as waits:
        played(PoolCourier(waits.store, store, FAST))
    assert store.most_at_once == 4


def test_nothing_is_handed_over_while_the_lease_is_not_held(home):
    asked, held, store = threading.Event(), threading.Event(), Store()
    with waiting(home, 3) as waits:
        waits.store.may_send = lambda: asked.set() or held.is_set()
        courier = PoolCourier(waits.store, store, FAST)
        courier.start()
        assert asked.wait(20)
        assert store.calls == []
        held.set()
        courier.finish()
        assert courier.ended(20)
        assert waits.count("delivered") == 3


def test_later_pairs_are_handed_over_too_until_it_must_finish(home):
    with waiting(home, 1) as waits:
        courier = PoolCourier(waits.store, Store(), FAST)
        courier.start()
        wait_until(lambda: waits.count("delivered") == 1)
        waits.recover(0)
        courier.nudge()
        wait_until(lambda: courier.report.delivered == 2)
        courier.finish()
        assert courier.ended(20)


def test_a_pair_that_the_target_cannot_take_is_tried_again_and_then_left_for_the_next_run(home):
    store = Store(lambda pair, try_: Later("it is busy"))
    with waiting(home, 3) as waits:
        courier = PoolCourier(waits.store, store, alone(attempts=4))
        news = played(courier)
        assert {*waits.states().values()} == {("waiting", "it is busy", "rest")}
        waits.take_over()
        played(again := PoolCourier(waits.store, Store(), alone()))
    assert {*store.tries.values()} == {4}
    assert [(one.state, one.why) for one in news] == [(Delivery.WAITING, "it is busy")] * 3
    assert (courier.report.attempted, courier.report.failed) == (3, 3)
    assert again.report.delivered == 3


def test_a_no_is_not_tried_again(home):
    store = Store(lambda pair, try_: No("not mine"))
    with waiting(home, 3) as waits:
        played(PoolCourier(waits.store, store, FAST))
        assert {*waits.states().values()} == {("refused", "not mine", "")}
    assert {*store.tries.values()} == {1}


def test_delivery_rests_after_so_many_installs_in_a_row(home):
    store = Store(lambda pair, try_: Later("it is down"))
    with waiting(home, 50) as waits:
        courier = PoolCourier(waits.store, store, alone(attempts=2, give_up_after=5))
        news = played(courier)
        assert waits.count("waiting") == 50
    assert len(store.tries) == 5
    assert courier.report.rested_because == "it is down, for 5 installs in a row"
    assert [one.why for one in news if not one.pair_id] == [courier.report.rested_because]


@pytest.mark.parametrize("between", [Yes(), No("not mine")])
def test_a_yes_and_a_plain_no_break_the_row(home, between):
    numbers = iter(range(1_000))

    def judge(pair, try_):
        return between if next(numbers) % 5 == 4 else Later("it is busy")

    with waiting(home, 40) as waits:
        courier = PoolCourier(waits.store, store := Store(judge), alone(attempts=1, give_up_after=5))
        played(courier)
    assert len(store.tries) == 40
    assert courier.report.rested_because is None


def test_a_target_that_wants_no_more_gets_no_more(home):
    store = Store(lambda pair, try_: Over("it is gone"))
    with waiting(home, 20) as waits:
        courier = PoolCourier(waits.store, store, alone())
        played(courier)
        assert waits.count("waiting") == 20
    assert len(store.calls) == 1
    assert courier.report.rested_because == "it is gone"


def test_a_pause_holds_everybody_back_and_uses_up_no_try(home):
    told = []

    def judge(pair, try_):
        if not told:
            told.append(time.monotonic())
            return Later("slowly", 0.6)
        return Yes()

    store = Store(judge)
    with waiting(home, 30) as waits:
        played(PoolCourier(waits.store, store, Policy(workers=2, attempts=1)))
        assert waits.count("delivered") == 30
    # A pair that was in flight when the pause began is not called back.
    assert sum(told[0] + 0.05 < at < told[0] + 0.6 for at, *_ in store.calls) == 0


def test_a_pause_that_is_longer_than_the_patience_lets_delivery_rest(home):
    store = Store(lambda pair, try_: Later("slowly", 601))
    with waiting(home, 20) as waits:
        courier = PoolCourier(waits.store, store, alone(patience=600))
        played(courier)
        assert waits.count("waiting") == 20
    assert len(store.calls) == 1
    assert courier.report.rested_because == ("slowly and asks for a pause that is longer than pace.patience_seconds")


def test_a_stop_cuts_waits_short_and_waits_for_what_is_in_flight(home):
    go = threading.Event()

    def judge(pair, try_):
        if pair.data["location_id"].endswith("1"):
            go.wait(20)
            return Yes()
        return Later("it is busy")

    store = Store(judge)
    with waiting(home, 20) as waits:
        courier = PoolCourier(waits.store, store, Policy(workers=2, min_wait=3_000, max_wait=3_000))
        courier.start()
        wait_until(lambda: len(store.calls) == 2)
        courier.stop()
        assert not courier.ended(0.2)
        go.set()
        assert courier.ended(20)
        assert waits.count("delivered") == 1
    assert len(store.calls) == 2


def test_a_stop_ends_a_pause_and_what_was_never_sent_is_not_counted(home):
    store = Store(lambda pair, try_: Later("slowly", 500))
    with waiting(home, 5) as waits:
        courier = PoolCourier(waits.store, store, alone())
        courier.start()
        wait_until(lambda: store.calls)
        courier.stop()
        assert courier.ended(20)
        assert waits.count("waiting") == 5
    assert courier.report.attempted == 0


def test_a_pair_that_is_overtaken_in_flight_is_left_and_the_newer_one_is_handed_over(home):
    go = threading.Event()

    def judge(pair, try_):
        go.wait(20)
        return No("of the first") if try_ == 1 else Yes()

    store = Store(judge)
    with waiting(home, 1) as waits:
        courier = PoolCourier(waits.store, store, FAST)
        courier.start()
        wait_until(lambda: store.calls)
        waits.recover(0)
        go.set()
        courier.finish()
        assert courier.ended(20)
        assert waits.count("delivered") == 1
    assert [token for *_, token in store.calls] == ["refresh+0/0", "refresh+0/1"]
    assert len({pair_id for _, pair_id, _ in store.calls}) == 2


def test_answers_that_come_together_are_written_together(tmp_path):
    store, held, go = Store(), threading.Event(), threading.Event()
    commits = []

    def hold(connection):
        held.set()
        go.wait(20)

    with waiting(tmp_path, 16) as waits:
        event.listen(waits.ledger.engine, "commit", lambda _: commits.append(1))
        holder = threading.Thread(target=waits.ledger.write, args=(hold,))
        holder.start()
        held.wait(20)
        courier = PoolCourier(waits.store, store, Policy(workers=16))
        courier.start()
        wait_until(lambda: len(store.calls) == 16)
        go.set()
        holder.join()
        courier.finish()
        assert courier.ended(20)
        assert waits.count("delivered") == 16
    assert len(commits) <= 3  # One by the holder, one for the first answer, and one for all others.


def test_a_store_that_hangs_keeps_nobody_waiting_but_the_courier(tmp_path):
    go = threading.Event()
    store = Store(lambda pair, try_: go.wait(20) and Yes())
    with waiting(tmp_path, 30) as waits:
        courier = PoolCourier(waits.store, store, FAST)
        courier.start()
        wait_until(lambda: store.at_once == FAST.workers)
        for _ in range(5):
            courier.nudge()
            assert courier.news() == []
        waits.recover(3)  # The ledger is free meanwhile.
        assert len(store.calls) == FAST.workers
        go.set()
        courier.finish()
        assert courier.ended(20)
        assert waits.count("delivered") == 30


def test_memory_is_bounded_however_many_wait(tmp_path):
    with waiting(tmp_path, 600, cells=("gold" * 5_000,)) as waits:
        courier = PoolCourier(waits.store, Store(), FAST)
        peak = most_memory(courier)
        assert waits.count("delivered") == 600
    assert peak < 4_000_000  # The target was given 12 MB.


def test_a_ledger_that_cannot_be_written_lets_delivery_rest(tmp_path):
    with waiting(tmp_path, 50) as waits:

        def judge(pair, try_):
            if len(store.calls) == 3:
                event.listen(
                    waits.ledger.engine, "checkout", lambda connection, *_: connection.execute("pragma query_only = on")
                )
            return Yes()

        store = Store(judge)
        courier = PoolCourier(waits.store, store, alone())
        played(courier)
        assert waits.count("waiting") == 48
    assert courier.report.delivered == 2
    assert "readonly database" in courier.report.rested_because
    assert len(store.calls) == 3


def test_a_bug_is_raised_when_the_courier_is_waited_for(tmp_path):
    def judge(pair, try_):
        raise RuntimeError("a bug")

    store = Store(judge)
    with waiting(tmp_path, 1) as waits:
        courier = PoolCourier(waits.store, store, FAST)
        courier.start()
        with pytest.raises(RuntimeError, match="a bug"):
            courier.ended(20)
        assert waits.count("waiting") == 1
    assert store.closed == 1
