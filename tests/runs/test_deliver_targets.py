"""Whole runs that hand pairs over to a database, or to a command."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from contextlib import closing

import pytest

from tests.helpers.job import deliver_to_a_command
from tests.helpers.waiting import wait_until

IDS = [f"ve9EPM428h8vShlRW{number}KT" for number in range(6)]
LIST = "location_id,Plan\n" + "".join(f"{account},gold\n" for account in IDS)


@pytest.fixture
def job(play):
    return play()


def rows(file, query="select id, token, plan from installs order by id"):
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def database(job):
    file = job.folder / "app.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("create table installs (id text primary key, token text, plan text)")
        connection.executemany("insert into installs (id) values (?)", [(account,) for account in IDS[:4]])
        connection.commit()
    job.environment["RECOVERY_DELIVER__DATABASE_URL"] = f"sqlite:///{file}"
    job.environment["RECOVERY_DELIVER__SQL"] = (
        "update installs set token = :refresh_token, plan = :column_plan where id = :location_id"
    )
    return file


def test_a_run_puts_new_pairs_into_a_database_and_tells_what_no_row_took(job, database):
    done = job.run(job.manifest(LIST))
    assert done.returncode == 1, done.stderr
    results = job.results()
    assert rows(database) == [(account, results[account]["refresh_token"], "gold") for account in IDS[:4]]
    assert [results[account]["delivery"] for account in IDS] == ["delivered"] * 4 + ["no: no row took it"] * 2
    assert job.summary()["delivery"]["target"] == "sql"


def test_a_statement_that_cannot_work_is_refused_before_anything_is_sent(job, database):
    job.environment["RECOVERY_DELIVER__SQL"] = "update installs set token = :refresh_tokn, plan = :column_plan"
    done = job.run(job.manifest(LIST))
    assert done.returncode == 2
    assert "unknown parameter :refresh_tokn" in done.stderr
    assert not job.output.exists()


def test_a_database_that_another_holds_waits_and_is_served_later(job, database):
    hasty = {
        "RECOVERY_DELIVER__TIMEOUT_SECONDS": "0.1",
        "RECOVERY_DELIVER__ATTEMPTS": "1",
        "RECOVERY_DELIVER__GIVE_UP_AFTER": "2",
    }
    job.environment |= hasty
    with closing(sqlite3.connect(database, isolation_level=None)) as holder:
        holder.execute("begin immediate")
        done = job.run(job.manifest(LIST))
    assert done.returncode == 1
    assert "database is locked" in job.summary()["delivery"]["rested_because"]
    assert job.summary()["counts"]["recovered"] == 6
    with closing(sqlite3.connect(database)) as connection:
        connection.executemany("insert into installs (id) values (?)", [(account,) for account in IDS[4:]])
        connection.commit()
    for name in hasty:
        del job.environment[name]
    assert job("deliver", job.output).returncode == 0
    assert [plan for *_, plan in rows(database)] == ["gold"] * 6


def test_a_run_gives_new_pairs_to_a_command_and_shows_no_token_of_what_that_says(job):
    kept = deliver_to_a_command(job)
    done = job.run(job.manifest(LIST))
    assert done.returncode == 0, done.stderr
    pairs = [json.loads(line) for line in kept.read_text().splitlines()]
    results = job.results()
    assert {pair["location_id"]: pair["refresh_token"] for pair in pairs} == {
        account: row["refresh_token"] for account, row in results.items()
    }
    assert pairs[0]["columns"] == {"Plan": "gold"}
    assert job.summary()["delivery"] == {
        "target": "command", "attempted": 6, "delivered": 6, "failed": 0, "rested_because": None,
    }  # fmt: skip
    said = done.stdout + done.stderr
    assert not [pair for pair in pairs if pair["refresh_token"] in said or pair["access_token"] in said]


def test_a_signal_during_a_run_leaves_no_command_behind(job):
    hangs = "import os, pathlib, sys, time\npathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\ntime.sleep(600)\n"
    (job.folder / "program.py").write_text(hangs)
    words = [sys.executable, str(job.folder / "program.py"), str(job.folder / "pid")]
    job.environment |= {
        "RECOVERY_DELIVER__COMMAND": json.dumps(words),
        "RECOVERY_DELIVER__TIMEOUT_SECONDS": "1",
    }
    process = job.start("run", job.manifest(LIST), "--output", job.output)
    wait_until(lambda: (job.folder / "pid").exists() and (job.folder / "pid").read_text())
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode in (1, 143), said
    with pytest.raises(ProcessLookupError):
        os.kill(int((job.folder / "pid").read_text()), 0)
    assert job.summary()["counts"]["undelivered"] == job.summary()["counts"]["recovered"] > 0


def test_plan_says_where_pairs_go_without_a_password(job, database):
    done = job("plan", job.manifest(LIST), "--output", job.output)
    assert f"sqlite:///{database}" in done.stdout
    job.environment["RECOVERY_DELIVER__DATABASE_URL"] = "postgresql://app:very-secret@db.example.com/main"
    done = job("plan", job.manifest(LIST), "--output", job.output)
    assert "postgresql://db.example.com/main" in done.stdout
    assert "very-secret" not in done.stdout + done.stderr
