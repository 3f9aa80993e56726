"""The pace: within the limit as the server sees it, quiet during a hold, and as fast as the server allows."""

from __future__ import annotations

import itertools
import math
import random
import re
import threading
import time
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.pace.controller import Controller
from jobs.pace.gate import Gate, Resource, Rests, Stopped
from tests.helpers.simulated import Server, run
from tests.helpers.waiting import wait_until

RATES = st.sampled_from([0.3, 1.0, 5.0, 10.0, 12.5, 20.0, 100.0])


@settings(max_examples=60, deadline=None)
@given(
    rate=RATES,
    latency=st.floats(0.005, 1.0),
    uneven=st.floats(0, 0.3),
    late=st.floats(0, 0.2),
    chance=st.sampled_from([0.0, 0.05]),
    idle=st.lists(st.floats(0, 15), max_size=8),
    seed=st.integers(0, 1000),
)
def test_no_ten_seconds_hold_more_than_the_limit_at_the_server_whatever_the_network_and_the_machine_do(
    rate, latency, uneven, late, chance, idle, seed
):
    # After so many requests each, nothing is to do for a while.
    pauses = {20 * (index + 1): seconds for index, seconds in enumerate(idle)}
    began = {}

    def nothing_to_do(count, now):
        return began.setdefault(count, now) + pauses[count] if count in pauses else 0.0

    hours = run(
        Server(chance=chance), rate=rate, requests=max(60, int(25 * rate)), latency=latency, jitter=uneven, late=late,
        seed=seed, idle=nothing_to_do,
    )  # fmt: skip
    assert hours.most_within(10) <= max(1, int(rate * 10))
    assert not [each for each in hours.heard if each.left < each.hold_until]


@settings(max_examples=40, deadline=None)
@given(rate=st.sampled_from([5.0, 10.0, 20.0, 50.0, 100.0]), late=st.floats(0, 0.3), seed=st.integers(0, 1000))
def test_requests_never_burst_not_at_the_start_nor_after_a_pause_or_a_hold(rate, late, seed):
    def pause(count, now):
        return 30.0 if count == 40 else 0.0

    hours = run(Server(chance=0.03), rate=rate, requests=max(120, int(3 * rate)), late=late, seed=seed, idle=pause)
    left = [each.left for each in hours.heard]
    assert min(later - earlier for earlier, later in itertools.pairwise(left)) >= 0.9 / rate - 0.006
    assert hours.most_within(1) <= rate / 0.9 + 2


@pytest.mark.parametrize("latency", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("rate", [5.0, 10.0, 20.0, 100.0])
def test_the_pace_is_used_to_within_half_a_percent_also_if_the_machine_wakes_up_late(rate, latency):
    hours = run(Server(), rate=rate, requests=int(rate * 120), latency=latency, jitter=0.01, late=0.004)
    # The first goes alone, which costs one answer's time.
    spent = hours.heard[-1].left - hours.heard[1].left
    assert spent <= 1.005 * len(hours.heard) / rate


@pytest.mark.parametrize("latency", [0.05, 0.4])
@pytest.mark.parametrize("retry_after", ["whole", "one", ""])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("most", [20, 50, 80])
def test_a_limit_that_nobody_told_is_found_and_used(most, fixed, retry_after, latency):
    hours = run(Server(most, 10, fixed, retry_after), requests=1500, latency=latency, jitter=latency / 10)
    assert hours.refused < 0.03
    assert hours.accepted_a_second() >= 0.88 * most / 10
    hours.heard[:500] = []
    assert hours.accepted_a_second() >= 0.9 * most / 10


def test_a_limit_that_falls_and_rises_again_is_followed():
    class Changing(Server):
        def answer(self, at):
            self.most = 40 if 100 < at < 400 else 90
            return super().answer(at)

    hours = run(Changing(90, 10), requests=6000)
    assert hours.refused < 0.03
    after = [each.arrived for each in hours.heard if each.arrived > hours.heard[-1].arrived - 120]
    assert len(after) / 120 >= 8


@pytest.mark.parametrize("seed", range(6))
def test_429s_that_come_by_chance_cost_their_holds_and_hardly_more(seed):
    server = Server(100, 2, chance=0.03, rng=random.Random(seed))
    hours = run(server, requests=2000, seed=seed)
    holds = sum(each.status == 429 for each in hours.heard)
    assert hours.heard[-1].left <= 1.15 * (2000 / 10 + holds)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("latency", [0.05, 1.0])
@pytest.mark.parametrize("most", [25, 100, 200])
def test_what_answers_say_about_the_limit_is_kept_without_a_429(most, latency, fixed):
    hours = run(Server(most, 10, fixed, shows=True), rate=25, requests=most * 8, latency=latency)
    assert hours.refused == 0
    assert hours.accepted_a_second() >= 0.96 * most / 10


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_what_others_use_of_the_limit_is_left_to_them(share, fixed):
    server = Server(100, 10, fixed, shows=True, others=10 * share, others_from=30)
    hours = run(server, requests=800)
    assert sum(each.status == 429 for each in hours.heard) <= 2
    late = [each for each in hours.heard if each.arrived > 60]
    ours = len(late) / (late[-1].arrived - late[0].arrived)
    assert 0.55 * 10 * (1 - share) <= ours <= 1.2 * 10 * (1 - share)


def gate(rate=200.0, patience=600.0):
    return Gate(
        rate, patience, clock=time.monotonic, now=lambda: datetime(2026, 11, 24, tzinfo=UTC), backoff=lambda _: 0.2
    )


APP = Resource("app")


def waits(pace, order, name, *, urgent, resource=APP):
    def enter():
        try:
            pace.enter(urgent=urgent, resource=resource)
            order.append(name)
        except Stopped:
            order.append(f"{name} stopped")

    thread = threading.Thread(target=enter)
    before = pace.waiting
    thread.start()
    wait_until(lambda: pace.waiting != before or not thread.is_alive())
    return thread


def test_a_code_in_hand_goes_before_all_who_waited_longer():
    pace, order = gate(rate=20), []
    number = pace.enter(urgent=False)
    pace.observe(number, 429, 0.2, {})
    threads = [waits(pace, order, f"new {n}", urgent=False) for n in range(3)]
    threads.append(waits(pace, order, "code", urgent=True))
    for thread in threads:
        thread.join()
    assert order == ["code", "new 0", "new 1", "new 2"]


def test_who_waits_is_let_go_when_the_run_stops_and_a_code_in_hand_keeps_its_slot():
    pace, order = gate(rate=5), []
    pace.enter(urgent=False)
    threads = [waits(pace, order, "new", urgent=False), waits(pace, order, "code", urgent=True)]
    pace.stop()
    for thread in threads:
        thread.join()
    assert sorted(order) == ["code", "new stopped"]


def test_no_code_is_exchanged_through_a_hold_when_the_run_stops():
    pace, order = gate(), []
    pace.observe(pace.enter(urgent=False), 429, 30.0, {})
    thread = waits(pace, order, "code", urgent=True)
    pace.stop()
    thread.join()
    assert order == ["code stopped"]


def test_a_run_that_stops_does_not_wait_for_its_lease_with_a_code_in_hand():
    pace, order = gate(), []
    pace.holds = lambda: False
    thread = waits(pace, order, "code", urgent=True)
    pace.stop()
    thread.join(5)
    in_time = not thread.is_alive()
    pace.stop(also_codes=True)
    assert in_time
    assert order == ["code stopped"]


def test_a_code_in_hand_goes_out_after_a_pause_though_the_run_stops():
    pace, order = gate(), []
    pace.pause()
    thread = waits(pace, order, "code", urgent=True)
    pace.stop()
    pace.go_on()
    thread.join(10)
    assert order == ["code"]


def test_after_a_hold_that_was_guessed_one_request_goes_ahead_alone():
    pace, order = gate(), []
    pace.observe(pace.enter(urgent=False), 429, None, {})
    threads = [waits(pace, order, name, urgent=False) for name in ("first", "second")]
    threads[0].join()
    threads[1].join(0.1)
    assert (order, threads[1].is_alive()) == (["first"], True)
    pace.observe(1, 200, None, {})
    threads[1].join()
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    ("status", "seconds", "says"),
    [
        (429, 3600.0, "429 and asked for a pause .*again after 2026-11-24T01:00:00Z"),
        (503, 61.0, "503 and asked for a pause .*again after 2026-11-24T00:01:01Z"),
        (429, math.inf, "429 and asked for a pause longer than pace.patience_seconds"),
        (429, 1e200, "429 and asked for a pause longer than pace.patience_seconds"),
        (
            429,
            31_536_000.0,
            "429 and asked for a pause longer than pace.patience_seconds",
        ),  # As it is bounded where it is read.
    ],
)
def test_patience_ends_with_a_hold_that_is_longer_and_its_end_is_told(status, seconds, says):
    pace = gate(patience=60)
    pace.observe(pace.enter(urgent=False), status, seconds, {})
    assert pace.out_of_patience
    assert re.fullmatch(f"HighLevel answered {says}", pace.enough)
    with pytest.raises(Stopped):
        pace.enter(urgent=True)


def test_the_jobs_own_wait_after_a_429_is_never_taken_for_one_that_highlevel_asked_for():
    controller = Controller(10, 5.0, lambda _: 60.0)
    utc = datetime(2026, 11, 24, tzinfo=UTC)
    controller.answered(controller.leave(0.0), 0.0, 429, None, {}, utc)
    assert controller.held.until == pytest.approx(5.0)
    assert not controller.out_of_patience
    controller.answered(controller.leave(5.0), 5.0, 429, None, {}, utc)
    assert controller.out_of_patience
    assert controller.enough == "HighLevel kept answering 429 (too many requests)"


def test_the_last_requests_of_a_day_are_kept_for_the_codes_in_hand():
    pace = gate()
    first = pace.enter(urgent=False)
    pace.observe(first, 200, None, {"x-ratelimit-daily-remaining": "3", "x-ratelimit-daily-reset": "3600"})
    pace.enter(urgent=True)
    pace.enter(urgent=False)  # Two remain, and its code will need the last.
    with pytest.raises(Stopped):
        pace.enter(urgent=False)
    assert "after 2026-11-24T01:00:00Z" in pace.no_more_today("")
    assert not pace.out_of_patience
    pace.observe(2, 200, None, {})
    pace.enter(urgent=True)
    with pytest.raises(Stopped):
        pace.enter(urgent=True)


FULL = {"x-ratelimit-max": "100", "x-ratelimit-remaining": "0", "x-ratelimit-interval-milliseconds": "10000"}
SPENT = {"x-ratelimit-daily-remaining": "0", "x-ratelimit-daily-reset": "3600"}


def test_a_day_of_an_app_that_is_used_up_ends_that_app_alone():
    pace = gate()
    pace.observe(pace.enter(urgent=False, resource=Resource("app", "LocA")), 429, 3_600.0, SPENT)
    assert pace.held is None
    with pytest.raises(Stopped):
        pace.enter(urgent=False, resource=Resource("app", "LocB"))
    assert pace.no_more_today("app") == (
        "HighLevel's daily limit of requests for the app app is used up; run the same command again after 2026-11-24T01:00:00Z"
    )
    for other in (Resource("another app", "LocA"), by_agency("CoA")):
        pace.observe(pace.enter(urgent=False, resource=other), 200, None, {})
    assert (pace.no_more_today("another app"), pace.enough) == ("", "")


def by_agency(company):
    return Resource("app", company, bearer=True)


def test_what_an_agency_tells_of_its_limit_binds_that_agency_alone():
    pace = gate()
    pace.observe(pace.enter(urgent=False, resource=by_agency("CoA")), 200, None, FULL)
    with pytest.raises(Rests) as rests:
        pace.enter(urgent=False, resource=by_agency("CoA"))
    assert 0 < rests.value.seconds < 11
    for other in (by_agency("CoB"), Resource("app", "LocA"), Resource("app", "CoA"), Resource("another app", "LocA")):
        pace.observe(pace.enter(urgent=False, resource=other), 200, None, {})
    assert pace.lowered is None


def test_what_an_app_tells_of_its_limit_binds_that_app_alone_and_those_behind_it_in_the_line_pass():
    pace, order = gate(), []
    pace.observe(pace.enter(urgent=False, resource=Resource("app", "LocA")), 200, None, FULL)
    thread = waits(pace, order, "of the same app", urgent=False, resource=Resource("app", "LocB"))
    pace.enter(urgent=False, resource=Resource("another app", "LocA"))
    pace.enter(urgent=False, resource=by_agency("CoA"))
    assert order == []
    pace.stop()
    thread.join()


def test_a_day_of_an_agency_that_is_used_up_is_told_to_its_own_alone():
    pace = gate()
    pace.observe(pace.enter(urgent=False, resource=by_agency("CoA")), 200, None, SPENT)
    with pytest.raises(
        Rests, match="daily limit of requests for CoA is used up; run the same command again after 2026-11-24T01:00:00Z"
    ):
        pace.enter(urgent=False, resource=by_agency("CoA"))
    pace.enter(urgent=False, resource=by_agency("CoB"))
    pace.enter(urgent=False, resource=Resource("app", "LocA"))
    assert not pace.enough


@pytest.mark.parametrize(("seconds", "headers"), [(5.0, FULL), (5.0, SPENT), (601.0, {}), (math.inf, {})])
def test_a_429_that_is_told_to_be_of_an_agency_holds_back_that_agency_alone(seconds, headers):
    pace = gate()
    pace.observe(pace.enter(urgent=False, resource=by_agency("CoA")), 429, seconds, headers)
    assert pace.held is None
    assert not pace.enough
    pace.enter(urgent=False, resource=by_agency("CoB"))
    with pytest.raises(Rests):
        pace.enter(urgent=False, resource=by_agency("CoA"))


def test_an_app_whose_pace_is_lowered_by_what_it_tells_says_so():
    pace = gate(rate=20)
    room = {**FULL, "x-ratelimit-remaining": "99"}
    pace.observe(pace.enter(urgent=False, resource=Resource("app", "LocA")), 200, None, room)
    assert (round(pace.lowered.rate), pace.lowered.why) == (10, "told_limit")


def test_thousands_of_agencies_cost_a_bounded_memory():
    control, now = Controller(100.0, 600.0, lambda _: 1.0), 0.0
    utc = datetime(2026, 11, 24, tzinfo=UTC)
    said = {**FULL, "x-ratelimit-remaining": "50"}
    tracemalloc.start()
    for turn in range(2):
        for company in range(5_000):
            now += 1.0
            number = control.leave(now, by_agency(f"Co{company}"))
            control.answered(number, now, 429 if company % 2 else 200, None, said, utc)
        peak = tracemalloc.get_traced_memory()[0]
        if not turn:
            first = peak
    tracemalloc.stop()
    assert first < 5_000_000
    assert peak < 1.2 * first


def refused(pace, account, seconds):
    """One more 429 of an account, and then an answer to another; whether the 429 held everybody back."""
    pace.observe(pace.enter(urgent=False, resource=Resource("app", account)), 429, seconds, {})
    held = pace.held is not None
    pace.observe(pace.enter(urgent=False, resource=Resource("app", "LocZ")), 200, None, {})
    return held


def test_an_account_that_is_refused_again_and_again_while_others_pass_holds_nobody():
    pace = gate()
    assert [refused(pace, "LocA", 0.05) for _ in range(5)] == [True, True, False, False, False]
    assert refused(pace, "LocB", 0.05)
    # Once it was served, its next 429 may be everybody's again.
    pace.observe(pace.enter(urgent=False, resource=Resource("app", "LocA")), 200, None, {})
    assert refused(pace, "LocA", 0.05)


def test_an_account_that_is_refused_where_nobody_passes_holds_everybody():
    pace = gate()
    for _ in range(5):
        pace.observe(pace.enter(urgent=False, resource=Resource("app", "LocA")), 429, 0.02, {})
        assert pace.held is not None


NUMBERS = st.one_of(
    st.floats(), st.sampled_from([math.inf, -math.inf, math.nan, 1e300, 5e-324, 99999999999999999.0, 0.0, -1.0])
)


@settings(max_examples=200, deadline=None)
@given(
    answers=st.lists(
        st.tuples(
            st.sampled_from([0, 200, 429, 503]),
            st.one_of(st.none(), NUMBERS),
            st.lists(NUMBERS, min_size=5, max_size=5),
            st.sampled_from([Resource("app", "LocA"), by_agency("CoA")]),
        ),
        max_size=6,
    )
)
def test_no_number_of_an_answer_overflows_anything_at_the_gate(answers):
    control, now = Controller(10.0, 600.0, lambda _: 1.0), 0.0
    utc = datetime(2026, 11, 24, tzinfo=UTC)
    names = ("max", "remaining", "interval-milliseconds", "daily-remaining", "daily-reset")
    for status, retry_after, values, resource in answers:
        headers = {f"x-ratelimit-{name}": str(value) for name, value in zip(names, values, strict=True)}
        number = control.leave(now, resource)
        control.answered(number, now, status, retry_after, headers, utc)
        for asks in (resource, Resource("app", "LocB")):
            assert not math.isnan(control.due(now, asks))
            control.day_is_spent(asks, utc)
            control.left_today(asks)
        control.lowered(now)
        assert timedelta(seconds=max(0.0, min(control.held.until - now, 1e9))) <= timedelta(days=366)
        now += 1.0


@pytest.mark.parametrize("after", [0, 3, 50, 400])
@pytest.mark.parametrize("latency", [0.05, 0.5])
def test_two_429s_that_name_no_time_do_not_take_the_pace_to_a_third(after, latency):
    class Bare(Server):
        asked = 0

        def answer(self, at):
            self.asked += 1
            return (429, None, {}) if self.asked in (after + 1, after + 2) else super().answer(at)

    hours = run(Bare(), requests=after + 400, latency=latency)
    later = [each.left for each in hours.heard[-200:]]
    assert len(later) / (later[-1] - later[0]) > 10 * 0.5
