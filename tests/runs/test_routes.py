"""The other ways back: an agency's token, a refresh token that still works, in order, on a night without Reconnect."""

from __future__ import annotations

import csv
import json
import sqlite3

import pytest

from jobs.sandbox.behaviours import LISTING, LOCATION_TOKEN, REFRESH
from jobs.sandbox.tokens import mint
from jobs.sandbox.world import Limit, Place
from tests.helpers.job import CLIENT_ID
from tests.helpers.lists import listing_of_pairs, of
from tests.helpers.waiting import wait_until

ALL = ("--routes", "reconnect,agency,refresh")


def agency(job, company, **pair):
    """The row of an agency with its old pair."""
    old = job.sandbox.old_pair(company, "Company") | pair
    return ("", company, old["access_token"], old["refresh_token"])


def test_where_reconnect_is_removed_a_living_agency_pair_brings_its_sub_accounts_back(play):
    job = play(of("LocA", "LocB", "LocC"), reconnect_removed=True)
    rows = [agency(job, "CoA"), *((f"Loc{x}", "CoA", "", "") for x in "ABC")]
    done = job.run(job.manifest(listing_of_pairs(*rows)))
    assert done.returncode == 1, done.stderr
    results = job.results()
    assert {results[f"Loc{x}"]["route"] for x in "ABC"} == {"agency"}
    assert results["LocA"]["refresh_token"].count(".") == 2
    assert results["CoA"]["cause"] == "reconnect_removed"
    assert job.calls(LISTING) == ["CoA"]
    # Reconnect is asked three times, one at a time, and then no more.
    assert len(job.calls("reconnect")) == 3
    assert done.stderr.count("the route reconnect is closed") == 1


def test_a_new_agency_pair_of_the_same_run_serves_its_sub_accounts_and_they_wait_for_it(play):
    installs = of(*(f"Loc{n}" for n in range(6)))
    job = play(installs | {"CoA": Place("refresh_error", "Company", heals_after=3)}, reconnect_removed=True)
    job.environment["RECOVERY_RETRY__MAX_WAIT_SECONDS"] = "0.3"
    rows = [agency(job, "CoA", access_token=""), *((f"Loc{n}", "CoA", "", "") for n in range(6))]
    done = job.run(job.manifest(listing_of_pairs(*rows)), *ALL, "--workers", "4")
    assert done.returncode == 0, done.stderr
    routes = {key: row["route"] for key, row in job.results().items()}
    assert routes == {"CoA": "refresh"} | {f"Loc{n}": "agency" for n in range(6)}


def test_what_is_recovered_serves_a_later_run_too(play):
    job = play(of("LocA"))
    job.run(job.manifest("location_id,company_id\n,CoA\n"))
    job.sandbox.world = job.sandbox.world.__class__(**{**vars(job.sandbox.world), "reconnect_removed": True})
    done = job.run(job.manifest("location_id,company_id\nLocA,CoA\n"))
    assert done.returncode == 0, done.stderr
    assert job.results()["LocA"]["route"] == "agency"


def test_where_no_route_is_left_the_run_stops_and_where_one_goes_on_the_others_have_failed(play):
    job = play(of("LocA"), reconnect_removed=True)
    others = [(f"LocX{n}", "CoX", "", "") for n in range(9)]
    stopped = job.run(job.manifest(listing_of_pairs(*others)))
    assert stopped.returncode == 3
    assert job.summary()["stopped_because"] == "reconnect_removed"
    assert job.summary()["counts"]["pending"] == 6
    went_on = job.run(job.manifest(listing_of_pairs(agency(job, "CoA"), ("LocA", "CoA", "", ""), *others)))
    assert went_on.returncode == 1
    assert job.summary()["counts"]["pending"] == 0
    assert {row["cause"] for row in job.table("failures.csv")} == {"reconnect_removed"}
    assert job.results()["LocA"]["status"] == "recovered"
    assert "route" in went_on.stderr


def test_what_its_agency_does_not_list_as_installed_costs_no_call_and_goes_to_the_reinstall_link(play):
    many = {f"Loc{n:03}": Place(company_id="CoA") for n in range(230)}
    job = play(many | of("LocGone", behaviour="not_installed"), reconnect_removed=True)
    rows = [agency(job, "CoA"), ("Loc000", "CoA", "", ""), ("Loc229", "CoA", "", ""), ("LocGone", "CoA", "", "")]
    job.run(job.manifest(listing_of_pairs(*rows, ("LocNowhere", "CoA", "", ""))))
    assert job.calls(LISTING) == ["CoA"] * 3
    assert sorted(job.calls(LOCATION_TOKEN)) == ["Loc000", "Loc229"]
    assert {key: (row["cause"], row["stage"]) for key, row in job.failures().items() if key != "CoA"} == {
        "LocGone": ("not_installed", "installed_locations"), "LocNowhere": ("not_installed", "installed_locations")
    }  # fmt: skip


def test_a_row_without_a_company_belongs_to_the_agency_that_lists_it(play):
    job = play(of("LocA") | of("LocB", company="CoB"), reconnect_removed=True)
    rows = [agency(job, "CoA"), agency(job, "CoB"), ("LocA", "", "", ""), ("LocB", "", "", ""), ("LocC", "", "", "")]
    job.run(job.manifest(listing_of_pairs(*rows)))
    results = job.results()
    assert (results["LocA"]["route"], results["LocB"]["route"]) == ("agency", "agency")
    assert results["LocC"]["cause"] == "reconnect_removed"


def test_a_listing_that_is_refused_does_not_close_the_route(play):
    job = play(of("LocA", "LocB") | {"CoA": Place("no_oauth_readonly", "Company")}, reconnect_removed=True)
    rows = [agency(job, "CoA"), ("LocA", "CoA", "", ""), ("LocB", "CoA", "", "")]
    job.run(job.manifest(listing_of_pairs(*rows)))
    assert {job.results()[key]["route"] for key in ("LocA", "LocB")} == {"agency"}


def test_a_page_of_a_listing_that_fails_is_asked_for_again_and_those_before_it_are_kept(play):
    job = play(of(*(f"Loc{n:03}" for n in range(450))), reconnect_removed=True, faults={"listing_error": 0.3}, seed=8)
    rows = [agency(job, "CoA"), ("Loc000", "CoA", "", ""), ("Loc449", "", "", "")]
    job.run(job.manifest(listing_of_pairs(*rows)), "--routes", "agency")
    assert {job.results()[key]["route"] for key in ("Loc000", "Loc449")} == {"agency"}
    statuses = [seen.status for seen in job.sandbox.seen if seen.call == LISTING]
    assert statuses.count(200) == 5
    assert 502 in statuses[statuses.index(200) :]


def test_an_agency_without_the_scope_is_closed_at_its_first_answer_and_said_once(play):
    installs = of(*(f"Loc{n}" for n in range(9))) | of("LocZ", company="CoZ")
    job = play(installs | {"CoA": Place("no_oauth_write", "Company")}, reconnect_removed=True)
    rows = [agency(job, "CoA"), agency(job, "CoZ"), *((f"Loc{n}", "CoA", "", "") for n in range(9))]
    done = job.run(job.manifest(listing_of_pairs(*rows, ("LocZ", "CoZ", "", ""))), "--workers", "8")
    assert len(job.calls(LOCATION_TOKEN)) == 2
    failures = job.failures()
    assert {failures[f"Loc{n}"]["cause"] for n in range(9)} == {"agency_refused"}
    assert failures["Loc3"]["stage"] == "location_token"
    # Only what an install was answered itself has a trace of its own.
    assert sum(bool(failures[f"Loc{n}"]["trace_id"]) for n in range(9)) == 1
    for words in ("reconnect: API endpoint has been removed", "agency: The token is not authorized for this scope."):
        assert words in failures["Loc3"]["message"]
    assert done.stderr.count("closed for CoA") == 1
    assert job.results()["LocZ"]["route"] == "agency"


def test_one_agency_is_one_resource_whatever_the_pace(play):
    installs = of(*(f"Loc{n}" for n in range(12))) | of(*(f"LocZ{n}" for n in range(12)), company="CoZ")
    job = play(installs, reconnect_removed=True)
    rows = [
        agency(job, "CoA"),
        agency(job, "CoZ"),
        *((place, one.company_id, "", "") for place, one in installs.items()),
    ]
    job.run(job.manifest(listing_of_pairs(*rows)))
    times = {company: [] for company in ("CoA", "CoZ")}
    for seen in job.sandbox.seen:
        if seen.call == LOCATION_TOKEN:
            times[installs[seen.account_id].company_id].append(seen.at)
    for of_one in times.values():
        assert len(of_one) == 12
        assert of_one[-1] - of_one[0] >= 0.6
    # The two go on side by side.
    assert max(map(min, times.values())) < min(map(max, times.values()))


def two_agencies(play, limit):
    """A night without Reconnect: six locations of an agency with a limit of its own, and six of one without."""
    installs = of(*(f"Loc{n}" for n in range(6))) | of(*(f"LocZ{n}" for n in range(6)), company="CoZ")
    job = play(installs, reconnect_removed=True, agency_limits={"CoA": limit})
    rows = [(place, one.company_id, "", "") for place, one in installs.items()]
    done = job.run(job.manifest(listing_of_pairs(agency(job, "CoA"), agency(job, "CoZ"), *rows)))
    assert done.returncode == 1, done.stderr  # The agencies' own rows are not back.
    assert {job.results()[f"LocZ{n}"]["route"] for n in range(6)} == {"agency"}
    return job, done


def test_an_agency_whose_day_is_used_up_ends_the_run_for_nobody_else(play):
    job, done = two_agencies(play, Limit(1000, 10, shown=True, a_day=3))
    asked = [place for place in job.calls(LOCATION_TOKEN) if not place.startswith("LocZ")]
    assert len(asked) == 2  # The first of the three was for its listing.
    failures = [row for key, row in job.failures().items() if key.startswith("Loc")]
    assert [row["cause"] for row in failures] == ["rate_limited"] * 4
    assert "daily limit of requests for CoA is used up; run the same command again after 20" in failures[0]["message"]
    assert done.stderr.count("no more requests for the agency CoA") == 1


def test_an_agency_that_asks_for_a_long_pause_ends_the_run_for_nobody_else(play):
    job, _ = two_agencies(play, Limit(2, 3600.0, "seconds"))
    failures = {row["cause"] for key, row in job.failures().items() if key.startswith("Loc")}
    assert failures == {"rate_limited"}
    assert len([seen for seen in job.sandbox.seen if seen.status == 429]) == 1


def test_the_limit_that_an_agency_tells_of_slows_that_agency_alone(play):
    job, _ = two_agencies(play, Limit(2, 0.6, "seconds", shown=True))
    order = job.calls(LOCATION_TOKEN)
    assert {job.results()[f"Loc{n}"]["route"] for n in range(6)} == {"agency"}
    assert not any(place.startswith("LocZ") for place in order[-3:])
    assert not [seen for seen in job.sandbox.seen if seen.status == 429]


def test_the_older_call_serves_where_the_newer_is_not_known_and_that_is_remembered(play):
    job = play(of("LocA", "LocB", "LocC"), reconnect_removed=True, location_token="old", location_refresh_token=False)
    rows = [agency(job, "CoA"), *((f"Loc{x}", "CoA", "", "") for x in "ABC")]
    done = job.run(job.manifest(listing_of_pairs(*rows)))
    assert done.stderr.count("no refresh token") == 3
    row = job.results()["LocB"]
    assert (row["route"], row["refresh_token"]) == ("agency", "")
    assert "no refresh token" in row["message"]
    assert len(job.calls(LOCATION_TOKEN)) == 4


def test_where_neither_call_is_known_the_route_is_closed_for_the_run(play):
    job = play(of("LocA", "LocB"), reconnect_removed=True, location_token="none")
    rows = [agency(job, "CoA"), ("LocA", "CoA", "", ""), ("LocB", "CoA", "", "")]
    job.run(job.manifest(listing_of_pairs(*rows)))
    assert len(job.calls(LOCATION_TOKEN)) == 2
    assert job.failures()["LocA"]["cause"] == "agency_refused"


def test_a_token_of_another_account_is_thrown_away_on_this_route_too(play):
    job = play(of("LocA", behaviour="location_token_wrong"), reconnect_removed=True)
    job.run(job.manifest(listing_of_pairs(agency(job, "CoA"), ("LocA", "CoA", "", ""))))
    assert job.failures()["LocA"]["cause"] == "wrong_account"
    assert job.results()["LocA"]["access_token"] == ""


def test_refresh_is_asked_for_and_each_token_is_spent_once(play):
    job = play(of("LocA"), reconnect_removed=True)
    old = job.sandbox.old_pair("LocA")
    manifest = job.manifest(listing_of_pairs(("LocA", "", old["access_token"], old["refresh_token"])))
    job.run(manifest)
    assert job.calls(REFRESH) == []
    assert job.run(manifest, *ALL).returncode == 0
    assert job.results()["LocA"]["route"] == "refresh"
    assert job.run(manifest, *ALL).returncode == 0
    assert [one.how for one in job.sandbox.refreshes.sent] == ["spent"]
    # Forced, the ledger's newest pair is spent, not the manifest's.
    newest = job.results()["LocA"]["refresh_token"]
    assert job.run(manifest, "--routes", "refresh", "--force").returncode == 0
    assert [one.token for one in job.sandbox.refreshes.sent] == [old["refresh_token"], newest]
    assert job.sandbox.refreshes.sent_after_their_end == []


def test_a_lost_answer_is_asked_for_again_within_the_window(play):
    job = play(of("LocA", behaviour="refresh_lost"), reconnect_removed=True)
    job.sandbox.world.installs["LocA"] = Place("refresh_lost", company_id="CoA", heals_after=2)
    old = job.sandbox.old_pair("LocA")
    done = job.run(job.manifest(listing_of_pairs(("LocA", "", "", old["refresh_token"]))), "--routes", "refresh")
    assert done.returncode == 0, done.stderr
    assert [one.how for one in job.sandbox.refreshes.sent] == ["spent", "repeated", "repeated"]
    assert (
        job.results()["LocA"]["refresh_token"]
        == job.sandbox.refreshes.answers[old["refresh_token"]][2]["refresh_token"]
    )


@pytest.mark.parametrize("behaviour", ["refresh_lost", "refresh_error"])
def test_a_refresh_that_stays_lost_is_unknown_and_only_force_sends_that_token_again(play, behaviour):
    job = play(of("LocA", behaviour=behaviour), reconnect_removed=True)
    manifest = job.manifest(listing_of_pairs(("LocA", "", "", job.sandbox.old_pair("LocA")["refresh_token"])))
    assert job.run(manifest, "--routes", "refresh").returncode == 1
    assert (job.failures()["LocA"]["cause"], job.failures()["LocA"]["stage"]) == ("refresh_unknown", "refresh")
    sent = len(job.calls(REFRESH))
    assert sent == 5
    job.sandbox.world.installs["LocA"] = Place(company_id="CoA")
    assert job.run(manifest, "--routes", "refresh").returncode == 1
    assert (len(job.calls(REFRESH)), job.failures()["LocA"]["cause"]) == (sent, "refresh_unknown")
    assert job.run(manifest, "--routes", "refresh", "--force").returncode == 0
    assert len(job.calls(REFRESH)) == sent + 1


def test_a_run_that_is_killed_within_a_refresh_leaves_that_token_unknown(play):
    job = play(of("LocA"), reconnect_removed=True, latency_seconds=5)
    manifest = job.manifest(listing_of_pairs(("LocA", "", "", job.sandbox.old_pair("LocA")["refresh_token"])))
    process = job.start("run", manifest, "--output", job.output, "--routes", "refresh")
    wait_until(lambda: job.sandbox.refreshes.sent)
    process.kill()
    process.communicate()
    job.run(manifest, "--routes", "refresh")
    assert job.failures()["LocA"]["cause"] == "refresh_unknown"
    assert len(job.sandbox.refreshes.sent) == 1


def test_runs_that_are_killed_again_and_again_spend_no_token_twice_and_lose_no_pair(play):
    places = of(*(f"Loc{n:02}" for n in range(40))) | of(*(f"LocX{n:02}" for n in range(20)), company="CoX")
    job = play(places, reconnect_removed=True, latency_seconds=0.05, refresh_window_seconds=0.0)
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "100"
    rows = [agency(job, "CoA", access_token="")]
    rows += [(key, one.company_id, *_tokens(job.sandbox.old_pair(key))) for key, one in places.items()]
    manifest = job.manifest(listing_of_pairs(*rows))
    hits = 0
    for more in (6, 15, 15):
        target = len(job.sandbox.seen) + more
        process = job.start("run", manifest, "--output", job.output, *ALL)
        wait_until(lambda target=target, at=process: len(job.sandbox.seen) >= target or at.poll() is not None)
        hits += process.poll() is None
        process.kill()
        process.communicate()
    assert hits == 3
    job.run(manifest, *ALL)
    refreshes = job.sandbox.refreshes
    assert refreshes.sent_after_their_end == []
    newest = {answer.get("locationId", "CoA"): answer["refresh_token"] for _, _, answer in refreshes.answers.values()}
    for key, row in job.results().items():
        if row["route"] == "refresh":
            assert row["refresh_token"] == newest[key]
        elif not row["route"]:
            assert row["cause"] == "refresh_unknown"


def test_a_server_that_cannot_be_reached_leaves_no_token_in_doubt(play):
    job = play(of("LocA"))
    old = job.sandbox.old_pair("LocA")
    manifest = job.manifest(listing_of_pairs(("LocA", "", "", old["refresh_token"])))
    job.environment["HIGHLEVEL_BASE_URL"] = "http://127.0.0.1:9"
    job.run(manifest, "--routes", "refresh", "--output", job.folder / "away")
    with (job.folder / "away" / "failures.csv").open(encoding="utf-8-sig") as file:
        assert [row["cause"] for row in csv.DictReader(file)] == ["network_error"]
    with sqlite3.connect(job.folder / "away" / "ledger.sqlite3") as connection:
        assert connection.execute("SELECT count(*) FROM spends").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize(
    ("behaviour", "cause"),
    [
        ("refresh_revoked", "refresh_invalid"),
        ("location_inactive", "location_inactive"),
        ("refresh_wrong_account", "wrong_account"),
    ],
)
def test_how_a_refresh_is_refused(play, behaviour, cause):
    job = play(of("LocA", behaviour=behaviour))
    manifest = job.manifest(listing_of_pairs(("LocA", "", "", job.sandbox.old_pair("LocA")["refresh_token"])))
    job.run(manifest, "--routes", "refresh")
    assert job.failures()["LocA"]["cause"] == cause
    job.run(manifest, "--routes", "refresh")
    # An answer for another account has spent the token; what was refused may be tried again.
    assert len(job.calls(REFRESH)) == (1 if cause == "wrong_account" else 2)


def test_refused_refreshes_never_stop_the_run(play):
    job = play(default="refresh_revoked", reconnect_removed=True)
    rows = [(f"Loc{n}", "", "", job.sandbox.old_pair(f"Loc{n}")["refresh_token"]) for n in range(12)]
    done = job.run(job.manifest(listing_of_pairs(*rows)), *ALL)
    assert done.returncode == 1
    assert job.summary()["failures_by_cause"] == {"refresh_invalid": 12}


def test_a_token_that_can_be_seen_to_be_useless_is_refused_without_a_call_and_an_opaque_one_is_sent(play):
    job = play(of(*(f"Loc{n}" for n in range(6))))
    good = job.sandbox.old_pair("Loc0")["refresh_token"]
    tokens = [
        good[:-5],
        good.rpartition(".")[0],
        job.sandbox.old_pair("LocOther")["refresh_token"],
        mint("refresh", "Location", "Loc3", "other-app", "CoA", 60),
        mint("refresh", "Location", "Loc4", CLIENT_ID, "CoA", -60),
        "xy34dc0ae1234a4858f9ff06d4f66ba",
    ]
    rows = [(f"Loc{n}", "", "", token) for n, token in enumerate(tokens)]
    job.run(job.manifest(listing_of_pairs(*rows)), "--routes", "refresh")
    assert {row["cause"] for row in job.table("failures.csv")} == {"refresh_invalid"}
    assert len(job.calls(REFRESH)) == 1
    assert "cut off" in job.failures()["Loc0"]["message"]
    assert "another install" in job.failures()["Loc2"]["message"]
    assert "another app" in job.failures()["Loc3"]["message"]
    assert "expired" in job.failures()["Loc4"]["message"]


def test_the_old_pairs_and_bearers_stay_out_of_what_people_see_and_out_of_the_ledger(play):
    job = play(of("LocA", "LocB", behaviour="echo_secrets") | {"CoA": Place("echo_secrets", "Company")})
    pairs = [job.sandbox.old_pair("LocA"), job.sandbox.old_pair("CoA", "Company")]
    rows = [
        ("LocA", "CoA", *_tokens(pairs[0])),
        ("", "CoA", *_tokens(pairs[1])),
        ("torn", *_tokens(pairs[0]), "x", "y"),
    ]
    manifest = job.manifest(listing_of_pairs(*rows))
    manifest.chmod(0o644)
    done = job.run(manifest, *ALL, "--log-format", "json")
    seen = done.stdout + done.stderr
    for name in ("failures.csv", "failures.html", "summary.json", "results.csv"):
        seen += (job.output / name).read_text(encoding="utf-8-sig")
    ledger = b"".join(file.read_bytes() for file in job.output.glob("ledger*"))
    for pair in pairs:
        for token in _tokens(pair):
            assert token not in seen
            assert token.encode() not in ledger
            assert token.rpartition(".")[2] not in seen
    assert "chmod 600" in job.run(manifest).stderr


def test_results_of_an_earlier_incident_are_a_manifest_with_their_pairs(play):
    job = play(of("LocA", "LocB"))
    job.run(job.manifest("location_id,company_id,plan\nLocA,CoA,gold\nLocB,CoA,free\n,CoA,\n"))
    earlier = job.manifest((job.output / "results.csv").read_bytes(), "earlier.csv")
    job.sandbox.world = job.sandbox.world.__class__(**{**vars(job.sandbox.world), "reconnect_removed": True})
    done = job("run", earlier, "--output", job.folder / "second", *ALL)
    assert done.returncode == 0, done.stderr
    with (job.folder / "second" / "results.csv").open() as file:
        rows = {row["location_id"] or row["company_id"]: row for row in csv.DictReader(file)}
    assert {key: row["route"] for key, row in rows.items()} == {"LocA": "agency", "LocB": "agency", "CoA": "refresh"}
    assert rows["LocA"]["plan"] == "gold"


@pytest.mark.parametrize("routes", ["reconect", "", "agency,phone"])
def test_an_unknown_route_is_refused(play, routes):
    job = play()
    done = job.run(job.manifest("location_id\nLocA\n"), "--routes", routes)
    assert done.returncode == 2
    assert "reconnect, agency, refresh" in done.stderr


def test_plan_says_how_many_installs_each_route_can_serve(play):
    job = play()
    old = job.sandbox.old_pair("LocA")["refresh_token"]
    rows = [
        agency(job, "CoA"),
        ("", "CoDead", mint("access", "Company", "CoDead", CLIENT_ID, "CoDead", -5), ""),
        ("LocA", "CoA", "", old), ("LocA", "CoA", "", old), ("LocB", "", "", old), ("LocC", "CoDead", "", ""),
    ]  # fmt: skip
    manifest = job.manifest(listing_of_pairs(*rows))
    assert json.loads(job("plan", manifest, "--json", *ALL).stdout)["routes"] == {
        "reconnect": 5, "agency": 1, "unplaced": 1, "refresh": 2
    }  # fmt: skip
    assert "refresh" not in json.loads(job("plan", manifest, "--json").stdout)["routes"]
    assert "the route agency can serve 1 of them" in job("plan", manifest).stdout


def test_plan_and_run_agree_on_a_company_cell_that_was_emptied(play):
    unlisted = Place("no_oauth_readonly", "Company", company_id="CoA")
    job = play(of("LocA") | {"CoA": unlisted}, reconnect_removed=True)
    job.run(job.manifest(listing_of_pairs(("LocA", "CoA", "", ""))))

    def planned(manifest):
        routes = json.loads(job("plan", manifest, "--output", job.output, "--json").stdout)["routes"]
        return routes["agency"], routes["unplaced"]

    emptied = job.manifest(listing_of_pairs(agency(job, "CoA"), ("LocA", "", "", "")))
    assert planned(emptied) == (0, 1)
    assert job.run(emptied).returncode == 1
    assert job.results()["LocA"]["route"] == ""
    named = job.manifest(listing_of_pairs(agency(job, "CoA"), ("LocA", "CoA", "", "")))
    assert planned(named) == (1, 0)
    job.run(named)
    assert job.results()["LocA"]["route"] == "agency"


def test_a_ledger_of_an_earlier_version_is_taken_over(play):
    job = play(of("LocA", "LocB"))
    manifest = job.manifest(
        listing_of_pairs(("LocA", "", "", ""), ("LocB", "", "", job.sandbox.old_pair("LocB")["refresh_token"]))
    )
    job.run(manifest, "--limit", "1")
    with sqlite3.connect(job.output / "ledger.sqlite3") as connection:
        connection.execute("DROP TABLE spends")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    before = job.results()["LocA"]["access_token"]
    assert "refresh can serve 1" in job("plan", manifest, "--output", job.output, *ALL).stdout
    assert job.run(manifest, "--routes", "refresh").returncode == 0
    assert job.results()["LocA"]["access_token"] == before
    assert job.results()["LocB"]["route"] == "refresh"


def _tokens(pair):
    return pair["access_token"], pair["refresh_token"]
