"""Sealed pairs as routes need them: agencies' tokens and old refresh tokens, with an identity and without one."""

from __future__ import annotations

import csv
import json
import shlex
from dataclasses import replace

import pyrage
import pytest

from jobs.core.causes import ADVICE
from jobs.core.model import Cause, Owner
from jobs.sandbox.behaviours import LISTING, REFRESH
from jobs.sandbox.world import Place
from tests.helpers.identities import AGE, RECIPIENT
from tests.helpers.lists import listing, listing_of_pairs, of

IN_A_FOLDER = pytest.mark.parametrize("made", ["folder"], indirect=True)
AGENCY = "location_id,company_id\n,CoA\n"
LOCATION = "location_id,company_id\nLocA,CoA\nLocB,CoA\n"
SAYS = "the pair of the agency CoA is sealed, and needs --identity FILE"


@pytest.fixture
def key(tmp_path):
    return private_file(tmp_path / "key.txt", AGE)


def private_file(path, text):
    path.touch(0o600)
    path.write_text(text)
    return path


@pytest.fixture(params=["folder", "database"])
def made(play, request):
    """Makes a job whose pairs are sealed."""

    def make(installs, **more):
        job = play(installs, **more)
        job.environment["RECOVERY_SEAL__RECIPIENTS"] = RECIPIENT
        if request.param == "database":
            url = request.getfixturevalue("postgres").url
            job.environment |= {"RECOVERY_LEDGER__URL": url, "RECOVERY_LEDGER__NAME": request.node.name}
        return job

    return make


@pytest.fixture
def job(made):
    """A job that has a sealed pair of an agency, on a night without Reconnect."""
    job = made(of("LocA", "LocB"))
    assert job.run(job.manifest(AGENCY)).returncode == 0
    without_reconnect(job)
    return job


def next_words(done):
    """The command to run next, in words."""
    lines = done.stdout.splitlines()
    return shlex.split(lines[next(at for at, line in enumerate(lines) if line.endswith("left alone:")) + 1])


def failed(done):
    """The failure that the log of a run tells, of one install."""
    [told] = [one for one in map(json.loads, done.stderr.splitlines()) if one["event"] == "failed"]
    return told


def without_reconnect(job):
    job.sandbox.world = replace(job.sandbox.world, reconnect_removed=True)


def test_a_sealed_agency_pair_serves_its_sub_accounts_in_the_run_that_got_it(made):
    job = made(of("LocA", "LocB") | {"CoA": Place("refresh_error", "Company", heals_after=1)}, reconnect_removed=True)
    old = job.sandbox.old_pair("CoA", "Company")["refresh_token"]
    rows = [("", "CoA", "", old), ("LocA", "CoA", "", ""), ("LocB", "CoA", "", "")]
    done = job.run(job.manifest(listing_of_pairs(*rows)), "--routes", "reconnect,agency,refresh")
    assert done.returncode == 0, done.stderr
    results = job.results()
    assert {name: row["route"] for name, row in results.items()} == {
        "CoA": "refresh",
        "LocA": "agency",
        "LocB": "agency",
    }
    assert all(row["sealed"] for row in results.values())


def test_a_sealed_agency_pair_of_an_earlier_run_serves_with_an_identity_alone(job, key):
    manifest = job.manifest(LOCATION)
    done = job.run(manifest)
    assert done.returncode == 1
    assert done.stderr.count(f"{SAYS}: its sub-accounts") == 1
    assert job.failures()["LocA"]["cause"] == "agency_refused"
    assert SAYS in job.failures()["LocA"]["message"]
    assert "If the message names --identity" in job.failures()["LocA"]["next_step"]
    assert job.calls(LISTING) == []
    assert next_words(done)[-2:] == ["--identity", "FILE"]
    assert job.run(manifest, "--identity", key).returncode == 0
    assert job.results()["LocA"]["route"] == "agency"


@IN_A_FOLDER
def test_a_location_without_a_company_is_told_of_the_agency_that_cannot_be_asked_for_it(job, key):
    manifest = job.manifest("location_id\nLocA\n")
    assert job.run(manifest).returncode == 1
    assert SAYS in job.failures()["LocA"]["message"]
    assert job.run(manifest, "--identity", key).returncode == 0


@IN_A_FOLDER
def test_a_failure_that_passes_is_not_blamed_on_an_agency_that_may_be_another(made):
    job = made(of("LocA") | {"LocX": Place("server_error")})
    job.run(job.manifest(AGENCY))
    done = job.run(job.manifest("location_id\nLocX\n"))
    assert job.failures()["LocX"]["cause"] == "server_error"
    assert "--identity" not in next_words(done)


def test_an_older_token_in_the_list_serves_where_the_pair_of_the_agency_is_sealed(job):
    old = job.sandbox.old_pair("CoA", "Company")["access_token"]
    done = job.run(job.manifest(listing_of_pairs(("", "CoA", old, ""), ("LocA", "CoA", "", ""))))
    assert job.results()["LocA"]["route"] == "agency", done.stderr


@IN_A_FOLDER
def test_where_that_older_token_is_refused_the_sealed_pair_is_named_too(job):
    old = job.sandbox.old_pair("CoA", "Company")["access_token"]
    refused = of("LocA") | {"CoA": Place("no_oauth_write", "Company")}
    job.sandbox.world = replace(job.sandbox.world, installs=refused)
    done = job.run(job.manifest(listing_of_pairs(("", "CoA", old, ""), ("LocA", "CoA", "", ""))))
    assert job.failures()["LocA"]["message"].endswith(f"not authorized for this scope.; {SAYS}")
    assert job.failures()["LocA"]["trace_id"]
    assert next_words(done)[-2:] == ["--identity", "FILE"]


@IN_A_FOLDER
def test_a_sealed_agency_pair_that_the_identity_does_not_open_is_named_with_the_reason(job, tmp_path):
    other = private_file(tmp_path / "other.txt", str(pyrage.x25519.Identity.generate()))
    done = job.run(job.manifest(LOCATION), "--identity", other)
    words = "the pair of the agency CoA cannot be opened: no identity in --identity FILE opens it"
    assert done.returncode == 1
    assert done.stderr.count(f"{words}: its sub-accounts") == 1
    assert words in job.failures()["LocA"]["message"]
    assert next_words(done)[-2:] == ["--identity", str(other)]


@IN_A_FOLDER
@pytest.mark.parametrize("routes", ["refresh", "reconnect,agency,refresh"])
@pytest.mark.parametrize("opens", ["no identity", "another identity"])
def test_a_sealed_refresh_token_that_cannot_be_read_asks_for_an_identity_and_never_for_a_new_installation(
    made, tmp_path, routes, opens
):
    job = made(of("LocA"))
    manifest = job.manifest("location_id\nLocA\n")
    job.run(manifest)
    kept = job.results()["LocA"]["sealed"]
    without_reconnect(job)
    other = private_file(tmp_path / "other.txt", str(pyrage.x25519.Identity.generate()))
    given = () if opens == "no identity" else ("--identity", other)
    done = job.run(manifest, "--force", "--routes", routes, "--log-format", "json", *given)
    told = failed(done)
    advice = ADVICE[Cause(told["cause"])]
    assert (done.returncode, told["cause"], advice.owner) == (1, "request_refused", Owner.DEVELOPER)
    assert "--identity FILE" in told["message"]
    assert not any(word in advice.next_step for word in ("install", "--force"))
    assert job.calls(REFRESH) == []
    assert (job.results()["LocA"]["sealed"], job.failures()) == (kept, {})
    _, _, identity = " ".join(next_words(done)).partition("--identity ")
    assert identity.split()[0] == (str(other) if given else "FILE")


@IN_A_FOLDER
@pytest.mark.parametrize("behaviour", ["not_installed", "server_error"])
def test_what_another_route_answered_is_reported_where_an_old_token_cannot_be_read(made, behaviour):
    job = made(of("LocA"))
    manifest = job.manifest("location_id\nLocA\n")
    job.run(manifest)
    job.sandbox.world = replace(job.sandbox.world, installs=of("LocA", behaviour=behaviour))
    told = failed(job.run(manifest, "--force", "--routes", "reconnect,refresh", "--log-format", "json"))
    assert told["cause"] == behaviour
    assert told["trace_id"] == "sandbox-trace-1"
    assert told["message"].endswith("refresh: its pair is sealed, and needs --identity FILE")


@IN_A_FOLDER
def test_a_run_that_stops_before_it_needs_the_sealed_pair_of_an_agency_names_the_identity_too(job):
    others = "".join(f"Loc{n},CoB\n" for n in range(3))
    done = job.run(job.manifest(f"location_id,company_id\n{others}LocA,CoA\n"))
    assert (done.returncode, job.summary()["counts"]["pending"]) == (3, 1)
    assert next_words(done)[-2:] == ["--identity", "FILE"]


def test_a_sealed_refresh_token_is_spent_with_an_identity_alone_and_the_older_one_of_the_list_never(made, key):
    job = made(of("LocA"))
    old = job.sandbox.old_pair("LocA")["refresh_token"]
    manifest = job.manifest(listing_of_pairs(("LocA", "CoA", "", old)))
    assert job.run(manifest).returncode == 0
    first = job.results()["LocA"]["sealed"]
    without_reconnect(job)
    again = ("--force", "--routes", "reconnect,refresh", "--log-format", "json")
    done = job.run(manifest, *again)
    assert done.returncode == 1
    assert "refresh: its pair is sealed, and needs --identity FILE" in done.stderr
    assert job.calls(REFRESH) == []
    done = job.run(manifest, *again, "--identity", key)
    assert done.returncode == 0, done.stderr
    assert job.results()["LocA"]["route"] == "refresh"
    assert job.results()["LocA"]["sealed"] != first
    assert job.calls(REFRESH) == ["LocA"]


@IN_A_FOLDER
def test_without_an_identity_sealed_refresh_tokens_do_not_keep_the_run_from_stopping(made, key):
    job = made(of(*(f"Loc{n}" for n in range(9))))
    manifest = job.manifest(listing(9))
    job.run(manifest)
    without_reconnect(job)
    again = ("--force", "--routes", "reconnect,refresh")
    job.sandbox.seen.clear()
    assert job.run(manifest, *again).returncode == 3
    assert (len(job.calls("reconnect")), job.calls(REFRESH)) == (3, [])
    assert job.run(manifest, *again, "--identity", key).returncode == 0
    assert len(job.calls(REFRESH)) == 9


def test_a_plan_counts_what_only_an_identity_lets_the_routes_serve(job):
    plan = (
        "plan",
        job.manifest(LOCATION + ",CoA\n"),
        "--output",
        job.output,
        "--recovered-before",
        "2999-01-01T00:00Z",
    )
    done = job(*plan[:-2], "--routes", "agency,refresh")
    assert "the route agency can serve 0 of them" in done.stdout, done.stderr
    assert "2 more can be served by agencies or old tokens with --identity FILE" in done.stdout


def test_discover_opens_the_sealed_pair_of_an_agency_and_says_so_without_an_identity(job, key):
    path = job.folder / "found.csv"
    ask = ("discover", "--company", "CoA", "--from", job.output, "--output", path)
    done = job(*ask)
    assert done.returncode == 2
    assert "--company CoA: the pair of this agency is sealed, and needs --identity FILE" in done.stderr
    assert job.calls(LISTING) == []
    done = job("discover", "--company", "CoA", "--identity", key)
    assert done.returncode == 2
    assert "--identity opens the pairs in the folder of --from" in done.stderr
    done = job(*ask, "--identity", key)
    assert done.returncode == 0, done.stderr
    with path.open(newline="") as file:
        assert {row["location_id"] for row in csv.DictReader(file)} == {"LocA", "LocB"}
