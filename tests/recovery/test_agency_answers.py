"""Agencies' pairs that come in answer to sub-accounts: none is lost that the list has a row for, and few are minted."""

from __future__ import annotations

import pytest

from jobs.core.model import Answer, Cause, Install, InstallKey, Level, Route, Stage, Status, Tokens
from jobs.core.secret import Secret
from jobs.recovery.agency_answers import AgencyAnswers
from jobs.sandbox.behaviours import LOCATION_TOKEN
from jobs.sandbox.world import Place
from tests.helpers.job import pairs

TWENTY = [f"Loc{n:02}" for n in range(20)]


def of_agency(company="CoA", **more):
    return {location: Place("wrong_user_type", company_id=company) for location in TWENTY} | more


def rows(*, company="CoA", agency=False):
    lines = [*([f",{company}"] if agency else []), *(f"{location},{company}" for location in TWENTY)]
    return "location_id,company_id\n" + "\n".join(lines) + "\n"


def test_where_the_list_has_the_agency_the_newest_pair_is_kept_there_and_its_sub_accounts_go_on_by_it(play):
    job = play(of_agency())
    manifest = job.manifest(rows(agency=True))
    done = job.run(manifest, "--workers", "1")
    assert done.returncode == 0, done.stderr
    results = job.results()
    assert {results[location]["route"] for location in TWENTY} == {"agency"}
    # The agency's own, and three that came for others: the last of them is the one that is kept.
    assert job.calls("reconnect") == ["CoA", "Loc00", "Loc01", "Loc02"]
    assert results["CoA"]["message"] == "it came in answer to Loc02"
    assert results["CoA"]["user_type"] == "Company"
    assert done.stderr.count("reconnect is no longer tried for the sub-accounts of CoA") == 1
    assert (job.summary()["this_run"]["attempted"], job.summary()["this_run"]["recovered"]) == (21, 21)
    before = len(job.sandbox.seen)
    assert job.run(manifest).returncode == 0
    assert len(job.sandbox.seen) == before


def test_where_the_list_has_no_row_of_the_agency_the_failure_says_to_add_it_and_three_are_enough(play):
    job = play(of_agency())
    done = job.run(job.manifest(rows()), "--workers", "1")
    assert done.returncode == 1, done.stderr
    assert job.calls("reconnect") == TWENTY[:3]
    failures = job.failures()
    assert len(failures) == 20
    for row in failures.values():
        assert (row["cause"], row["owner"]) == ("wrong_user_type", "developer")
        assert "add that agency to the list as a row of its own" in row["message"]
        assert "CoA" in row["message"]
    assert pairs(job.output) == {}
    # Done as it says, all are back.
    assert job.run(job.manifest(rows(agency=True)), "--workers", "1").returncode == 0


def test_an_agency_that_failed_itself_is_back_by_a_pair_that_came_for_a_sub_account(play):
    job = play(of_agency(CoA=Place("bad_version", "Company")))
    done = job.run(job.manifest(rows(agency=True)), "--workers", "1")
    this_run = job.summary()["this_run"]
    assert (done.returncode, this_run["attempted"], this_run["recovered"], this_run["failed"]) == (0, 21, 21, 0)
    results = job.results()
    assert {row["status"] for row in results.values()} == {"recovered"}
    assert (results["CoA"]["route"], results["CoA"]["attempts"]) == ("reconnect", "1")
    assert len(job.calls(LOCATION_TOKEN)) == 20


def test_a_newer_pair_replaces_that_of_an_earlier_run_which_it_may_have_ended(play):
    job = play(of_agency())
    job.run(job.manifest("location_id,company_id\n,CoA\n"))
    old = pairs(job.output)["CoA"]
    assert job.run(job.manifest("location_id,company_id\nLoc00,CoA\n")).returncode == 0
    assert job.calls("reconnect") == ["CoA", "Loc00"]
    assert pairs(job.output)["CoA"] not in ("", old)
    assert job.summary()["this_run"]["recovered"] == 1


def test_an_agency_that_waits_for_its_next_try_is_not_called_again_once_it_is_back(play):
    job = play(of_agency(CoA=Place("server_error", "Company")))
    job.environment |= {"RECOVERY_RETRY__MIN_WAIT_SECONDS": "2", "RECOVERY_RETRY__MAX_WAIT_SECONDS": "2"}
    # The first of all goes alone: a row of another agency, so that CoA is between two tries when the others go.
    text = "location_id,company_id\n,CoFirst\n,CoA\nLoc00,CoA\nLoc01,CoA\n"
    assert job.run(job.manifest(text)).returncode == 0
    assert job.calls("reconnect").count("CoA") == 1
    assert job.results()["CoA"]["attempts"] == "1"
    assert job.summary()["this_run"]["recovered"] == job.summary()["this_run"]["attempted"] == 4
    assert {row["status"] for row in job.results().values()} == {"recovered"}


def test_a_sub_account_that_moved_goes_on_by_the_agency_whose_pair_came(play):
    job = play({"Loc00": Place("wrong_user_type", company_id="CoNew")})
    done = job.run(job.manifest("location_id,company_id\n,CoNew\nLoc00,CoOld\n"))
    assert done.returncode == 0, done.stderr
    row = job.results()["Loc00"]
    assert (row["route"], row["company_id"]) == ("agency", "CoNew")


def test_without_the_agency_route_the_pair_is_kept_all_the_same(play):
    job = play(of_agency())
    job.run(job.manifest(rows(agency=True)), "--workers", "1", "--routes", "reconnect")
    assert job.results()["CoA"]["message"] == "it came in answer to Loc02"
    assert {row["cause"] for row in job.failures().values()} == {"wrong_user_type"}
    assert "is recorded there" in job.failures()["Loc19"]["message"]


def location(number, company="CoA"):
    return Install(InstallKey("c", Level.SUB_ACCOUNT, f"Loc{number}"), company)


def stray(company="CoA"):
    pair = Tokens(Secret("a"), Secret("r"), "", "", "", "Company", "", company, "", "")
    return Answer(Stage.EXCHANGE, 200, message="m", cause=Cause.WRONG_USER_TYPE, stray=pair)


def agency_answers(standing=None):
    return AgencyAnswers(lambda _: standing, lambda: "2026-11-24T10:00:00Z", lambda _: None)


def test_only_three_in_a_row_close_reconnect_for_an_agency_and_for_that_one_alone():
    some = agency_answers()
    for number in (1, 2):
        some.came(location(number), Route.RECONNECT, stray())
    some.right_one_came(location(3))
    for number in (4, 5):
        some.came(location(number), Route.RECONNECT, stray())
    assert some.closed(location(6)) is None
    some.came(location(6), Route.RECONNECT, stray())
    assert some.closed(location(7)) is not None
    assert some.closed(location(7, "CoB")) is None
    assert some.closed(location(7, "")) is None


@pytest.mark.parametrize(
    ("standing", "renews"), [(Status.RECOVERED, True), (Status.FAILED, False), (Status.PENDING, False)]
)
def test_what_is_recorded_counts_once_and_only_if_it_was_not_back(standing, renews):
    some = agency_answers(standing)
    _, first = some.came(location(1), Route.RECONNECT, stray())
    _, second = some.came(location(2), Route.REFRESH, stray())
    assert (first[0].key, first[1].renews, second[1].renews) == (InstallKey("c", Level.AGENCY, "CoA"), renews, True)


def test_no_token_stays_in_what_is_reported():
    answer, found = agency_answers().came(location(1), Route.RECONNECT, stray())
    assert (answer.stray, found) == (None, None)
