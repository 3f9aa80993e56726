"""When going on makes no sense: what is counted in a row, app by app."""

from __future__ import annotations

import pytest

from jobs.core.causes import ADVICE, Shows
from jobs.core.model import Answer, Cause, Failed, Recovered, Route, RouteResult, Stage, Tokens, Unfinished
from jobs.core.secret import Secret
from jobs.recovery.breaker import Breaker

GONE, REJECTED, DOWN = Cause.RECONNECT_REMOVED, Cause.CREDENTIALS_REJECTED, Cause.SERVER_ERROR
MISSING, REFUSED = Cause.NOT_INSTALLED, Cause.REQUEST_REFUSED
BACK = Recovered(Tokens(Secret("a"), Secret("r"), "", "", "", "Location", "", "", "LocA", ""), Route.RECONNECT, 1, "")


def refusal(cause, says=""):
    return Answer(Stage.RECONNECT, 400, says, message=says or f"said {cause}", cause=cause)


def failed(cause, route=Route.RECONNECT, *, asked=True, says=""):
    answer = refusal(cause, says)
    return Failed(cause, answer.stage, answer.message, 0, "", 1, "", (RouteResult(route, answer, asked=asked),))


class Night:
    """An app whose installs are tried one after the other: what they are answered, then how they end."""

    def __init__(self, transient_installs=4, *, route_left=False):
        self.breaker = Breaker(transient_installs, lambda _: route_left)
        self.tries = 0

    def hears(self, outcome, app="app"):
        self.tries += 1
        for met in getattr(outcome, "met", ()):
            if met.asked:
                self.breaker.hear(app, met.route, met.answer, self.tries)
        if isinstance(outcome, Recovered):
            self.breaker.hear(app, outcome.route, outcome.tokens, self.tries)
        self.breaker.observe(app, outcome, self.tries)
        return self


def seen(*outcomes, transient_installs=4, route_left=False):
    night = Night(transient_installs, route_left=route_left)
    for outcome in outcomes:
        night.hears(failed(outcome) if outcome in set(Cause) else outcome)
    return night.breaker


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
        ([REFUSED] * 4, None),
        ([REFUSED] * 5, "refused"),
        ([BACK] * 50 + [REFUSED] * 5, "refused"),
        ([REFUSED, REFUSED, DOWN, REFUSED, Unfinished(1), REFUSED, DOWN, REFUSED], "refused"),
        ([REFUSED, REFUSED, REFUSED, REFUSED, MISSING, REFUSED], None),
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
    for number in range(3):
        breaker.hear("app", Route.RECONNECT, refusal(GONE), number)
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
        ([REFUSED], True),
        ([REFUSED, BACK], False),
        ([REFUSED, DOWN], True),
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


def test_reconnect_is_closed_by_answers_when_they_come_whatever_their_installs_do_next():
    breaker = Breaker(4, lambda _: True)
    for number in range(3):
        breaker.hear("app", Route.RECONNECT, refusal(GONE), number)
    assert breaker.reconnect_closed("app").message == f"said {GONE}"


def ends(night, first_try, cause=DOWN):
    night.breaker.observe("app", failed(cause), first_try)


def test_installs_that_were_first_tried_before_the_api_last_worked_are_not_an_outage():
    night = Night()
    for _ in range(20):
        night.tries += 1  # All of them are in their retries when one is back.
    night.hears(BACK)
    for straggler in range(1, 15):
        ends(night, straggler)
    assert night.breaker.tripped("app") is None
    for first_try in range(night.tries + 1, night.tries + 5):
        ends(night, first_try)
    assert night.breaker.tripped("app").because == "outage"


def test_a_server_that_was_never_reached_is_an_outage_by_the_first_installs_tries():
    breaker = Breaker(10, lambda _: False)
    no_answer = Answer(Stage.RECONNECT, message="hl.test refused the connection", cause=Cause.NETWORK_ERROR)
    breaker.hear("app", Route.RECONNECT, no_answer, 1)
    assert breaker.tripped("app") is None
    outcome = Failed(
        no_answer.cause, no_answer.stage, no_answer.message, 0, "", 5, "", (RouteResult(Route.RECONNECT, no_answer),)
    )
    breaker.observe("app", outcome, 1)
    assert breaker.tripped("app").met == breaker.tripped("other").met == "hl.test refused the connection"


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        ("error code: 1010", "error code: 1015", True),
        ("Sorry. Ray ID: 8a7b6c5d4e3f2a1b", "Sorry. Ray ID: 0f1e2d3c4b5a6978", True),
        ("no access for LocAbCdEfGhIjKlMnOpQr", "no access for Locabcdefghijklmnopqr", True),
        ("`redirect_uri` is invalid", "Invalid client: client is invalid", False),
        ("property userType should not exist", "property locationId should not exist", False),
    ],
)
def test_refusals_that_differ_only_in_ids_and_numbers_are_the_same(one, another, same):
    night = Night()
    for says in (one, another) * 3:
        night.hears(failed(REFUSED, says=says))
    trip = night.breaker.tripped("app")
    assert bool(trip) is same
    if trip:
        assert (trip.because, trip.met) == ("refused", one)
