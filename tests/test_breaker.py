"""When going on makes no sense: what is counted in a row, app by app."""

from __future__ import annotations

import pytest

from jobs.breaker import Breaker
from jobs.causes import ADVICE, Shows
from jobs.model import Cause, Failed, Recovered, Stage, Tokens, Unfinished
from jobs.secret import Secret

GONE, REJECTED, DOWN = Cause.RECONNECT_REMOVED, Cause.CREDENTIALS_REJECTED, Cause.SERVER_ERROR
MISSING, REFUSED = Cause.NOT_INSTALLED, Cause.REQUEST_REFUSED
BACK = Recovered(Tokens(Secret("a"), Secret("r"), "", "", "", "Location", "", "", "LocA", ""), "reconnect", 1, "")


def seen(*outcomes, transient_installs=4, app="app"):
    breaker = Breaker(transient_installs)
    for outcome in outcomes:
        failed = Failed(outcome, Stage.RECONNECT, f"said {outcome}", 0, "", 1, "") if outcome in set(Cause) else outcome
        breaker.observe(app, failed)
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
