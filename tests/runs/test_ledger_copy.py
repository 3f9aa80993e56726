"""A whole ledger goes from its folder into PostgreSQL, and back: nothing is lost, and only one of the two is used."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import stat
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

import psycopg
import pyrage
import pytest

from jobs.core.clock import utc_now
from jobs.core.model import Install, InstallKey, Level, Recovered, Route
from jobs.ledger.unwritten import set_aside
from jobs.sandbox.receiver import Receiver, receiving
from jobs.sandbox.world import Place
from tests.helpers.job import CLIENT_ID, Stage
from tests.helpers.lists import listing, of
from tests.helpers.made import pair
from tests.helpers.postgres import PASSWORD
from tests.helpers.waiting import wait_until

SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SCHEMA = "of_copies"  # The tests share a server.
LEDGER = "ledger.sqlite3"
EVERY = 90  # Each such statement of a copy is a moment to be killed at.
OF_THE_PLACE = {"base_url", "came_as", "moved_as", "moved_to"}


@pytest.fixture
def job(play, postgres, request):
    installs = of(*(f"Loc{n}" for n in range(8))) | {"Loc2": Place("not_installed"), "CoA": Place(level="Company")}
    job = play(installs | {"Loc7": Place("refresh_lost", company_id="CoA")})
    postgres.execute(f"drop schema if exists {SCHEMA} cascade")
    job.database = {"RECOVERY_LEDGER__URL": postgres.url, "RECOVERY_LEDGER__SCHEMA": SCHEMA}
    return job


@contextmanager
def set_to(job, variables):
    before = dict(job.environment)
    job.environment |= variables
    try:
        yield
    finally:
        job.environment = before


def in_database(job, *arguments):
    """Run a command with the address of the database set."""
    with set_to(job, job.database):
        return job(*arguments)


def in_folder(output):
    """Every table of a ledger in a folder, in the order of its keys."""
    with closing(sqlite3.connect(f"file:{output / LEDGER}?mode=ro", uri=True)) as connection:
        names = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        found = {name: sorted(connection.execute(f"select * from {name}")) for name in names if "sqlite_" not in name}
    return found | {"meta": [row for row in found["meta"] if row[0] not in OF_THE_PLACE]}


def of_database(postgres, tables, name="out"):
    """The same of a ledger in PostgreSQL."""
    ((number,),) = postgres.execute(f"select id from {SCHEMA}.ledgers where name = '{name}'")
    rows = {
        one: sorted(row[1:] for row in postgres.execute(f"select * from {SCHEMA}.all_{one} where ledger = {number}"))
        for one in tables
    }
    return rows | {"meta": [row for row in rows["meta"] if row[0] not in OF_THE_PLACE]}


def full(job):
    """A ledger of everything: runs of two layouts, failures, broken lines, spent tokens, deliveries, and purged pairs."""
    old = job.sandbox.old_pair("Loc7")["refresh_token"]
    ids = "".join(f"Loc{n},CoA,,,Näme {n}\n" for n in range(7))
    first = f"location_id,company_id,access_token,refresh_token,name\n{ids},CoA,,,Agency\nLoc7,CoA,,{old},Seven\nno id!,,,,x\n"
    second = "location_id,company_id,name,plan\n" + "".join(f"Loc{n},CoA,Name {n},gold\n" for n in (2, 3, 5, 8))
    with receiving(Receiver(SIGNING)) as store:
        store.refuses = frozenset({"Loc4"})
        with set_to(job, {"RECOVERY_DELIVER__URL": store.url, "RECOVERY_DELIVER__SECRET": SIGNING}):
            manifest = job.manifest(first, "first.csv")
            job.sandbox.world.installs["Loc7"] = Place("refresh_lost", company_id="CoA")
            assert job.run(manifest, "--routes", "refresh").returncode == 1
            assert job.run(manifest).returncode == 1
            assert job("purge", job.output).returncode == 0
            assert job.run(job.manifest(second, "second.csv")).returncode == 1
    tables = in_folder(job.output)
    states = {row[2] for row in tables["deliveries"]}
    assert {name for name, rows in tables.items() if not rows} <= {"broken", "reported_lines"}, tables
    assert states == {"delivered", "refused"}
    return tables


def test_a_full_ledger_is_the_same_in_the_database_and_back_in_another_folder(job, postgres, tmp_path):
    tables = full(job)
    done = in_database(job, "ledger", "copy", job.output, "database")
    assert (done.returncode, done.stderr) == (0, "")
    assert "same rows and fingerprints" in done.stdout
    assert PASSWORD not in done.stdout
    assert of_database(postgres, tables) == tables
    back = tmp_path / "back" / "out"
    done = in_database(job, "ledger", "copy", "database", back)
    assert (done.returncode, done.stderr) == (0, "")
    assert in_folder(back) == tables
    assert stat.S_IMODE((back / LEDGER).stat().st_mode) == 0o600
    assert stat.S_IMODE(back.stat().st_mode) == 0o700
    assert [file.name for file in back.iterdir() if file.name != ".lock"] == [LEDGER]


def test_a_rerun_on_the_copy_tries_only_what_failed(job, tmp_path):
    manifest = job.manifest(listing(6))
    assert job.run(manifest).returncode == 1
    in_database(job, "ledger", "copy", job.output, "database")
    asked = len(job.sandbox.seen)
    done = in_database(job, "run", manifest, "--output", job.output)
    assert done.returncode == 1, done.stderr
    assert {one.account_id for one in job.sandbox.seen[asked:]} == {"Loc2"}
    assert job.summary()["this_run"]["already_recovered"] == 5
    back = tmp_path / "elsewhere" / "out"
    assert in_database(job, "ledger", "copy", "database", back).returncode == 0
    asked = len(job.sandbox.seen)
    assert job("run", manifest, "--output", back).returncode == 1
    assert {one.account_id for one in job.sandbox.seen[asked:]} == {"Loc2"}


def test_new_rows_of_any_ledger_get_numbers_that_no_copied_row_has(job, postgres, tmp_path):
    job.run(job.manifest(listing(6)))
    copied = {row[0] for row in in_folder(job.output)["installs"]}
    in_database(job, "ledger", "copy", job.output, "database")
    more = job.manifest(listing(["Loc6", "Loc7", "Loc8"]))
    done = in_database(job, "run", more, "--output", job.output)
    assert done.returncode == 0, done.stderr
    ids = [row[0] for row in of_database(postgres, ["installs", "meta"])["installs"]]
    assert copied < set(ids)
    assert len(ids) == len(set(ids)) == 9
    in_database(job, "run", more, "--output", tmp_path / "another")
    others = [row[0] for row in of_database(postgres, ["installs", "meta"], "another")["installs"]]
    assert min(others) > max(ids)


@pytest.mark.parametrize("command", ["run", "plan", "report", "deliver", "purge"])
def test_a_ledger_that_was_moved_is_refused_and_its_new_place_is_named(job, command, tmp_path):
    manifest = job.manifest(listing(2))
    job.run(manifest)
    in_database(job, "ledger", "copy", job.output, "database")
    job.environment |= {"RECOVERY_DELIVER__COMMAND": '["true"]'}
    arguments = (manifest, "--output", job.output) if command in ("run", "plan") else (job.output,)
    done = job(command, *arguments)
    assert done.returncode == 2
    assert "was moved to the ledger out of postgresql, socket " in done.stderr
    assert PASSWORD not in done.stderr
    back = tmp_path / "back" / "out"
    in_database(job, "ledger", "copy", "database", back)
    done = in_database(job, command, *arguments)
    assert done.returncode == 2
    assert f"was moved to {back / LEDGER}" in done.stderr


def test_a_folder_whose_ledger_was_moved_into_the_database_goes_on_there(job):
    manifest = job.manifest(listing(3))
    job.run(manifest)
    refused = in_database(job, "run", manifest, "--output", job.output)
    assert refused.returncode == 2
    assert f"recover ledger copy {job.output} database" in refused.stderr
    in_database(job, "ledger", "copy", job.output, "database")
    for command in (("run", manifest, "--output"), ("plan", manifest, "--output"), ("report",)):
        done = in_database(job, *command, job.output)
        assert done.returncode in (0, 1), done.stderr
    with set_to(job, {"RECOVERY_LEDGER__NAME": "of somebody else"}):
        done = in_database(job, "run", manifest, "--output", job.output)
    assert done.returncode == 2
    assert "is not the copy of it" in done.stderr


def test_a_target_that_holds_a_ledger_is_refused_and_stays_as_it_is(job, postgres, tmp_path):
    manifest = job.manifest(listing(3))
    job.run(manifest)
    in_database(job, "run", manifest, "--output", tmp_path / "elsewhere" / "out")
    tables = in_folder(job.output)
    was = of_database(postgres, tables)
    for way in ((job.output, "database"), ("database", job.output)):
        done = in_database(job, "ledger", "copy", *way)
        assert done.returncode == 2
        assert "holds a ledger" in done.stderr
    assert (in_folder(job.output), of_database(postgres, tables)) == (tables, was)
    assert job.run(manifest).returncode == 1


def test_a_ledger_that_came_back_may_take_its_old_place_again(job, postgres, tmp_path):
    manifest = job.manifest(listing(3))
    job.run(manifest)
    in_database(job, "ledger", "copy", job.output, "database")
    refused = in_database(job, "ledger", "copy", "database", job.output)
    assert refused.returncode == 2
    assert "remove it, then repeat this" in refused.stderr
    (job.output / LEDGER).unlink()
    assert in_database(job, "ledger", "copy", "database", job.output).returncode == 0
    assert job.run(job.manifest(listing(5))).returncode == 1
    tables = in_folder(job.output)
    assert in_database(job, "ledger", "copy", job.output, "database").returncode == 0
    assert of_database(postgres, tables) == tables
    assert in_database(job, "run", manifest, "--output", job.output).returncode == 1


@pytest.mark.parametrize("way", ["into the database", "out of the database"])
def test_pairs_that_were_set_aside_are_taken_in_before_the_copy(job, way):
    manifest, into = job.manifest(listing(3)), way == "into the database"
    (job if into else partial(in_database, job))("run", manifest, "--output", job.output)
    install = Install(InstallKey(CLIENT_ID, Level.SUB_ACCOUNT, "Loc2"), "")
    kept = Recovered(pair(), Route.RECONNECT, 1, utc_now())
    aside = set_aside(job.output, job.sandbox.url, [(install, kept)])
    done = in_database(job, "ledger", "copy", *((job.output, "database") if into else ("database", job.output)))
    assert done.returncode == 0, done.stderr
    assert not aside.exists()
    reported = in_database(job, "report", job.output) if into else job("report", job.output)
    assert reported.returncode == 0, reported.stderr
    assert job.results()["Loc2"]["refresh_token"] == kept.tokens.refresh_token.reveal()


def test_a_copy_that_differs_from_the_original_is_refused_and_the_original_stays_in_use(job, postgres):
    manifest = job.manifest(listing(3))
    job.run(manifest)
    in_database(job, "run", manifest, "--output", job.folder / "another")  # It makes the tables.
    postgres.execute(
        f"create function {SCHEMA}.loses() returns trigger language plpgsql as "
        "$$begin if new.account_id = 'Loc1' then new.attempts = 7; end if; return new; end$$",
        f"create trigger loses before insert on {SCHEMA}.all_installs for each row execute function {SCHEMA}.loses()",
    )
    done = in_database(job, "ledger", "copy", job.output, "database")
    assert done.returncode == 2
    assert "the table installs of the copy: differs from the original (3 rows, of 3)" in done.stderr
    assert postgres.execute(f"select name from {SCHEMA}.ledgers") == [("another",)]
    assert job.run(manifest).returncode == 1


def test_after_a_purge_in_the_database_the_file_that_was_moved_is_named(job):
    with receiving(Receiver(SIGNING)) as store:
        job.environment |= {"RECOVERY_DELIVER__URL": store.url, "RECOVERY_DELIVER__SECRET": SIGNING}
        job.run(job.manifest(listing(2)))
        in_database(job, "ledger", "copy", job.output, "database")
        done = in_database(job, "purge", job.output)
    assert done.returncode == 0, done.stderr
    assert (
        f"{job.output / LEDGER} was moved into the database, and still holds the pairs it had: remove it" in done.stdout
    )


@pytest.mark.parametrize("way", ["into the database", "out of the database"])
def test_a_ledger_with_open_pairs_is_not_copied_to_where_pairs_are_sealed(job, way, tmp_path):
    into, key = way == "into the database", str(pyrage.x25519.Identity.generate().to_public())
    arguments = (job.output, "database") if into else ("database", tmp_path / "back" / "out")
    (job if into else partial(in_database, job))("run", job.manifest(listing(3)), "--output", job.output)
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = key
    refused = in_database(job, "ledger", "copy", *arguments)
    assert refused.returncode == 2
    todo = f"run `recover seal {arguments[not into]}`{' without RECOVERY_LEDGER__URL' if into else ''} first"
    assert f"holds pairs that are not sealed, but seal.recipients is set: {todo}" in refused.stderr
    sealed = job("seal", job.output) if into else in_database(job, "seal", arguments[1])
    assert sealed.returncode == 0, sealed.stderr
    assert in_database(job, "ledger", "copy", *arguments).returncode == 0


def test_a_sealed_ledger_stays_sealed_in_its_copy(job, postgres, tmp_path):
    manifest, identity = job.manifest(listing(3)), pyrage.x25519.Identity.generate()
    key, back = {"RECOVERY_SEAL__RECIPIENTS": str(identity.to_public())}, tmp_path / "back" / "out"
    with set_to(job, key):
        job.run(manifest)
    tables = in_folder(job.output)
    assert in_database(job, "ledger", "copy", job.output, "database").returncode == 0
    assert of_database(postgres, tables) == tables
    open_run = in_database(job, "run", manifest, "--output", job.output)
    assert open_run.returncode == 2
    assert "holds sealed pairs, but seal.recipients is empty" in open_run.stderr
    assert in_database(job, "ledger", "copy", "database", back).returncode == 0
    assert in_folder(back) == tables
    with set_to(job, key):
        assert job("run", manifest, "--output", back).returncode == 1


def test_a_ledger_that_was_not_sealed_to_its_end_is_not_copied(job):
    job.run(job.manifest(listing(3)))
    stage = Stage(job)
    with set_to(job, {"RECOVERY_SEAL__RECIPIENTS": str(pyrage.x25519.Identity.generate().to_public())}):
        stage.start("seal", job.output, kill_at=("a report is begun", 1))
        assert stage.end()["code"] == -signal.SIGKILL
    refused = in_database(job, "ledger", "copy", job.output, "database")
    assert refused.returncode == 2
    assert "holds pairs that `recover seal` began to seal and did not finish" in refused.stderr


@pytest.mark.parametrize("way", ["into the database", "out of the database"])
def test_no_ledger_is_copied_while_a_run_is_under_way(job, way, tmp_path):
    manifest, url = job.manifest(listing(30, width=2)), job.environment | job.database
    job.sandbox.world.installs.clear()
    into = way == "into the database"
    job.environment = job.environment if into else url
    run = job.start("run", manifest, "--output", job.output, "--rate", 20)
    job.slow_down(0.05)
    job.environment = url
    elsewhere = job.output if into else tmp_path / "elsewhere" / "out"
    held = job("ledger", "copy", *((job.output, "database") if into else ("database", elsewhere)))
    run.send_signal(signal.SIGTERM)
    run.communicate(60)
    assert held.returncode == 11, held.stderr
    assert "the run on" in held.stderr
    assert into or not (elsewhere / LEDGER).exists()


def test_of_two_copies_at_once_only_one_is_made(job, postgres):
    in_database(job, "run", job.manifest(listing(3)), "--output", job.output)
    moved = f"insert into {SCHEMA}.all_meta select id, 'moved_as', 'the other copy' from {SCHEMA}.ledgers"
    with psycopg.connect(postgres.url.replace("+psycopg", "")) as other:
        other.execute(f"select from {SCHEMA}.leases for update")
        with set_to(job, job.database):
            copy = job.start("ledger", "copy", "database", job.output)
        wait_until(lambda: postgres.execute("select 1 from pg_stat_activity where wait_event_type = 'Lock'"))
        other.execute(moved)  # It is done while the copy waits for its lease.
    _, said = copy.communicate(60)
    assert copy.returncode == 2
    assert "was copied by somebody else meanwhile" in said
    assert not (job.output / LEDGER).exists()


@dataclass
class Killed:
    """A copy that is begun again and killed, over and over."""

    job: object
    postgres: object
    way: tuple
    manifest: object
    kept: bytes  # The file of the source before any copy.

    @property
    def into_database(self):
        return self.way[1] == "database"

    def begin_again(self):
        """The source is as it was, and the target is not there."""
        self.postgres.execute(f"drop schema if exists {SCHEMA} cascade")
        for file in self.job.output.glob(f"{LEDGER}*"):
            file.unlink()
        (self.job.output / LEDGER).write_bytes(self.kept)
        if not self.into_database:
            shutil.rmtree(self.way[1], ignore_errors=True)
            assert in_database(self.job, "ledger", "copy", self.job.output, "database").returncode == 0

    def copy(self, **kill):
        stage = Stage(self.job)
        with set_to(self.job, self.job.database):
            stage.start("ledger", "copy", *self.way, **kill)
            return stage.end()

    def target(self, tables):
        """What the target holds; None if it is not there."""
        if not self.into_database:
            return in_folder(self.way[1]) if (self.way[1] / LEDGER).exists() else None
        made = self.postgres.execute(f"select to_regclass('{SCHEMA}.ledgers')")[0][0]
        there = made and self.postgres.execute(f"select id from {SCHEMA}.ledgers")
        return of_database(self.postgres, tables) if there else None

    def source_serves(self):
        """Whether a run would go on with the source."""
        if self.into_database:
            return self.job("plan", self.manifest, "--output", self.job.output).returncode == 0
        folder = self.job.folder / "a third" / "out"
        return in_database(self.job, "plan", self.manifest, "--output", folder).returncode == 0

    def repeat(self):
        """The same command again, once the lease of the killed one is over."""
        if self.postgres.execute(f"select to_regclass('{SCHEMA}.leases')")[0][0]:
            self.postgres.execute(f"update {SCHEMA}.leases set until = now()")
        return in_database(self.job, "ledger", "copy", *self.way)


@pytest.mark.parametrize("to", ["the database", "a folder"])
def test_a_copy_killed_at_any_moment_is_whole_or_not_there_and_repeated_it_is_finished(job, postgres, to):
    manifest = job.manifest(listing(5))
    job.run(manifest)
    tables = in_folder(job.output)
    back = job.folder / "back" / "out"
    way = (job.output, "database") if to == "the database" else ("database", back)
    copy = Killed(job, postgres, way, manifest, (job.output / LEDGER).read_bytes())
    copy.begin_again()
    met = copy.copy()["moments"]
    moments = [("a commit begins", n + 1) for n in range(met["a commit begins"])]
    moments += [("a commit is done", met["a commit is done"])]
    moments += [("a statement is run", n) for n in range(EVERY, met["a statement is run"], EVERY)]
    seen = set()
    for moment in moments:
        copy.begin_again()
        assert copy.copy(kill_at=moment)["code"] == -signal.SIGKILL, moment
        target, serves = copy.target(tables), copy.source_serves()
        assert target in (None, tables), moment
        assert not (target and serves), moment
        done = copy.repeat()
        assert (done.returncode, copy.target(tables)) == (0, tables), (moment, done.stderr)
        assert not copy.source_serves()
        seen.add((bool(target), serves))
    assert (False, True) in seen
    assert ((True, False) in seen) == copy.into_database  # A file gets its name after the last commit.
