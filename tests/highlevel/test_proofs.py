"""The calls by which an access token proves itself: what leaves, and which answers are believed."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from jobs.core.causes import diagnose
from jobs.core.model import Cause, InstallKey, Level, Stage
from jobs.core.secret import Secret
from tests.helpers.api import over, refused

TOKEN = Secret("access.of.install/x+y")
LOCATION = InstallKey("app1-key", Level.SUB_ACCOUNT, "LocA")
COMPANY = InstallKey("app1-key", Level.AGENCY, "CoA")
OF_LOCATION, OF_COMPANY, OF_LISTING = "/locations/LocA", "/companies/CoA", "/oauth/installedLocations"


def refused_proof(net, key, scopes=None):
    return refused(over(net).prove, key, TOKEN, scopes)


@pytest.mark.parametrize(
    ("key", "scopes", "url", "query", "body"),
    [
        (LOCATION, None, OF_LOCATION, {}, {"location": {"id": "LocA"}}),
        (LOCATION, ["contacts.readonly"], OF_LOCATION, {}, {"location": {"id": "LocA", "companyId": "CoX"}}),
        (COMPANY, None, OF_LISTING, {"companyId": "CoA", "appId": "app1", "limit": "1"}, {"locations": []}),
        (COMPANY, ["oauth.readonly", "companies.readonly"], OF_LISTING, {"companyId": "CoA", "appId": "app1", "limit": "1"}, {"locations": []}),
        (COMPANY, ["companies.readonly"], OF_COMPANY, {}, {"company": {"id": "CoA"}}),
        (COMPANY, [], OF_LISTING, {"companyId": "CoA", "appId": "app1", "limit": "1"}, {"locations": []}),
    ],
)  # fmt: skip
def test_the_scopes_choose_the_call_and_it_leaves_as_the_api_describes_it(net, key, scopes, url, query, body):
    net.answer(url, body)
    over(net).prove(key, TOKEN, scopes)
    sent = net.sent[0]
    assert len(net.sent) == 1
    assert dict(parse_qsl(urlsplit(sent.url).query)) == query
    assert sent.headers["Version"] == "2021-07-28"
    assert sent.headers["Authorization"] == f"Bearer {TOKEN.reveal()}"
    assert sent.body is None


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ({"location": {"id": "LocB"}}, Cause.WRONG_ACCOUNT),
        ({"location": {}}, Cause.MALFORMED_ANSWER),
        ({"location": {"id": 7}}, Cause.MALFORMED_ANSWER),
        ({"location": "LocA"}, Cause.MALFORMED_ANSWER),
        ({}, Cause.MALFORMED_ANSWER),
        (["LocA"], Cause.MALFORMED_ANSWER),
    ],
)
def test_an_answer_for_another_account_or_for_none_is_not_believed(net, body, cause):
    net.answer(OF_LOCATION, body)
    assert diagnose(refused_proof(net, LOCATION)) is cause


def test_a_list_of_locations_must_be_one(net):
    net.answer(OF_LISTING, {"locations": {"id": "CoA"}})
    assert diagnose(refused_proof(net, COMPANY)) is Cause.MALFORMED_ANSWER


def test_an_error_in_the_body_of_a_good_answer_is_that_error(net):
    net.answer(OF_LOCATION, {"statusCode": 401, "message": "Invalid JWT"})
    assert refused_proof(net, LOCATION).status == 401


def test_what_an_answer_holds_beyond_the_id_is_not_kept_and_the_token_is_starred_out(net):
    net.answer(
        OF_LOCATION,
        {"location": {"id": "LocB", "email": "owner@example.com"}, "message": "owner@example.com"},
    )
    answer = refused_proof(net, LOCATION)
    assert answer.stage is Stage.PROOF
    assert "owner" not in repr(answer)
    net.answer(OF_COMPANY, status=401, body={"message": f"bad {TOKEN.reveal()}"})
    answer = refused_proof(net, COMPANY, ["companies.readonly"])
    assert (TOKEN.reveal() in repr(answer), answer.message) == (False, "bad ****")
