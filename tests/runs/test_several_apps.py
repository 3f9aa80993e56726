"""Several apps in one list, in a project of their own with config/apps.toml."""

from __future__ import annotations

import shutil
from collections import Counter

import pytest

from jobs.sandbox.world import Place
from tests.helpers.bad_server import KEEP, Bad, good_body, http, serving
from tests.helpers.job import CLIENT_ID, PROJECT, SECRET

APPS = f"""
[[apps]]
client_id = "{CLIENT_ID}"
client_secret_env = "FIRST_SECRET"

[[apps]]
client_id = "app-2"
client_secret_file = "config/second"
redirect_uri = "https://app.example.com/back"
scopes = "contacts.readonly"
"""


@pytest.fixture
def project(play, tmp_path):
    """A job on a copy of the project whose apps are `APPS`; the second one's secret is what the file says."""

    def with_secret(second, installs=None, **more):
        job = play(installs, clients={CLIENT_ID: SECRET, "app-2": "secret-of-the-second"}, **more)
        job.project = tmp_path / "project"
        shutil.copytree(PROJECT / "jobs", job.project / "jobs")
        shutil.copytree(PROJECT / "config" / "messages", job.project / "config" / "messages")
        (job.project / "config" / "apps.toml").write_text(APPS, encoding="utf-8")
        (job.project / "config" / "second").write_text(second, encoding="utf-8")
        (job.project / ".env").write_text(f"FIRST_SECRET='{SECRET}'\n", encoding="utf-8")
        del job.environment["HIGHLEVEL_CLIENT_ID"], job.environment["HIGHLEVEL_CLIENT_SECRET"]
        return job

    return with_secret


def rows(*apps, each=12):
    return "location_id,client_key,n\n" + "".join(f"Loc{n},{app},{n}\n" for n in range(each) for app in apps)


def test_an_app_whose_secret_is_wrong_stops_alone_and_the_others_are_finished(project):
    job = project("not-the-secret\n")
    done = job.run(job.manifest(rows("app-2", CLIENT_ID)))
    assert done.returncode == 3, done.stderr
    assert "Invalid client credentials!" in done.stdout.splitlines()[-1]
    assert job.summary()["stopped_because"] == "credentials_rejected"
    assert job.summary()["counts"] == {
        "rows": 24, "installs": 24, "duplicates": 0, "recovered": 12, "failed": 3, "pending": 9, "delivered": 0, "undelivered": 0, "purged": 0
    }  # fmt: skip
    assert {row["client_id"] for row in job.table("failures.csv")} == {"app-2"}
    # Its rows went one at a time: three requests, no more.
    assert len([seen for seen in job.sandbox.seen if seen.status == 401]) == 3
    (job.project / "config" / "second").write_text("secret-of-the-second", encoding="utf-8")
    calls = len(job.sandbox.seen)
    assert job.run(job.manifest(rows("app-2", CLIENT_ID))).returncode == 0
    assert len(job.sandbox.seen) - calls == 24


def test_an_app_whose_day_is_used_up_stops_alone_and_the_others_are_finished(project):
    job = project("secret-of-the-second")
    left_today = iter(range(4, -1, -1))

    def answer(_, request):
        told = f"X-RateLimit-Daily-Remaining: {next(left_today)}\r\n" if b"app-2" in request else ""
        return Bad(lambda good: [http(good, headers=told)], None, KEEP), good_body(request)

    with serving(answer) as server:
        job.environment["HIGHLEVEL_BASE_URL"] = server.url
        done = job.run(job.manifest(rows("app-2", CLIENT_ID)))
    assert (done.returncode, job.summary()["stopped_because"]) == (3, "outage"), done.stderr
    said = "HighLevel's daily limit of requests for the app app-2 is used up; run the same command again tomorrow"
    assert said in done.stdout.splitlines()[-1]
    assert f"{said}. Its other installs stay pending" in done.stderr
    states = Counter((row["client_id"], row["status"]) for row in job.table("results.csv"))
    assert states == {(CLIENT_ID, "recovered"): 12, ("app-2", "recovered"): 2, ("app-2", "pending"): 10}


def test_one_location_of_two_apps_is_two_installs_and_each_app_has_its_own_link(project):
    job = project("secret-of-the-second", {"LocB": Place("not_installed")})
    text = f"location_id,client_id\nLocA,app-2\nLocA,{CLIENT_ID}\nLocB,app-2\nLocB,{CLIENT_ID}\nLocC,\nLocD,app-3\n"
    done = job.run(job.manifest(text))
    assert done.returncode == 1
    assert [(row["client_id"], row["status"]) for row in job.table("results.csv")][:2] == [
        ("app-2", "recovered"), (CLIENT_ID, "recovered")
    ]  # fmt: skip
    failed = [(row["client_id"], row["cause"], bool(row["reinstall_url"])) for row in job.table("failures.csv")]
    assert failed == [
        ("app-2", "not_installed", True), (CLIENT_ID, "not_installed", False),
        ("", "invalid_row", False), ("app-3", "unknown_app", False),
    ]  # fmt: skip
    assert "line 6 names no client id" in job.table("failures.csv")[2]["message"]
    for secret in (SECRET, "secret-of-the-second"):
        assert secret not in done.stdout + done.stderr
    # By default the files go to the project's folder, wherever the job is called from.
    assert job("run", job.manifest(rows("app-2", each=1))).returncode == 0
    assert (job.project / "data" / "installs" / "results.csv").exists()


def test_where_a_secret_with_a_blank_at_its_end_is_refused_it_is_hinted_at_before_and_there(play):
    job = play()
    job.environment["HIGHLEVEL_CLIENT_SECRET"] = "wr0ng "
    hint = "HIGHLEVEL_CLIENT_SECRET ends with a space or an invisible character"
    manifest = job.manifest("location_id\nLocA\nLocB\nLocC\nLocD\n")
    assert f"warning: {hint}" in job("plan", manifest, "--output", job.output).stdout
    done = job.run(manifest)
    assert done.returncode == 3
    assert hint in done.stderr.partition("trying_one_first")[0]
    assert hint in done.stdout.splitlines()[-1]
    assert "wr0ng" not in done.stdout + done.stderr


def test_if_the_run_goes_on_by_another_route_the_hint_is_beside_what_was_refused(play):
    job = play()
    job.environment["HIGHLEVEL_CLIENT_SECRET"] = SECRET + " "
    old = job.sandbox.old_pair("CoA", "Company")["access_token"]
    rows = [f",CoA,{old}", *(f"LocX{n},CoX," for n in range(4)), "LocY,CoA,"]
    done = job.run(job.manifest("location_id,company_id,access_token\n" + "\n".join(rows) + "\n"))
    assert "credentials_rejected" in job.summary()["failures_by_cause"]
    assert "HighLevel refused credentials: HIGHLEVEL_CLIENT_SECRET ends with" in done.stderr
