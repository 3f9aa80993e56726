"""The sandbox's calls for an account itself: what they need, what they answer, and how they refuse."""

from __future__ import annotations

import pytest
import requests

from jobs.sandbox.server import running
from jobs.sandbox.tokens import mint
from jobs.sandbox.world import Place, World

CLIENT_ID = "66c8a1b2c3d4e5f6a7b8c9d0-m0testing"
APP_ID = "66c8a1b2c3d4e5f6a7b8c9d0"
NO_SCOPE = "The token is not authorized for this scope."
INSTALLED = {"companyId": "CoA", "appId": APP_ID}


def access(level, account, **more):
    return mint("access", level, account, CLIENT_ID, "CoA", 60, **more)


@pytest.fixture
def ask():
    installs = {
        "LocA": Place(company_id="CoA"),
        "LocB": Place(company_id="CoA"),
        "LocDead": Place("pair_dead"),
        "LocPoor": Place("pair_without_scope"),
        "LocOther": Place("pair_of_another"),
    }
    with running(World({CLIENT_ID: "secret"}, installs)) as sandbox:

        def call(path, token, version="2021-07-28", **query):
            headers = {"Authorization": f"Bearer {token}"} | ({"Version": version} if version else {})
            answer = requests.get(f"{sandbox.url}{path}", headers=headers, params=query, timeout=10)
            return answer.status_code, answer.json()

        yield call


def test_a_location_is_told_to_its_own_token_and_to_its_agencys(ask):
    for token in (access("Location", "LocA"), access("Company", "CoA")):
        status, body = ask("/locations/LocA", token)
        assert (status, body["location"]["id"], body["location"]["companyId"]) == (200, "LocA", "CoA")


def test_a_company_is_told_to_its_own_token(ask):
    status, body = ask("/companies/CoA", access("Company", "CoA"))
    assert (status, body["company"]["id"]) == (200, "CoA")


def test_the_locations_that_have_the_app_are_told_by_the_page(ask):
    status, body = ask("/oauth/installedLocations", access("Company", "CoA"), limit="1", **INSTALLED)
    assert (status, body["count"], [one["_id"] for one in body["locations"]]) == (200, 2, ["LocA"])


@pytest.mark.parametrize(
    ("path", "level", "account"),
    [
        ("/locations/LocA", "Location", "LocA"),
        ("/companies/CoA", "Company", "CoA"),
        ("/oauth/installedLocations", "Company", "CoA"),
    ],
)
def test_what_each_call_needs_is_asked_for(ask, path, level, account):
    good = access(level, account)
    assert ask(path, good, version="", **INSTALLED)[1]["message"] == "version header was not found."
    assert ask(path, good, version="v3", **INSTALLED)[1]["message"] == "version header is invalid"
    assert ask(path, "no.jwt.atall", **INSTALLED) == ask(path, mint("refresh", level, account, "", "", 60), **INSTALLED)
    assert ask(path, "no.jwt.atall", **INSTALLED)[1]["message"] == "Invalid JWT"
    status, body = ask(path, access(level, account, scope="contacts.readonly"), **INSTALLED)
    assert (status, body["message"]) == (401, NO_SCOPE)


def test_a_token_of_another_account_is_refused(ask):
    assert ask("/locations/LocA", access("Location", "LocB"))[0] == 403
    assert ask("/locations/LocA", access("Company", "CoB"))[0] == 403
    assert ask("/companies/CoA", access("Company", "CoB"))[0] == 403
    scopes = "companies.readonly oauth.readonly"
    for path in ("/companies/CoA", "/oauth/installedLocations"):
        status, body = ask(path, access("Location", "LocA", scope=scopes), **INSTALLED)
        assert (status, body["message"]) == (401, "Token's user type mismatch!")


def test_a_parameter_that_is_not_there_is_named(ask):
    status, body = ask("/oauth/installedLocations", access("Company", "CoA"), companyId="CoA")
    assert (status, body["message"]) == (422, ["appId should not be empty"])


def test_a_world_can_make_a_pair_dead_or_without_scope_or_somebody_elses(ask):
    assert ask("/locations/LocDead", access("Location", "LocDead"))[1]["message"] == "Invalid JWT"
    assert ask("/locations/LocPoor", access("Location", "LocPoor"))[1]["message"] == NO_SCOPE
    status, body = ask("/locations/LocOther", access("Location", "LocOther"))
    assert (status, body["location"]["id"]) == (200, "SomebodyElse00000001")
