"""Which ledger of a database a command is about: found by the folder and the API, named, and never mixed with another."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from jobs.core.clock import utc_now
from jobs.core.model import Install, InstallKey, Level, Recovered, Route
from jobs.ledger.unwritten import set_aside
from jobs.sandbox.world import Place
from tests.helpers.job import CLIENT_ID
from tests.helpers.lists import listing
from tests.helpers.made import pair
from tests.helpers.postgres import PASSWORD

SCHEMA = "of_any"  # The tests share a server.
COMMANDS = ["run", "plan", "report", "deliver", "purge"]


@pytest.fixture
def job(play, postgres):
    job = play({"Loc2": Place("not_installed")})
    postgres.execute(f"drop schema if exists {SCHEMA} cascade")
    job.environment |= {"RECOVERY_LEDGER__URL": postgres.url, "RECOVERY_LEDGER__SCHEMA": SCHEMA}
    job.environment |= {"RECOVERY_DELIVER__COMMAND": '["cat"]'}
    return job


def call(job, command, manifest, *more):
    arguments = (manifest, "--output", job.output) if command in ("run", "plan") else (job.output,)
    return job(command, *arguments, *more)


def test_plan_and_run_say_which_ledger_it_is_and_where_it_was_last_used(job, postgres):
    manifest = job.manifest(listing(3))
    name = f"the ledger out of postgresql, socket {postgres.folder}, database postgres, schema {SCHEMA}"
    assert f"{name}, was not used before\n" in call(job, "plan", manifest).stdout
    first = call(job, "run", manifest, "--log-format", "json").stderr.splitlines()[0]
    assert json.loads(first) | {"ledger": name, "used_at": "", "used_by": ""} == json.loads(first)
    postgres.execute(f"update {SCHEMA}.ledgers set used_at = '2026-11-25T02:03:04Z', used_by = 'other-host'")
    planned = call(job, "plan", manifest)
    assert f"{name}, was last used on other-host at 2026-11-25T02:03:04Z\n" in planned.stdout
    use = {"ledger": name, "used_at": "2026-11-25T02:03:04Z", "used_by": "other-host"}
    assert json.loads(call(job, "plan", manifest, "--json").stdout)["ledger"] == use
    again = call(job, "run", manifest, "--log-format", "json")
    first = again.stderr.splitlines()[0]
    assert json.loads(first) | use == json.loads(first)
    assert PASSWORD not in planned.stdout + again.stderr + again.stdout
    assert postgres.execute(f"select used_by from {SCHEMA}.ledgers") != [("other-host",)]


def test_a_plan_without_a_database_names_no_ledger(job):
    del job.environment["RECOVERY_LEDGER__URL"]
    planned = call(job, "plan", job.manifest(listing(3)), "--json")
    assert json.loads(planned.stdout)["ledger"] is None


@pytest.mark.parametrize("where", ["in the database", "in the folder"])
def test_plan_and_report_leave_unwritten_pairs_alone_and_say_that_they_are_there(job, where):
    if where == "in the folder":
        del job.environment["RECOVERY_LEDGER__URL"]
    manifest = job.manifest(listing(3))
    call(job, "run", manifest)
    install = Install(InstallKey(CLIENT_ID, Level.SUB_ACCOUNT, "Loc0"), "")
    kept = Recovered(pair(), Route.RECONNECT, 1, utc_now())
    aside = set_aside(job.output, job.sandbox.url, [(install, kept), (install, kept)])
    before = aside.read_text()
    said = (
        f"{aside} holds 2 pairs that an earlier run could not write into the ledger: the next run takes in what is new"
    )
    assert f"warning: {said}\n" in call(job, "plan", manifest).stdout
    reported = call(job, "report", manifest)
    assert (reported.returncode, said in reported.stderr) == (0, True)
    assert aside.read_text() == before
    aside.write_text('{"not": "read"}\n')
    planned = call(job, "plan", manifest)
    assert (planned.returncode, f"{aside}, line 1: cannot be read" in planned.stderr) == (2, True)


@pytest.mark.parametrize("where", ["in the database", "in the folder"])
def test_pairs_that_another_api_issued_are_not_taken_in(job, where):
    if where == "in the folder":
        del job.environment["RECOVERY_LEDGER__URL"]
    install = Install(InstallKey(CLIENT_ID, Level.SUB_ACCOUNT, "Loc0"), "")
    kept = Recovered(pair(), Route.RECONNECT, 1, utc_now())
    job.output.mkdir()
    aside = set_aside(job.output, "https://services.example.test", [(install, kept)])
    before = aside.read_text()
    done = call(job, "run", job.manifest(listing(1)))
    assert done.returncode == 2
    assert f"{aside}: holds pairs of https://services.example.test: move it to the output folder" in done.stderr
    assert (aside.read_text(), job.sandbox.seen) == (before, [])
    aside.unlink()
    assert call(job, "run", job.manifest(listing(1))).returncode == 0
    aside.write_text(before)
    for command in ("deliver", "purge"):
        done = job(command, job.output)
        assert (done.returncode, aside.read_text()) == (2, before), done.stdout + done.stderr


@pytest.mark.parametrize("name", ["failures.csv", "results.csv"])
def test_a_report_that_is_fed_back_belongs_to_its_own_folder_on_any_machine(job, tmp_path, name):
    call(job, "run", job.manifest(listing(3)))
    elsewhere = tmp_path / "elsewhere" / "out"
    elsewhere.parent.mkdir()
    job.output.rename(elsewhere)
    asked = len(job.sandbox.seen)
    done = job("run", elsewhere / name)
    assert done.returncode == 1, done.stderr
    assert {seen.account_id for seen in job.sandbox.seen[asked:]} == {"Loc2"}
    assert f"files in {elsewhere}:" in done.stdout


def test_a_folder_with_another_programs_summary_is_not_an_output_folder(job, tmp_path):
    (tmp_path / "summary.json").write_text('{"run_id": "of another program"}')
    planned = job("plan", job.manifest(listing(3), "mine-alone.csv"))
    assert "the ledger mine-alone of" in planned.stdout


@pytest.mark.parametrize("command", [*COMMANDS, "ledger"])
def test_an_address_of_another_machine_without_encryption_is_refused(job, command):
    job.environment["RECOVERY_LEDGER__URL"] = f"postgresql://app:{quote(PASSWORD, safe='')}@db.invalid/main"
    manifest = job.manifest(listing(3))
    done = job("ledger", "who") if command == "ledger" else call(job, command, manifest)
    assert done.returncode == 2
    assert "RECOVERY_LEDGER__URL: would send live tokens unencrypted over the network" in done.stderr
    assert "pass-word" not in done.stdout + done.stderr
    assert job.sandbox.seen == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_with_a_ledger_of_its_own_is_refused_and_the_way_into_the_database_is_named(job, command):
    manifest, url = job.manifest(listing(3)), job.environment.pop("RECOVERY_LEDGER__URL")
    call(job, "run", manifest)
    job.environment["RECOVERY_LEDGER__URL"] = url
    done = call(job, command, manifest)
    assert done.returncode == 2
    todo = f"move it into the database (`recover ledger copy {job.output} database`)"
    assert f"holds ledger.sqlite3, but RECOVERY_LEDGER__URL is set: {todo}" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_is_known_under_another_address_alone_is_refused(job, command, postgres):
    manifest = job.manifest(listing(3))
    call(job, "run", manifest)
    asked, was = len(job.sandbox.seen), postgres.execute(f"select * from {SCHEMA}.ledgers")
    known, job.environment["HIGHLEVEL_BASE_URL"] = job.sandbox.url, "https://services.example.test"
    done = call(job, command, manifest)
    assert done.returncode == 2
    assert f"belongs to {known}, not to https://services.example.test" in done.stderr
    assert len(job.sandbox.seen) == asked
    assert postgres.execute(f"select * from {SCHEMA}.ledgers") == was


@pytest.mark.parametrize("command", COMMANDS)
def test_tables_of_a_newer_version_are_refused(job, command, postgres):
    manifest = job.manifest(listing(3))
    call(job, "run", manifest)
    postgres.execute(f"update {SCHEMA}.schema_version set version = 99")
    done = call(job, command, manifest)
    assert done.returncode == 2
    assert "has version 99, but this job only knows versions up to" in done.stderr


def test_a_plan_makes_neither_a_schema_nor_tables(job, postgres):
    manifest = job.manifest(listing(3))
    assert call(job, "plan", manifest).returncode == 0
    assert postgres.execute(f"select to_regnamespace('{SCHEMA}')") == [(None,)]
    postgres.execute(f"create schema {SCHEMA}")
    assert call(job, "plan", manifest).returncode == 0
    assert postgres.execute(f"select count(*) from pg_class where relnamespace = '{SCHEMA}'::regnamespace") == [(0,)]
    assert call(job, "run", manifest).returncode == 1
