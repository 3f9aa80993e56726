"""`recover discover`: the list of installs, made from the API."""

from __future__ import annotations

import csv

import pytest

from jobs.config.apps import Apps
from jobs.config.settings import Settings
from jobs.core.formula_guard import without_formula
from jobs.core.model import App
from jobs.core.secret import Secret
from jobs.discover import Question, Reply, add
from jobs.manifest.reader import open_manifest
from jobs.recovery.agency_tokens import AgencyKey
from jobs.sandbox.behaviours import LISTING
from jobs.sandbox.tokens import mint
from jobs.sandbox.world import Limit, Place
from tests.helpers.job import CLIENT_ID


@pytest.fixture
def agencies(play):
    """A job whose world has two agencies, one of them with more locations than a page holds."""

    def start(**more):
        many = {f"Loc{n:03}": Place(company_id="CoA") for n in range(230)}
        gone = {"LocGone": Place("not_installed", company_id="CoA")}
        return play(many | gone | {"LocB": Place(company_id="CoB")} | more.pop("more", {}), **more)

    return start


def with_token(job, company):
    job.environment["HIGHLEVEL_AGENCY_ACCESS_TOKEN"] = job.sandbox.old_pair(company, "Company")["access_token"]


def rows(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_every_installed_location_of_an_agency_is_listed_all_pages_and_the_list_can_be_run(agencies):
    job = agencies()
    with_token(job, "CoA")
    path = job.folder / "installs.csv"
    done = job("discover", "--company", "CoA", "--output", path)
    assert done.returncode == 0, done.stderr
    assert "230 installs added" in done.stdout
    found = rows(path)
    assert len(found) == 230
    assert found[0] == {"location_id": "Loc000", "company_id": "CoA", "name": "Loc000"}
    assert path.stat().st_mode & 0o077 == 0
    assert [seen.call for seen in job.sandbox.seen] == [LISTING] * 3
    assert job.run(path, "--limit", "2").returncode == 4


def test_the_bearer_may_come_from_a_recovered_agency_row(agencies):
    job = agencies()
    job.run(job.manifest("location_id,company_id\n,CoA\n,CoB\n"))
    path = job.folder / "more.csv"
    done = job("discover", "--company", "CoA", "--company", "CoB", "--from", job.output, "--output", path)
    assert done.returncode == 0, done.stderr
    assert {row["company_id"] for row in rows(path)} == {"CoA", "CoB"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_what_is_there_already_is_kept_to_the_byte_and_new_lines_have_its_encoding(agencies, encoding):
    job = agencies()
    with_token(job, "CoB")
    text = '\ufeffPlan;Location ID;name;Company\r\n"gold;";LocX;=x;CoX\r\nfree; Loc000 ;y;'
    path = job.manifest(text.encode(encoding))
    job.sandbox.world.installs["LocC"] = Place(company_id="CoB")
    assert job("discover", "--company", "CoB", "--output", path).returncode == 0
    assert path.read_bytes().startswith(text.encode(encoding))
    assert path.read_bytes().decode(encoding).removeprefix(text).split() == [";LocB;LocB;", ";LocC;LocC;"]
    before = path.read_bytes()
    again = job("discover", "--company", "CoB", "--output", path)
    assert (again.returncode, path.read_bytes()) == (0, before)
    assert "nothing to add" in again.stdout


def test_a_name_is_in_the_list_as_it_is_and_runs_in_no_spreadsheet():
    names = [
        "+49 30 Gym",
        "@Home, Yoga",
        "- Minus -",
        "Joe's (old)",
        "=HYPERLINK(1)",
        "+cmd|' /C calc'!A0",
        "\t=1",
        "\uff1d1",
    ]
    assert [without_formula(name) for name in names] == [
        "+49 30 Gym", "@Home, Yoga", "- Minus -", "Joe's (old)", "HYPERLINK(1)", "cmd|' /C calc'!A0", "1", "1"
    ]  # fmt: skip


def test_names_that_are_added_gather_no_apostrophe_however_often_the_list_is_added_to(tmp_path):
    path = tmp_path / "installs.csv"
    apps = Apps({CLIENT_ID: App(CLIENT_ID, Secret("s"))})
    for number, name in enumerate(["+49 30 Gym", "=1+1"]):
        manifest = open_manifest(path) if path.exists() else None
        question = Question(Settings(), apps, "https://api.example.test", {}, {}, manifest)
        reply = Reply(AgencyKey(CLIENT_ID, "CoA"), {f"Loc{number}": name})
        assert add(path, question, [reply]) == 1
    assert [row["name"] for row in rows(path)] == ["+49 30 Gym", "1+1"]


def test_an_agency_that_refuses_is_said_and_the_others_are_listed(agencies):
    job = agencies(more={"CoB": Place("no_oauth_readonly", "Company")})
    job.run(job.manifest("location_id,company_id\n,CoA\n,CoB\n"))
    path = job.folder / "more.csv"
    done = job("discover", "--company", "CoB", "--company", "CoA", "--from", job.output, "--output", path)
    assert done.returncode == 1
    assert "CoB: refused: The token is not authorized for this scope." in done.stderr
    assert "CoB" not in done.stdout
    assert len(rows(path)) == 230


def test_it_is_paced_and_tried_again_like_every_call(agencies):
    job = agencies(more={"CoA": Place("listing_error", "Company")}, limit=Limit(2, 1.0, "seconds"))
    with_token(job, "CoA")
    done = job("discover", "--company", "CoA", "--output", job.folder / "x.csv")
    assert done.returncode == 1
    statuses = [seen.status for seen in job.sandbox.seen]
    assert statuses.count(502) == 5
    assert 429 in statuses
    assert not (job.folder / "x.csv").exists()


def test_a_page_that_fails_is_asked_for_again_and_those_before_it_are_kept(agencies):
    job = agencies(faults={"listing_error": 0.4}, seed=8)
    with_token(job, "CoA")
    path = job.folder / "x.csv"
    done = job("discover", "--company", "CoA", "--output", path)
    assert done.returncode == 0, done.stderr
    assert len(rows(path)) == 230
    statuses = [seen.status for seen in job.sandbox.seen]
    assert statuses.count(200) == 3
    assert 502 in statuses[statuses.index(200) :]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--company"),
        (("--company", "not an id"), "is not a company id"),
        (("--company", "CoA"), "no valid token of this agency is known"),
        (("--company", "CoA", "--from", "nowhere"), "has no ledger"),
    ],
)
def test_what_keeps_it_from_starting_is_said_and_nothing_is_sent(agencies, arguments, words):
    job = agencies()
    done = job("discover", *arguments, "--output", job.folder / "x.csv")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert job.sandbox.seen == []


def test_all_that_keeps_it_from_starting_is_said_at_once(agencies):
    job = agencies()
    job.environment |= {"RECOVERY_RETRY__ATTEMPTS": "many", "HIGHLEVEL_BASE_URL": "ftp://example.test"}
    done = job("discover", "--company", "CoA", "--output", job.folder / "x.csv")
    assert done.returncode == 2
    assert "RECOVERY_RETRY__ATTEMPTS" in done.stderr
    assert "HIGHLEVEL_BASE_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_token_of_another_agency_or_past_its_time_is_not_sent(agencies):
    job = agencies()
    with_token(job, "CoB")
    other = job("discover", "--company", "CoA", "--output", job.folder / "x.csv")
    job.environment["HIGHLEVEL_AGENCY_ACCESS_TOKEN"] = mint("access", "Company", "CoA", CLIENT_ID, "CoA", -5)
    expired = job("discover", "--company", "CoA", "--output", job.folder / "x.csv")
    assert (other.returncode, expired.returncode) == (2, 2)
    assert "belongs to another install" in other.stderr
    assert "expired" in expired.stderr
    assert job.sandbox.seen == []


def test_the_token_is_shown_nowhere_also_where_the_server_echoes_it(agencies):
    job = agencies(more={"CoA": Place("echo_secrets", "Company")})
    with_token(job, "CoA")
    done = job("discover", "--company", "CoA", "--output", job.folder / "x.csv")
    assert done.returncode == 1
    token = job.environment["HIGHLEVEL_AGENCY_ACCESS_TOKEN"]
    assert token not in done.stdout + done.stderr
    assert token.rpartition(".")[2] not in done.stdout + done.stderr


def test_a_list_that_cannot_be_added_to_is_refused(agencies):
    job = agencies()
    with_token(job, "CoA")
    nowhere = job("discover", "--company", "CoA", "--output", job.folder / "nowhere" / "x.csv")
    assert (nowhere.returncode, job.sandbox.seen) == (2, [])
    assert "make the folder" in nowhere.stderr
    torn = job("discover", "--company", "CoA", "--output", job.manifest('location_id\n"LocA\n', "torn.csv"))
    assert (torn.returncode, job.sandbox.seen) == (2, [])
    assert "never closes" in torn.stderr
    path = job.manifest("company_id\nCoA\n")
    done = job("discover", "--company", "CoA", "--output", path)
    assert done.returncode == 2
    assert "no column location_id" in done.stderr
