"""What an app used of its limits goes on to the next run, on whatever machine: it begins within them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.pace.controller import Controller, Resource
from jobs.pace.usage import LONGEST, Usage
from tests.helpers.simulated import NOON, Server, run

APP = Resource("app")


def controller(rate=10.0, patience=600.0):
    return Controller(rate, patience, lambda times: 2.0**times)


@settings(max_examples=40, deadline=None)
@given(
    rates=st.lists(st.sampled_from([1.0, 5.0, 10.0, 20.0]), min_size=2, max_size=4),
    gaps=st.lists(st.floats(0, 12), min_size=4, max_size=4),
    requests=st.integers(5, 300),
    latency=st.floats(0.005, 0.5),
    jitter=st.floats(0, 0.2),
)
def test_runs_that_take_over_from_each_other_keep_the_pace_of_each_over_every_ten_seconds(
    rates, gaps, requests, latency, jitter
):
    server, used, now, arrived = Server(), {}, 0.0, []
    for rate, gap in zip(rates, gaps, strict=False):
        control, begins = controller(rate), now + gap
        control.begin_within({app: usage.later(gap) for app, usage in used.items()}, begins, NOON)
        ways = {"latency": latency, "jitter": jitter}
        hours = run(server, rate=rate, requests=requests, control=control, begins=begins, **ways)
        arrived = sorted(arrived + [each.arrived for each in hours.heard])
        for each in hours.heard:
            within = bisect_right(arrived, each.arrived) - bisect_right(arrived, each.arrived - 10)
            assert within <= rate * 10
        now = max(each.arrived for each in hours.heard) + latency / 2 + jitter
        used = control.usage(now, NOON)


def test_a_run_that_begins_right_after_another_waits_until_its_window_has_room():
    first = controller(10.0)
    for number in range(100):
        first.answered(first.leave(number / 100, APP), number / 100 + 0.05, 200, None, {}, NOON)
    second = controller(10.0)
    second.begin_within(first.usage(1.5, NOON), 501.5, NOON)
    assert 510 <= second.due(501.5) <= 510.5
    assert second.requests == 0


def test_what_another_app_sent_does_not_count():
    first = controller(10.0)
    for number in range(100):
        first.leave(number / 100, Resource("another"))
    used = first.usage(1.5, NOON)
    assert [*used] == ["another"]
    assert len(used["another"].left) == 100


def test_a_hold_goes_on_in_the_next_run_for_what_is_left_of_it():
    first = controller()
    first.answered(first.leave(0.0, APP), 1.0, 429, 30.0, {}, NOON)
    used = first.usage(11.0, NOON)["app"]
    assert (used.held, used.status) == (20.0, 429)
    second = controller()
    second.begin_within({"app": used.later(5.0)}, 100.0, NOON)
    assert second.held.until == 115.0
    assert second.due(100.0) >= 115.0


def test_a_hold_that_is_longer_than_the_patience_ends_the_next_run_too():
    second = controller(patience=60.0)
    second.begin_within({"app": Usage(held=90.0, status=429)}, 0.0, NOON)
    assert second.out_of_patience
    assert "429" in second.enough


def test_the_rest_of_the_day_goes_on_in_the_next_run_until_the_day_ends():
    first = controller()
    said = {"x-ratelimit-daily-remaining": "2", "x-ratelimit-daily-reset": "3600"}
    first.answered(first.leave(0.0, APP), 0.1, 200, None, said, NOON)
    first.answered(first.leave(0.2, APP), 0.3, 200, None, {}, NOON)
    used = first.usage(600.0, NOON + timedelta(seconds=600))["app"]
    assert (used.today, used.next_day) == (1, 3000.0)
    second = controller()
    # The clock of the next machine may be wrong.
    elsewhere = NOON + timedelta(days=3)
    second.begin_within({"app": used.later(1000)}, 0.0, elsewhere)
    assert second.left_today(APP) == 1
    assert second.day_is_spent(APP, elsewhere)[0] == 2000.0
    assert used.later(3000.0).today is None


@pytest.mark.parametrize("headers", [{}, {"x-ratelimit-daily-remaining": "0"}])
def test_a_day_whose_end_is_not_known_does_not_stop_the_next_run(headers):
    first = controller()
    first.answered(first.leave(0.0, APP), 0.1, 200, None, headers, NOON)
    assert first.usage(1.0, NOON)["app"].today is None


def test_after_a_run_that_was_cut_off_nothing_leaves_until_what_it_may_have_sent_counts_no_more():
    used = Usage(left=(1.0,), held=2.0, status=429).cut_off(3.0)
    assert (used.held, used.status) == (LONGEST - 3.0, 0)
    second = Controller(10.0, 1.0, float)
    second.begin_within({"app": used}, 50.0, NOON)
    assert second.due(50.0) >= 50.0 + LONGEST - 3.0
    assert not second.out_of_patience
    longer = Usage(held=20.0, status=429)
    assert longer.cut_off(3.0) == longer
    assert longer.cut_off(60.0) == longer


def test_what_is_too_long_ago_is_left_out():
    used = Usage((0.1, 3.0, 9.0), 4.0, 429, 5, 100.0)
    assert used.later(2.0) == replace(used, left=(2.1, 5.0), held=2.0, next_day=98.0)
    assert used.later(200.0) == Usage()
