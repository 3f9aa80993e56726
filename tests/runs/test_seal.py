"""`recover seal`: a ledger with open pairs becomes one without a byte of them, whatever moment it is killed at."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from itertools import count

import pyrage
import pytest

from jobs.ledger.opening import LEDGER
from jobs.sandbox.world import Place
from tests.helpers.homes import home_in_database
from tests.helpers.leaks import leaks
from tests.helpers.lists import listing, of
from tests.helpers.made import opened

NUMBERS = count()
INSTALLS = of(*(f"Loc{n}" for n in range(5))) | {"Loc2": Place("not_installed")}
NAMES = ("RECOVERY_SEAL__RECIPIENTS", "RECOVERY_LEDGER__URL", "RECOVERY_LEDGER__NAME")
SCHEMA = "highlevel_recovery"
FINISHED = "no open pair is left in the ledger"


@pytest.fixture(scope="module")
def server(own_postgres, tmp_path_factory):
    """A server that does not compress what is searched for."""
    opened(home_in_database(own_postgres, tmp_path_factory.mktemp("made"))).close()
    own_postgres.execute(f"alter table {SCHEMA}.all_installs alter column tokens set storage external")
    return own_postgres


@pytest.fixture
def identity():
    return pyrage.x25519.Identity.generate()


@pytest.fixture(params=["folder", "database"])
def database(request):
    """The server that has the ledger. None: the ledger is in the output folder."""
    return request.getfixturevalue("server") if request.param == "database" else None


@pytest.fixture
def job(play, database):
    """A run without recipients has recovered four of five installs."""
    return ran(play(INSTALLS), database)


def ran(job, server=None):
    if server:
        job.environment |= {"RECOVERY_LEDGER__URL": server.url, "RECOVERY_LEDGER__NAME": f"open {next(NUMBERS)}"}
    assert job.run(job.manifest(listing(5))).returncode == 1
    return job


def seal(job, *identities, more=()):
    """Run it with these as recipients."""
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = "\n".join(str(one.to_public()) for one in identities)
    return job("seal", job.output, *more)


def everything(job, server):
    """The folder of the job, and the tables of the server. Its log keeps what was written."""
    if not server:
        return [job.output]
    server.execute("checkpoint")
    return [job.output, server.folder / "data" / "base"]


def found(job, server):
    assert job.sandbox.tokens
    return leaks(job.sandbox.tokens, *everything(job, server))


def ask(job, server, statement):
    """What the ledger answers to a statement, which may change it."""
    if not server:
        with closing(sqlite3.connect(job.output / LEDGER)) as connection, connection:
            return connection.execute(statement).fetchall()
    name = job.environment["RECOVERY_LEDGER__NAME"]
    with server.session() as connection:
        connection.execute(f"set search_path to {SCHEMA}")
        mine = f"select id::text from ledgers where name = '{name}'"
        connection.execute(f"select set_config('highlevel_recovery.ledger', ({mine}), false)")
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def in_cells(job, identity):
    """The refresh tokens of the sealed cells of results.csv, by account, as `age -d` gives them."""
    cells = {name: row["sealed"] for name, row in job.results().items() if row["sealed"]}
    return {
        name: json.loads(pyrage.decrypt(text.encode(), [identity]))["refresh_token"] for name, text in cells.items()
    }


def without_tokens(job):
    ours = {"access_token", "refresh_token", "sealed"}
    return {name: {k: v for k, v in row.items() if k not in ours} for name, row in job.results().items()}


def test_a_sealed_ledger_has_the_same_pairs_and_no_byte_of_them_is_left(job, database, identity):
    another = pyrage.x25519.Identity.generate()
    half_written = job.output / ".new-results.csv-0123abcd"
    shutil.copy(job.output / "results.csv", half_written)
    was, marks = without_tokens(job), ask(job, database, "select fingerprint from pairs")
    assert len(found(job, database)) > 2
    done = seal(job, identity, another)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 open pairs are sealed for SHA256:" in done.stdout
    assert FINISHED in done.stdout
    assert ("log (WAL), its replicas and its backups" in done.stdout) is bool(database)
    assert found(job, database) == []
    assert without_tokens(job) == was
    assert in_cells(job, identity) == in_cells(job, another) == job.issued()
    assert {*marks} < {*ask(job, database, "select fingerprint from pairs")}


def test_a_run_goes_on_after_it_and_a_second_seal_has_nothing_to_do(job, identity):
    seal(job, identity)
    before = job.results()
    again = job("seal", job.output)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == f"nothing to seal in {job.output}: it holds no open pair\n"
    done = job.run(job.manifest(listing(5)))
    assert done.returncode == 1, done.stderr
    assert job.summary()["this_run"]["already_recovered"] == 4
    assert job.results() == before | {"Loc2": job.results()["Loc2"]}
