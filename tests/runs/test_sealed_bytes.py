"""Every byte that a sealed run leaves, says or keeps open is searched for every token that it was given."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import count

import pyrage
import pytest

from jobs.ledger.opening import LEDGER
from jobs.sandbox.receiver import Receiver, new_secret, receiving
from jobs.sandbox.world import Place
from tests.helpers.homes import home_in_database
from tests.helpers.job import deliver_to_a_command
from tests.helpers.leaks import leaks, open_files
from tests.helpers.lists import listing, listing_of_pairs, of
from tests.helpers.made import opened
from tests.helpers.waiting import wait_until

NUMBERS = count()
INSTALLS = of(*(f"Loc{number}" for number in range(4))) | {"Gone": Place("not_installed", company_id="CoA")}
PAIRS = 5  # of those and their agency
LOUD = ("--log-format", "json")


@pytest.fixture
def identity():
    return pyrage.x25519.Identity.generate()


@pytest.fixture(scope="module")
def server(own_postgres, tmp_path_factory):
    """A server that lays pairs down as they are: its own compression would hide what is searched for."""
    opened(home_in_database(own_postgres, tmp_path_factory.mktemp("made"))).close()
    own_postgres.execute("alter table highlevel_recovery.all_installs alter column tokens set storage external")
    return own_postgres


@pytest.fixture(params=["folder", "database"])
def database(request):
    """The server that has the ledger. None: the ledger is in the output folder."""
    return request.getfixturevalue("server") if request.param == "database" else None


def environment(identity, server=None):
    sealed = {"RECOVERY_SEAL__RECIPIENTS": str(identity.to_public()), "RECOVERY_LOG__LEVEL": "debug"}
    if server is None:
        return sealed
    lease = {"RECOVERY_LEDGER__LEASE_SECONDS": "3", "RECOVERY_LEDGER__NAME": f"sealed {next(NUMBERS)}"}
    return sealed | lease | {"RECOVERY_LEDGER__URL": server.url}


@pytest.fixture
def job(play, identity, database):
    job = play(INSTALLS)
    job.environment |= environment(identity, database)
    return job


def rows(job, **agency):
    """The list of that job: an agency with this old pair, and its sub-accounts."""
    old = {"access_token": "", "refresh_token": ""} | agency
    return listing_of_pairs(
        ("", "CoA", old["access_token"], old["refresh_token"]), *((one, "CoA", "", "") for one in INSTALLS)
    )


def found(job, database, *more):
    """The files and texts of a job that hold one of the tokens that it was given. What it reads is elsewhere."""
    assert job.tokens
    files = [job.output, job.folder / "state"]
    if database:
        database.execute("checkpoint")
        files.append(database.folder / "data")
    return leaks(job.tokens, *files, *more)


def said(done):
    return done.stdout + done.stderr


def test_the_search_finds_open_pairs_in_the_ledger_and_in_the_results(job, database):
    del job.environment["RECOVERY_SEAL__RECIPIENTS"]
    assert job.run(job.manifest(rows(job))).returncode == 1
    places = found(job, database)
    assert "results.csv" in places
    assert len(places) > 1 if database else LEDGER in places
    assert leaks(job.tokens, str(job.results())) == ["what was said"]


def test_no_token_is_in_any_byte_that_a_run_leaves_or_says(job, database):
    manifest = job.manifest(rows(job))
    done = job.run(manifest, *LOUD)
    assert done.returncode == 1, done.stderr
    assert job.summary()["counts"]["recovered"] == PAIRS
    assert found(job, database, said(done)) == []
    again = [job("plan", manifest, "--output", job.output), job("report", job.output), job.run(manifest, "--force")]
    assert [done.returncode for done in again] == [0, 0, 1], again
    assert found(job, database, *map(said, again)) == []


def test_no_token_of_another_route_is_in_any_byte(job, database):
    """The old tokens of the list are where they were, and nowhere else."""
    job.sandbox.world = replace(job.sandbox.world, reconnect_removed=True)
    old = job.sandbox.old_pair("CoA", "Company")
    manifest = job.manifest(rows(job, **old))
    done = job.run(manifest, "--routes", "reconnect,agency,refresh", *LOUD)
    assert done.returncode == 1, done.stderr
    assert {row["route"] for row in job.results().values()} >= {"agency", "refresh"}
    job.tokens += [old["access_token"], old["refresh_token"]]
    assert found(job, database, said(done)) == []


def test_no_token_of_an_opened_pair_is_in_any_byte_of_the_run_that_uses_it(job, identity, database):
    """The pair of the agency serves its sub-accounts first. Then it is refreshed."""
    (job.folder / "identity").write_text(str(identity))
    manifest, all_said = job.manifest(rows(job)), []
    assert job.run(manifest, "--limit", 1).returncode == 4
    job.sandbox.world = replace(job.sandbox.world, reconnect_removed=True)
    for route, force in (("agency", ()), ("refresh", ("--force",))):
        done = job.run(
            manifest, "--routes", "reconnect,agency,refresh", "--identity", job.folder / "identity", *force, *LOUD
        )
        assert done.returncode == 1, done.stderr
        assert route in {row["route"] for row in job.results().values()}
        all_said.append(said(done))
    assert found(job, database, *all_said) == []


def under_way(job, *more, installs=40):
    """A run that is stopped in the middle, with pairs recorded, others on their way."""
    run = job.start("run", job.manifest(listing(installs)), "--output", job.output, "--workers", 4, *more)
    wait_until(lambda: len(job.tokens) >= 12)
    run.send_signal(signal.SIGSTOP)
    return run


def test_no_token_is_in_any_file_of_a_run_under_way_nor_of_one_that_was_killed(job, database):
    job.sandbox.world = replace(job.sandbox.world, latency_seconds=0.02)
    run = under_way(job)
    held = open_files(run.pid)
    assert database or any(name.endswith(f"{LEDGER}-wal") for name in held)
    assert found(job, database, *held.values()) == []
    run.kill()
    assert run.wait() == -signal.SIGKILL
    assert found(job, database) == []
    if database:
        database.execute("delete from highlevel_recovery.leases")  # Else the next run waits for its end.
    done = job.run(job.folder / "installs.csv", *LOUD)
    assert done.returncode == 0, done.stderr
    assert found(job, database, said(done)) == []


@pytest.mark.parametrize("moment", ["a report is begun", "a report is moved into place"])
def test_no_token_is_in_a_report_that_is_half_written(stage, identity, moment):
    job = stage.job
    job.environment |= environment(identity)
    assert stage.run(job.manifest(listing(30)), job.output, kill_at=(moment, 1))["code"] == -signal.SIGKILL
    assert leaks(job.tokens, job.output, stage.said()) == []


def test_no_token_is_in_the_folder_that_is_made_again_after_it_was_moved(play, identity):
    job = play(latency_seconds=0.02)
    job.environment |= environment(identity)
    run = under_way(job)
    job.output.rename(job.folder / "elsewhere")
    run.send_signal(signal.SIGCONT)
    done = run.communicate(60)
    assert run.returncode == 3, done
    assert (job.output / LEDGER).exists()
    assert leaks(job.tokens, job.output, job.folder / "elsewhere", *done) == []


def test_no_token_is_beside_the_reports_of_a_run_whose_database_went_away(play, identity, server):
    job = play(latency_seconds=0.02)
    job.environment |= environment(identity, server) | {"RECOVERY_LEDGER__PATIENCE_SECONDS": "0.5"}
    run = under_way(job)
    server.stop()
    run.send_signal(signal.SIGCONT)
    done = run.communicate(60)
    server.start()
    assert run.returncode == 3, done
    assert "sealed" in (job.output / "unwritten.jsonl").read_text()
    places = [job.output, server.folder / "data", *done]
    assert leaks(job.tokens, *places) == []


def test_no_token_is_in_the_traceback_of_a_bug_nor_in_what_is_written_after_it(stage, identity):
    job = stage.job
    job.environment |= environment(identity)
    bug = {"where": "jobs.terminal.terminal.Terminal.ended", "said": "a bug of ours", "at": 4}
    assert stage.run(job.manifest(listing(30)), job.output, bug=bug)["code"] == 70
    text = stage.said()
    assert "Traceback" in text
    assert leaks(job.tokens, job.output, text) == []


def to_command(job, stack):
    return deliver_to_a_command(job).read_text


def to_database(job, stack):
    file = job.folder / "app.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("create table installs (id text primary key, access text, refresh text)")
        connection.commit()
    job.environment["RECOVERY_DELIVER__DATABASE_URL"] = f"sqlite:///{file}"
    job.environment["RECOVERY_DELIVER__SQL"] = (
        "insert into installs values (:resource_id, :access_token, :refresh_token) on conflict do nothing"
    )
    return lambda: file.read_bytes().decode("latin-1")


def to_url(job, stack):
    store = stack.enter_context(receiving(Receiver(new_secret())))
    job.environment |= {"RECOVERY_DELIVER__URL": store.url, "RECOVERY_DELIVER__SECRET": store.secret}
    return lambda: str(store.stored())


# The ledger does not know targets apart, so a database is searched for the one that repeats what it gets.
@pytest.mark.parametrize(
    ("database", "target"),
    [("folder", to_url), ("folder", to_command), ("folder", to_database), ("database", to_command)],
    indirect=["database"],
)
def test_no_token_is_left_by_a_delivery_except_in_the_apps_own_store(job, database, target):
    with ExitStack() as stack:
        store = target(job, stack)
        done = job.run(job.manifest(rows(job)), *LOUD)
        assert done.returncode == 1, done.stderr
        assert job.summary()["counts"]["delivered"] == PAIRS
        assert leaks(job.tokens, store()) == ["what was said"]
        purged = job("purge", job.output, "--yes")
        assert purged.returncode == 0, purged.stderr
        assert found(job, database, said(done), said(purged)) == []


def test_no_token_is_in_any_file_while_pairs_are_opened_and_handed_over_later(job, identity, database):
    (job.folder / "identity").write_text(str(identity))
    manifest = job.manifest(rows(job))
    assert job.run(manifest).returncode == 1
    with receiving(Receiver(new_secret(), seconds=0.3)) as store:
        job.environment |= {"RECOVERY_DELIVER__URL": store.url, "RECOVERY_DELIVER__SECRET": store.secret}
        deliver = job.start("deliver", job.output, "--all", "--yes", "--identity", job.folder / "identity")
        wait_until(lambda: store.seen)
        deliver.send_signal(signal.SIGSTOP)
        assert found(job, database, *open_files(deliver.pid).values()) == []
        deliver.send_signal(signal.SIGCONT)
        done = deliver.communicate(60)
        assert deliver.returncode == 0, done
        assert len(store.stored()) == PAIRS
    assert found(job, database, *done) == []


def test_no_token_is_in_what_somebody_is_told_at_the_end(play, identity):
    job = play(INSTALLS)
    job.environment |= environment(identity)
    program = "import pathlib, sys\npathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())\n"
    (job.folder / "told.py").write_text(program)
    told = job.folder / "told"
    job.environment["RECOVERY_NOTIFY__COMMAND"] = json.dumps([sys.executable, str(job.folder / "told.py"), str(told)])
    assert job.run(job.manifest(rows(job))).returncode == 1
    assert "5 of 6 installs are back" in told.read_text()
    assert leaks(job.tokens, told) == []
