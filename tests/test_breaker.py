"""When going on makes no sense: what is counted in a row, app by app."""

from __future__ import annotations

import pytest

from jobs.breaker import Breaker
from jobs.causes import ADVICE, Shows
from jobs.model import Answer, Cause, Failed, Met, Recovered, Route, Stage, Tokens, Unfinished
from jobs.secret import Secret

GONE, REJECTED, DOWN = Cause.RECONNECT_REMOVED, Cause.CREDENTIALS_REJECTED, Cause.SERVER_ERROR
MISSING, REFUSED = Cause.NOT_INSTALLED, Cause.REQUEST_REFUSED
BACK = Recovered(Tokens(Secret("a"), Secret("r"), "", "", "", "Location", "", "", "LocA", ""), Route.RECONNECT, 1, "")


def failed(cause, route=Route.RECONNECT, *, asked=True):
    answer = Answer(Stage.RECONNECT, message=f"said {cause}", cause=cause)
    return Failed(cause, answer.stage, answer.message, 0, "", 1, "", (Met(route, answer, asked=asked),))


def seen(*outcomes, transient_installs=4, app="app", route_left=False):
    breaker = Breaker(transient_installs, lambda _: route_left)
    for outcome in outcomes:
        breaker.observe(app, failed(outcome) if outcome in set(Cause) else outcome)
    return breaker


@pytest.mark.parametrize(
    ("outcomes", "because"),
    [
        ([GONE, GONE], None),
        ([GONE, GONE, GONE], "reconnect_removed"),
        ([REJECTED, REJECTED, REJECTED], "credentials_rejected"),
        ([GONE, GONE, BACK, GONE, GONE], None),
        ([GONE, GONE, MISSING, GONE, GONE], None),
        ([GONE, GONE, Cause.LOCATION_INACTIVE, GONE], None),
        ([GONE, GONE, Cause.WRONG_ACCOUNT, GONE], None),
        ([GONE, GONE, Cause.WRONG_USER_TYPE, GONE], None),
        ([GONE, DOWN, GONE, DOWN, GONE], "reconnect_removed"),
        ([GONE, Unfinished(1), GONE, Unfinished(1), GONE], "reconnect_removed"),
        ([DOWN, DOWN, DOWN], None),
        ([DOWN, DOWN, DOWN, DOWN], "outage"),
        ([DOWN, Cause.NETWORK_ERROR, Cause.MALFORMED_ANSWER, Cause.CODE_REJECTED], "outage"),
        ([DOWN, DOWN, DOWN, BACK, DOWN], None),
        ([DOWN, DOWN, DOWN, MISSING, DOWN], None),
        ([DOWN, DOWN, DOWN, REFUSED, DOWN], None),
        ([DOWN, DOWN, DOWN, Unfinished(3), DOWN], "outage"),
        ([BACK] * 50 + [GONE, GONE, GONE], "reconnect_removed"),
    ],
)
def test_three_refusals_or_many_transient_failures_in_a_row_stop_an_app(outcomes, because):
    trip = seen(*outcomes).tripped("app")
    assert (trip.because if trip else None) == because
    if trip:
        assert trip.met == f"said {outcomes[-1]}"


def test_a_stopped_app_stays_stopped_whatever_comes_back_later_and_others_go_on():
    breaker = seen(GONE, GONE, GONE, BACK)
    assert breaker.tripped("app").because == "reconnect_removed"
    assert breaker.tripped("other") is None


def test_where_another_route_is_left_three_refusals_close_reconnect_alone():
    breaker = seen(GONE, GONE, GONE, route_left=True)
    assert breaker.tripped("app") is None
    assert breaker.reconnect_closed("app").message == f"said {GONE}"
    assert not breaker.goes_alone("app")


def test_the_app_stops_when_the_last_route_is_closed_later():
    left = [True]
    breaker = Breaker(4, lambda _: left[0])
    for _ in range(3):
        breaker.observe("app", failed(GONE))
    left[0] = False
    breaker.look_again("app")
    assert breaker.tripped("app").because == "reconnect_removed"


def test_what_other_routes_answer_neither_adds_to_reconnects_refusals_nor_starts_them_again():
    by_agency = Recovered(BACK.tokens, Route.AGENCY, 1, "", met=failed(GONE).met)
    assert seen(GONE, by_agency, GONE).tripped("app").because == "reconnect_removed"
    assert seen(GONE, GONE, failed(GONE, Route.AGENCY)).tripped("app") is None
    assert seen(GONE, GONE, failed(GONE, asked=False)).tripped("app") is None


@pytest.mark.parametrize(
    ("outcomes", "alone"),
    [
        ([], True),
        ([Unfinished(1)], True),
        ([BACK], False),
        ([MISSING], False),
        ([DOWN], False),
        ([GONE], True),
        ([GONE, DOWN], True),
        ([GONE, GONE], True),
        ([GONE, BACK], False),
        ([GONE, MISSING], False),
        ([BACK, GONE, GONE], False),
    ],
)
def test_the_first_goes_alone_and_while_it_is_refused_so_does_the_next(outcomes, alone):
    assert seen(*outcomes).goes_alone("app") is alone


def test_what_each_cause_tells_of_the_app_is_the_contracts():
    at_work = {cause for cause in Cause if ADVICE[cause].shows is Shows.AT_WORK}
    assert at_work == {MISSING, Cause.LOCATION_INACTIVE, Cause.WRONG_ACCOUNT, Cause.WRONG_USER_TYPE}
    assert {cause for cause in Cause if ADVICE[cause].shows is Shows.REFUSED} == {GONE, REJECTED}
    assert {c for c in Cause if ADVICE[c].shows is Shows.TRANSIENT} == {c for c in Cause if ADVICE[c].again}
