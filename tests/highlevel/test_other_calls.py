"""The calls of the other routes: what leaves, and which answers are believed."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from jobs.core.causes import diagnose
from jobs.core.model import Cause, Stage
from jobs.core.secret import Secret
from jobs.highlevel.api import Pages, Window
from tests.helpers.api import AGENCY, APP, GOOD, LOCATION, over, refused

BEARER = Secret("bearer.of.agency/x+y")
OLD = Secret("old.refresh.token/x+y")
V3 = {"accessToken": "a", "refreshToken": "r", "userType": "Location", "companyId": "CoA", "locationId": "LocA"}


def by_agency(net, body, **more):
    net.answer("/oauth/location-token", body, **more)
    return over(net).location_token(LOCATION, "CoA", BEARER)


def test_a_locations_token_is_asked_for_with_the_agencys_as_the_api_describes_it(net):
    tokens = by_agency(net, V3)
    sent = net.sent[0]
    assert parse_qs(sent.body) == {"companyId": ["CoA"], "locationId": ["LocA"]}
    assert sent.headers["Version"] == "v3"
    assert sent.headers["Authorization"] == f"Bearer {BEARER.reveal()}"
    assert sent.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert (tokens.access_token.reveal(), tokens.refresh_token.reveal()) == ("a", "r")


def test_the_older_call_has_its_own_path_and_version_and_is_remembered(net):
    net.answer("/oauth/location-token", {"message": "Cannot POST /oauth/location-token"}, status=404)
    net.answer("/oauth/locationToken", GOOD, status=201)
    api = over(net)
    for _ in range(2):
        assert api.location_token(LOCATION, "CoA", BEARER).refresh_token.reveal() == "refresh.jwt"
    assert [urlsplit(sent.url).path for sent in net.sent] == [
        "/oauth/location-token", "/oauth/locationToken", "/oauth/locationToken"
    ]  # fmt: skip
    assert net.sent[1].headers["Version"] == "2021-07-28"


@pytest.mark.parametrize("absent", ["refreshToken", "userType", "companyId"])
def test_what_its_schema_does_not_promise_may_be_absent(net, absent):
    tokens = by_agency(net, {name: value for name, value in V3.items() if name != absent})
    assert tokens.user_type == "Location"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"locationId": None}, Cause.MALFORMED_ANSWER),
        ({"accessToken": None}, Cause.MALFORMED_ANSWER),
        ({"refreshToken": "with space"}, Cause.MALFORMED_ANSWER),
        ({"refreshToken": 7}, Cause.MALFORMED_ANSWER),
        ({"userType": "Company"}, Cause.WRONG_USER_TYPE),
        ({"locationId": "Other"}, Cause.WRONG_ACCOUNT),
        ({"companyId": "Other"}, Cause.WRONG_ACCOUNT),
    ],
)
def test_what_is_there_must_be_right(net, change, cause):
    assert diagnose(refused(by_agency, net, V3 | change)) is cause


def test_a_bearer_that_is_echoed_is_starred_out(net):
    answer = refused(
        lambda: by_agency(net, {"message": f"no {BEARER.reveal()}", "traceId": BEARER.reveal()}, status=403)
    )
    assert BEARER.reveal() not in answer.message + answer.says + answer.trace_id


def pages(net, *bodies):
    for body in bodies:
        net.answer("/oauth/installed-locations", body)
    pages, api = Pages("app-client", "CoA"), over(net)
    while not pages.whole:
        api.installed_locations(pages, BEARER)
    return list(pages.found)


def test_all_pages_are_read_and_only_what_is_installed_counts(net):
    first = {
        "items": [{"_id": "A", "isInstalled": True}, {"_id": "B", "isInstalled": False}],
        "pagination": {"nextPageToken": "n"},
    }
    assert pages(net, first, {"items": [{"_id": "C"}], "pagination": {"hasNextPage": False}}) == ["A", "C"]
    query = parse_qs(urlsplit(net.sent[1].url).query)
    assert query == {
        "companyId": ["CoA"], "appId": ["app"], "isInstalled": ["true"], "pageSize": ["100"], "pageToken": ["n"]
    }  # fmt: skip
    assert net.sent[0].headers["Version"] == "v3"


@pytest.mark.parametrize("body", [{}, {"items": "x"}, {"items": [1]}, {"items": [], "pagination": [1]}])
def test_what_is_not_a_page_is_malformed(net, body):
    assert diagnose(refused(pages, net, body)) is Cause.MALFORMED_ANSWER


def test_a_list_without_an_end_is_not_read_for_ever(net):
    body = {"items": [{"_id": "A"}], "pagination": {"nextPageToken": "n"}}
    assert diagnose(refused(pages, net, body)) is Cause.MALFORMED_ANSWER
    assert len(net.sent) == 2


def test_a_refresh_sends_a_form_and_both_of_its_secrets_are_starred_out(net):
    net.answer("/oauth/token", {"message": f"no {OLD.reveal()} {APP.client_secret.reveal()}"}, status=400)
    answer = refused(over(net).refresh, APP, AGENCY, OLD, Window(), lambda _: True)
    assert parse_qs(net.sent[0].body) == {
        "client_id": ["client-1"], "client_secret": ["s3cret/value+x"], "grant_type": ["refresh_token"],
        "refresh_token": [OLD.reveal()], "user_type": ["Company"],
    }  # fmt: skip
    assert OLD.reveal() not in answer.message
    assert "s3cret" not in answer.message
    assert answer.stage is Stage.REFRESH


@pytest.mark.parametrize(("later", "sent"), [(24.0, 2), (26.0, 1), (3_600.0, 1)])
def test_a_lost_answer_is_asked_for_within_the_window_and_never_later(net, later, sent):
    moment = [100.0]
    api, window = over(net, clock=lambda: moment[0]), Window()
    net.answer("/oauth/token", status=502)
    assert diagnose(refused(api.refresh, APP, LOCATION, OLD, window, lambda _: True)) is Cause.SERVER_ERROR
    moment[0] += later
    cause = diagnose(refused(api.refresh, APP, LOCATION, OLD, window, lambda _: True))
    assert cause is (Cause.SERVER_ERROR if sent == 2 else Cause.REFRESH_UNKNOWN)
    assert len(net.sent) == sent


@pytest.mark.parametrize("status", [400, 401, 429])
def test_an_answer_that_tells_how_it_went_opens_no_window(net, status):
    window = Window()
    net.answer("/oauth/token", {"message": "no"}, status=status)
    refused(over(net).refresh, APP, LOCATION, OLD, window, lambda _: True)
    assert window.opened is None
