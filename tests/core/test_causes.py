"""The meaning of every answer."""

from __future__ import annotations

import http.client

import pytest
import requests.exceptions as rq
import urllib3.exceptions as u3

from jobs.core.causes import ADVICE, RULES, Closes, closes, diagnose, most_actionable
from jobs.core.model import Answer, Cause, Stage
from jobs.highlevel.network_errors import EXCEPTIONS, judge

ANSWERS = [
    (400, "API endpoint has been removed | Bad Request", Cause.RECONNECT_REMOVED),
    (404, "Cannot POST /oauth/reconnect", Cause.RECONNECT_REMOVED),
    (405, "", Cause.RECONNECT_REMOVED),
    (410, "", Cause.RECONNECT_REMOVED),
    (404, "Not Found", Cause.RECONNECT_REMOVED),
    (404, "Location not found", Cause.NOT_INSTALLED),
    (400, "No installation found for this location", Cause.NOT_INSTALLED),
    (400, "App is not installed in this company", Cause.NOT_INSTALLED),
    (400, "Location with id ve9.EPM_4 does not exist", Cause.NOT_INSTALLED),
    (422, "Could not find the company", Cause.NOT_INSTALLED),
    (403, "No installation exists for company CoA", Cause.NOT_INSTALLED),
    (400, "The location id is wrong. The file was not found", Cause.REQUEST_REFUSED),
    (500, "Location not found", Cause.SERVER_ERROR),
    (404, "404 Not Found | 404 Not Found nginx/1.18.0", Cause.RECONNECT_REMOVED),
    (404, "The user was not found", Cause.REQUEST_REFUSED),
    (400, "Not Found", Cause.REQUEST_REFUSED),
    (500, "Location is not active", Cause.LOCATION_INACTIVE),
    (400, "Location is not active", Cause.LOCATION_INACTIVE),
    (401, "Invalid client credentials! | UnAuthorized!", Cause.CREDENTIALS_REJECTED),
    (401, "UnAuthorized!", Cause.CREDENTIALS_REJECTED),
    (401, "", Cause.CREDENTIALS_REJECTED),
    (401, "Authorization code not found | UnAuthorized!", Cause.CODE_REJECTED),
    (400, "Invalid grant: authorization code is invalid | invalid_grant", Cause.CODE_REJECTED),
    (400, "Invalid grant: authorization code has expired", Cause.CODE_REJECTED),
    (401, "version header was not found.", Cause.REQUEST_REFUSED),
    (401, "version header is invalid", Cause.REQUEST_REFUSED),
    (400, "Invalid API version segment v9", Cause.REQUEST_REFUSED),
    (400, "... This endpoint was removed in version v3 ...", Cause.REQUEST_REFUSED),
    (400, "Missing parameter: code", Cause.REQUEST_REFUSED),
    (422, "property userType should not exist", Cause.REQUEST_REFUSED),
    (429, "Location is not active", Cause.RATE_LIMITED),
    (408, "", Cause.SERVER_ERROR),
    (500, "", Cause.SERVER_ERROR),
    (503, "Service Unavailable", Cause.SERVER_ERROR),
    (204, "", Cause.MALFORMED_ANSWER),
    (302, "", Cause.MALFORMED_ANSWER),
    (999, "", Cause.MALFORMED_ANSWER),
    (0, "", Cause.NETWORK_ERROR),
]


@pytest.mark.parametrize(("status", "says", "cause"), ANSWERS)
def test_an_answer_has_its_cause(status, says, cause):
    assert diagnose(Answer(Stage.RECONNECT, status, says)) is cause


AT_OTHER_CALLS = [
    (Stage.REFRESH, 400, "Invalid grant: refresh token is invalid", Cause.REFRESH_INVALID),
    (Stage.REFRESH, 400, "Invalid refresh token", Cause.REFRESH_INVALID),
    (Stage.REFRESH, 400, "invalid_grant", Cause.REFRESH_INVALID),
    (Stage.REFRESH, 401, "Invalid client credentials! | UnAuthorized!", Cause.REFRESH_INVALID),
    (Stage.REFRESH, 401, "version header was not found.", Cause.REQUEST_REFUSED),
    (Stage.REFRESH, 400, "Location is not active", Cause.LOCATION_INACTIVE),
    (Stage.REFRESH, 400, "API endpoint has been removed", Cause.REQUEST_REFUSED),
    (Stage.REFRESH, 500, "Invalid refresh token", Cause.SERVER_ERROR),
    (Stage.LOCATION_TOKEN, 401, "The token is not authorized for this scope.", Cause.AGENCY_REFUSED),
    (Stage.LOCATION_TOKEN, 401, "Token's user type mismatch!", Cause.AGENCY_REFUSED),
    (Stage.LOCATION_TOKEN, 401, "Invalid JWT", Cause.AGENCY_REFUSED),
    (Stage.LOCATION_TOKEN, 403, "The token does not have access to this location.", Cause.AGENCY_REFUSED),
    (Stage.LOCATION_TOKEN, 404, "Cannot POST /oauth/location-token", Cause.AGENCY_REFUSED),
    (Stage.LOCATION_TOKEN, 400, "This endpoint was removed in version v3", Cause.AGENCY_REFUSED),
    (Stage.LOCATION_TOKEN, 400, "Location is not active", Cause.LOCATION_INACTIVE),
    (Stage.LOCATION_TOKEN, 404, "Location not found", Cause.NOT_INSTALLED),
    (Stage.LOCATION_TOKEN, 429, "", Cause.RATE_LIMITED),
    (Stage.INSTALLED_LOCATIONS, 401, "The token is not authorized for this scope.", Cause.AGENCY_REFUSED),
]


@pytest.mark.parametrize(("stage", "status", "says", "cause"), AT_OTHER_CALLS)
def test_the_same_words_mean_something_else_at_another_call(stage, status, says, cause):
    assert diagnose(Answer(stage, status, says)) is cause


@pytest.mark.parametrize(
    ("stage", "status", "says", "whom"),
    [
        (Stage.LOCATION_TOKEN, 401, "The token is not authorized for this scope.", Closes.AGENCY),
        (Stage.LOCATION_TOKEN, 401, "Token's user type mismatch!", Closes.AGENCY),
        (Stage.LOCATION_TOKEN, 403, "The token does not have access to this location.", Closes.NOBODY),
        (Stage.LOCATION_TOKEN, 404, "Cannot POST /oauth/locationToken", Closes.RUN),
        (Stage.REFRESH, 400, "API endpoint has been removed", Closes.RUN),
        (Stage.REFRESH, 401, "Invalid client credentials!", Closes.NOBODY),
        (Stage.RECONNECT, 400, "API endpoint has been removed", Closes.NOBODY),
    ],
)
def test_whom_an_answer_closes_its_route_for(stage, status, says, whom):
    assert closes(Answer(stage, status, says)) is whom


def test_of_several_failures_the_one_that_a_person_can_do_most_about_is_told():
    met = [Cause.RECONNECT_REMOVED, Cause.AGENCY_REFUSED, Cause.REFRESH_INVALID]
    assert most_actionable(met) == 1
    assert most_actionable([Cause.RECONNECT_REMOVED, Cause.SERVER_ERROR]) == 1
    assert most_actionable([Cause.NOT_INSTALLED, Cause.REFRESH_UNKNOWN]) == 0


def test_what_the_reader_judged_stays():
    assert diagnose(Answer(Stage.EXCHANGE, 200, "", cause=Cause.WRONG_ACCOUNT)) is Cause.WRONG_ACCOUNT


def test_every_cause_has_advice_and_every_rule_leads_to_one():
    assert set(ADVICE) == set(Cause)
    assert {rule.cause for rule in RULES} == {cause for *_, cause in (*ANSWERS, *AT_OTHER_CALLS)} - {
        Cause.MALFORMED_ANSWER,
        Cause.NETWORK_ERROR,
    }


def test_only_causes_that_may_pass_are_tried_again():
    assert {cause.value for cause in Cause if ADVICE[cause].again} == {
        "code_rejected", "malformed_answer", "rate_limited", "server_error", "network_error"
    }  # fmt: skip


@pytest.mark.parametrize("module", [rq, u3])
def test_every_exception_of_the_http_libraries_has_its_own_row(module):
    own = {
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, Exception)
        and not issubclass(kind, Warning)
        and kind.__module__ == module.__name__
    }
    assert own - set(EXCEPTIONS) == set()


def test_the_most_specific_row_decides_and_a_bug_is_not_a_network_error():
    assert judge(rq.ConnectTimeout) is Cause.NETWORK_ERROR
    assert judge(ConnectionResetError) is Cause.NETWORK_ERROR
    assert judge(http.client.LineTooLong) is Cause.MALFORMED_ANSWER
    assert judge(KeyError) is None
