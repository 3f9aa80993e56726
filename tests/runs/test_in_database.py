"""Whole runs whose ledger is in PostgreSQL."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from psycopg import connect
from sqlalchemy import make_url

from jobs.core.clock import utc_now
from jobs.core.model import Install, InstallKey, Level, Recovered, Route
from jobs.core.secret import Secret
from jobs.ledger.unwritten import set_aside
from jobs.sandbox.receiver import Receiver, receiving
from jobs.sandbox.world import Place
from tests.helpers.job import CLIENT_ID
from tests.helpers.lists import listing
from tests.helpers.made import pair
from tests.helpers.pgbouncer import pgbouncer

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def job(play, postgres, request):
    job = play({"Loc0002": Place("not_installed")})
    job.environment |= {"RECOVERY_LEDGER__URL": postgres.url, "RECOVERY_LEDGER__NAME": request.node.name[:100]}
    return job


def test_a_run_leaves_no_ledger_in_the_folder_and_the_next_one_knows_what_it_did(job):
    manifest = job.manifest(listing(6, width=4))
    done = job.run(manifest)
    assert done.returncode == 1, done.stdout + done.stderr
    assert job.summary()["counts"]["recovered"] == 5
    assert not list(job.output.glob("ledger*"))
    for file in job.output.iterdir():
        file.unlink()
    again = job.run(manifest)
    assert again.returncode == 1, again.stdout + again.stderr
    assert job.summary()["this_run"]["already_recovered"] == 5
    assert len(job.results()) == 6


def test_pairs_of_a_run_that_the_database_forgot_are_taken_in_once_their_installs_are_enrolled(job):
    pairs = {
        name: (
            Install(InstallKey(CLIENT_ID, Level.SUB_ACCOUNT, name), ""),
            Recovered(pair(), Route.RECONNECT, 1, utc_now()),
        )
        for name in ("Loc0001", "Elsewhere")
    }
    first = job.run(job.manifest(listing(1, width=4)))
    assert first.returncode == 0, first.stderr
    aside = set_aside(job.output, job.sandbox.url, pairs.values())
    lines = aside.read_text().splitlines()
    purged = job("purge", job.output)
    assert purged.returncode == 0, purged.stderr
    unknown = "that this ledger does not know: keep the file"
    assert f"{aside} holds 2 pairs of installs {unknown}" in purged.stderr
    assert aside.read_text().splitlines() == lines
    done = job.run(job.manifest(listing(2, width=4)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{aside} holds 1 pair of an install {unknown}" in done.stderr
    assert done.stderr.count(unknown) == 1  # It says so once, after the list is enrolled.
    assert aside.read_text().splitlines() == lines[1:]
    assert job.results()["Loc0001"]["refresh_token"] == pairs["Loc0001"][1].tokens.refresh_token.reveal()
    assert "Loc0001" not in job.issued()
    assert job.summary()["this_run"]["already_recovered"] == 2


@pytest.fixture
def full(job, postgres):
    """`full(True)` lets the server of a job refuse each commit of a new pair, as one without space on its disk does."""
    schema = job.environment["RECOVERY_LEDGER__SCHEMA"] = "of_a_full_server"
    refuses = f"{schema}.refuses"

    def set_full(value):
        postgres.execute(
            f"create or replace function {refuses}() returns trigger language plpgsql as"
            " $$begin raise exception 'no space left' using errcode = 'disk_full'; end$$",
            f"drop trigger if exists refuses on {schema}.all_pairs",
            f"create constraint trigger refuses after insert on {schema}.all_pairs deferrable initially deferred"
            f" for each row execute function {refuses}()"
            if value
            else "select 1",
        )

    yield set_full
    postgres.execute(f"drop schema {schema} cascade")


@pytest.mark.parametrize("account", ["Loc0000", "Loc0001"], ids=["known", "not enrolled yet"])
def test_pairs_that_were_set_aside_stay_in_their_file_until_they_are_committed(job, full, account):
    job.run(job.manifest(listing(1, width=4)))
    install = Install(InstallKey(CLIENT_ID, Level.SUB_ACCOUNT, account), "")
    kept = Recovered(pair(), Route.RECONNECT, 1, utc_now())
    aside = set_aside(job.output, job.sandbox.url, [(install, kept)])
    before, manifest = aside.read_text(), job.manifest(listing(2, width=4))
    job.environment["RECOVERY_LEDGER__PATIENCE_SECONDS"] = "1"
    full(True)
    done = job.run(manifest)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "no space left" in done.stderr
    assert aside.read_text() == before
    full(False)
    done = job.run(manifest)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not aside.exists()
    assert job.results()[account]["refresh_token"] == kept.tokens.refresh_token.reveal()


def test_a_pair_that_was_set_aside_is_not_taken_in_over_a_newer_one(job):
    manifest = job.manifest(listing(1, width=4))
    install = Install(InstallKey(CLIENT_ID, Level.SUB_ACCOUNT, "Loc0000"), "")
    older = Recovered(pair(), Route.RECONNECT, 1, utc_now())
    job.run(manifest)
    newer = replace(older, tokens=replace(pair(), refresh_token=Secret("newer")), at=utc_now())
    for kept, newest in ((older, job.issued()["Loc0000"]), (newer, "newer"), (older, "newer")):
        aside = set_aside(job.output, job.sandbox.url, [(install, kept)])
        done = job.run(manifest)
        assert done.returncode == 0, done.stdout + done.stderr
        assert job.results()["Loc0000"]["refresh_token"] == newest
        assert not aside.exists()


@pytest.mark.parametrize("name", [b"out\xff", b"out\n"], ids=["not UTF-8", "a line"])
def test_a_folder_whose_name_no_database_holds_is_refused_unless_the_ledger_has_one(job, name):
    output, manifest = job.folder / os.fsdecode(name), job.manifest(listing(2))
    assert job("run", manifest, "--output", output).returncode == 0
    del job.environment["RECOVERY_LEDGER__NAME"]
    done = job("run", manifest, "--output", output)
    assert done.returncode == 2
    assert "has a name that cannot be that of a ledger in a database: set ledger.name" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_machine_that_never_saw_the_run_makes_its_reports(job, tmp_path):
    job.run(job.manifest(listing(3)))
    elsewhere = tmp_path / "elsewhere" / "out"
    done = job("report", elsewhere)
    assert done.returncode == 0, done.stderr
    made = {file.name: file.read_bytes() for file in elsewhere.iterdir()}
    assert made == {file.name: file.read_bytes() for file in job.output.iterdir() if file.name != ".lock"}
    assert elsewhere.stat().st_mode & 0o777 == 0o700


def test_machines_that_never_saw_the_run_hand_over_its_pairs_and_forget_them(job, tmp_path):
    job.run(job.manifest(listing(2)))
    second, third = tmp_path / "second" / "out", tmp_path / "third" / "out"
    with receiving(Receiver(SECRET)) as store:
        job.environment |= {"RECOVERY_DELIVER__URL": store.url, "RECOVERY_DELIVER__SECRET": SECRET}
        done = job("deliver", second)
    assert done.returncode == 0, done.stderr
    assert sorted(resource for _, _, resource in store.seen) == sorted(job.issued())
    assert json.loads((second / "summary.json").read_text())["counts"]["delivered"] == 2
    done = job("purge", third)
    assert done.returncode == 0, done.stderr
    made = (second / "results.csv").read_text(), (third / "results.csv").read_text()
    assert [all(token in text for token in job.issued().values()) for text in made] == [True, False]
    assert job("run", job.folder / "installs.csv", "--output", tmp_path / "fourth" / "out").returncode == 0
    assert len(job.sandbox.codes.issued) == 2


def rows_of(server, schema="highlevel_recovery"):
    """Every row of every table, with the place where it lies and the transaction that wrote it; and all tables' names."""
    tables = [name for (name,) in server.execute(f"select tablename from pg_tables where schemaname = '{schema}'")]
    rows = {name: server.execute(f"select ctid, xmin, one.* from {schema}.{name} one") for name in sorted(tables)}
    return rows | {"": server.execute("select relname from pg_class order by oid")}


def test_a_plan_writes_nothing_whether_the_ledger_is_there_or_not(job, postgres):
    manifest = job.manifest(listing(6, width=4))
    job.run(manifest)
    before = rows_of(postgres)
    assert before["all_installs"]
    for name in (job.environment["RECOVERY_LEDGER__NAME"], "another name"):
        job.environment["RECOVERY_LEDGER__NAME"] = name
        done = job("plan", job.manifest(listing(9, width=4), "more.csv"), "--output", job.output)
        assert done.returncode == 0, done.stderr
        assert rows_of(postgres) == before


# -- what a user of the database needs ------------------------------------------------------------------------------

USER, WORD = "recovery", "pass-word"


@pytest.fixture
def user(postgres):
    """The URL of a user who may do nothing but log in. Nobody else has a right to anything either."""
    postgres.execute(
        "revoke all on database postgres from public",
        "revoke all on schema public from public",
        f"create role {USER} login password '{WORD}'",
        f"grant connect on database postgres to {USER}",
    )
    url = make_url(postgres.url).set(username=USER, password=WORD)
    yield url.render_as_string(hide_password=False)
    postgres.execute(
        f"drop owned by {USER} cascade",
        f"drop role {USER}",
        "drop schema if exists mine cascade",
        "grant connect, temporary on database postgres to public",
    )


TEMPORARY = f"grant temporary on database postgres to {USER}"
MADE_BEFOREHAND = f"create schema mine authorization {USER}"


@pytest.fixture
def owner(postgres, user):
    """The URL of a user who owns a schema, and has no more than that."""
    postgres.execute(TEMPORARY, MADE_BEFOREHAND)
    return user


@pytest.fixture
def pooled(postgres):
    """The URL of a pooler in transaction mode."""
    with pgbouncer(postgres) as url:
        yield url
    postgres.execute("drop schema mine cascade")


@pytest.fixture
def store():
    with receiving(Receiver(SECRET)) as receiver:
        yield receiver


@pytest.mark.parametrize("url", ["owner", "pooled"])
def test_every_command_works(job, store, url, request, tmp_path):
    """A user with just the rights that are needed has them all, and so has one behind a pooler."""
    job.environment |= {
        "RECOVERY_LEDGER__URL": request.getfixturevalue(url),
        "RECOVERY_LEDGER__SCHEMA": "mine",
        "RECOVERY_LEDGER__NAME": "",
        "RECOVERY_DELIVER__URL": store.url,
        "RECOVERY_DELIVER__SECRET": SECRET,
    }
    manifest, there = job.manifest(listing(12, width=4)), job.output
    elsewhere = tmp_path / "elsewhere" / "out"
    for code, *command in [
        (0, "plan", manifest, "--output", there),
        (1, "run", manifest, "--output", there, "--workers", 4),
        (1, "check", there / "results.csv", "--output", tmp_path / "affected.csv"),
        (0, "plan", manifest, "--output", there),
        (0, "report", there),
        (0, "deliver", there, "--all", "--yes"),
        (0, "ledger", "who"),
        (0, "purge", there),
        (1, "run", manifest, "--output", elsewhere),
        (0, "ledger", "copy", "database", elsewhere),
    ]:
        done = job(*command)
        assert done.returncode == code, (command, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
    assert len(store.stored()) == 11
    assert {row["delivery"] for row in job.results().values()} == {"purged", ""}
    assert (elsewhere / "ledger.sqlite3").exists()


def test_a_run_leaves_nothing_behind_in_the_sessions_of_a_pooler(job, pooled):
    job.environment |= {"RECOVERY_LEDGER__URL": pooled, "RECOVERY_LEDGER__SCHEMA": "mine"}
    assert job.run(job.manifest(listing(12, width=4))).returncode == 1
    names = ("search_path", "statement_timeout", "idle_in_transaction_session_timeout", "highlevel_recovery.ledger")
    columns = ", ".join(f"coalesce(current_setting('{name}', true), '')" for name in names)
    with connect(pooled.replace("+psycopg", ""), autocommit=True) as somebody:
        seen = {somebody.execute(f"select {columns}").fetchone() for _ in range(6)}  # Each time another session.
    assert seen == {('"$user", public', "0", "0", "")}


MAY_MAKE = f"grant create on database postgres to {USER}"


def of_user(job, user):
    job.environment |= {"RECOVERY_LEDGER__URL": user, "RECOVERY_LEDGER__SCHEMA": "mine"}
    return job


def test_a_user_who_may_make_a_schema_needs_none_beforehand(job, postgres, user):
    postgres.execute(TEMPORARY, MAY_MAKE)
    assert of_user(job, user).run(job.manifest(listing(3))).returncode == 0
    assert postgres.execute("select nspowner::regrole::text from pg_namespace where nspname = 'mine'") == [(USER,)]


@pytest.mark.parametrize(
    ("has", "says"),
    [
        ([f"revoke temporary on database postgres from {USER}"], "permission denied for database postgres"),
        ([MADE_BEFOREHAND], "permission denied to create temporary tables in database"),
        ([TEMPORARY, "create schema mine"], f"schema mine: cannot be used by {USER} (it has no USAGE right)"),
        (
            [TEMPORARY, "create schema mine", f"grant usage on schema mine to {USER}"],
            "permission denied for schema mine",
        ),
        ([f"revoke connect on database postgres from {USER}"], "permission denied for database"),
        ([f"alter role {USER} nologin"], "is not permitted to log in"),
    ],
    ids=["nothing", "no temporary tables", "schema of another", "no tables", "no connection", "no login"],
)
def test_a_right_that_is_missing_is_one_line_before_anything_is_sent(job, postgres, user, has, says):
    postgres.execute(*has)
    done = of_user(job, user).run(job.manifest(listing(3)))
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "error" in line)
    assert says in line
    assert WORD not in line
    assert job.sandbox.seen == []
