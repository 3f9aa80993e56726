"""`recover seal`: a ledger with open pairs becomes one without a byte of them, whatever moment it is killed at."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from itertools import count

import pyrage
import pytest

from jobs.core.clock import utc_now
from jobs.core.model import Install, InstallKey, Level, Recovered, Route
from jobs.core.secret import Secret
from jobs.ledger.opening import LEDGER
from jobs.ledger.tables import VERSION
from jobs.ledger.unwritten import UNWRITTEN, set_aside
from jobs.sandbox.world import Place
from jobs.seal import seal as seal_pairs
from tests.helpers.homes import home_in_database
from tests.helpers.job import CLIENT_ID, PROJECT, Stage
from tests.helpers.leaks import leaks
from tests.helpers.lists import listing, of
from tests.helpers.made import opened, pair
from tests.helpers.waiting import wait_until

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
    return ran(play(dict(INSTALLS)), database)


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
    assert job.tokens
    return leaks(job.tokens, *everything(job, server))


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


def test_it_says_how_many_pairs_there_are_and_each_minute_how_many_are_sealed(play, identity):
    job = ran(play(dict(INSTALLS)))
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = str(identity.to_public())
    said, minutes = [], count(step=60)
    assert (
        seal_pairs(job.output, PROJECT, job.environment, None, str, said.append, said.append, lambda: next(minutes))
        == 0
    )
    assert said[:2] == [
        "the ledger has 4 pairs to seal; then it is written again, and so are the reports",
        "4 pairs are sealed so far",
    ]


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


def test_pairs_that_were_set_aside_are_sealed_before_the_ledger_takes_them_in(job, database, identity):
    known, strange = pair(), replace(pair(), refresh_token=Secret("of-a-stranger"))
    at = utc_now()
    install = {name: Install(InstallKey(CLIENT_ID, Level.SUB_ACCOUNT, name), "") for name in ("Loc2", "Loc9")}
    kept = [(install["Loc2"], known), (install["Loc9"], strange)]
    set_aside(job.output, job.sandbox.url, [(one, Recovered(tokens, Route.RECONNECT, 1, at)) for one, tokens in kept])
    done = seal(job, identity)
    assert done.returncode == 0, done.stderr
    assert "6 open pairs are sealed" in done.stdout
    left = b"".join(file.read_bytes() for file in job.output.iterdir())
    for tokens in (known, strange):
        assert tokens.refresh_token.reveal().encode() not in left
    assert in_cells(job, identity)["Loc2"] == known.refresh_token.reveal()
    assert "Loc9" in (job.output / UNWRITTEN).read_text()
    assert job.run(job.manifest(listing(["Loc9"]))).returncode == 0
    assert in_cells(job, identity)["Loc9"] == strange.refresh_token.reveal()
    assert not (job.output / UNWRITTEN).exists()


def test_a_sealed_ledger_takes_open_pairs_that_were_set_aside_after_they_are_sealed(job, identity):
    seal(job, identity)
    install = Install(InstallKey(CLIENT_ID, Level.SUB_ACCOUNT, "Loc2"), "")
    set_aside(job.output, job.sandbox.url, [(install, Recovered(pair(), Route.RECONNECT, 1, utc_now()))])
    refused = job.run(job.folder / "installs.csv")
    assert refused.returncode == 2
    assert f"run `recover seal {job.output}` first" in refused.stderr
    assert job("seal", job.output).returncode == 0
    assert in_cells(job, identity)["Loc2"] == pair().refresh_token.reveal()


def test_open_pairs_that_came_back_with_an_older_report_are_sealed_too(job, database, identity):
    older = (job.output / "results.csv").read_bytes()
    seal(job, identity)
    (job.output / "results.csv").write_bytes(older)
    done = job("seal", job.output)
    assert (done.returncode, FINISHED in done.stdout) == (0, True), done.stdout
    assert found(job, database) == []


@pytest.mark.parametrize("bogus", ["x", 5, "-----BEGIN AGE ENCRYPTED FILE-----"])
def test_a_row_that_says_that_it_is_open_and_sealed_ends_no_seal_and_no_open_pair_is_left(play, identity, bogus):
    job = ran(play(dict(INSTALLS)))
    (text,) = ask(job, None, "select tokens from installs where account_id = 'Loc0'")[0]
    planted = json.dumps({**json.loads(text), "sealed": bogus}).replace("'", "''")
    ask(job, None, f"update installs set tokens = '{planted}' where account_id = 'Loc0'")
    assert seal(job, identity).returncode == 0
    assert found(job, None) == []
    ours = json.loads(ask(job, None, "select tokens from installs where account_id = 'Loc0'")[0][0])
    assert ours["access_token"] == ""


class Killed:
    """A seal that is begun again and killed, over and over."""

    def __init__(self, job, server, identity):
        self.stage, self.job, self.server, self.identity = Stage(job), job, server, identity
        self.kept = self.job.folder / "kept"
        shutil.copytree(self.job.output, self.kept)
        if server:
            ask(self.job, server, "create table kept as select id, tokens from installs")

    def begin_again(self):
        """The ledger and the reports are as the run left them."""
        shutil.rmtree(self.job.output)
        shutil.copytree(self.kept, self.job.output)
        if self.server:
            ask(self.job, self.server, "update installs set tokens = kept.tokens from kept where kept.id = installs.id")
            ask(self.job, self.server, "delete from meta where name = 'sealing'")

    def seal(self, **kill):
        self.job.environment["RECOVERY_SEAL__RECIPIENTS"] = str(self.identity.to_public())
        self.stage.start("seal", self.job.output, **kill)
        ended = self.stage.end()
        if self.server:
            self.server.execute(f"delete from {SCHEMA}.leases")  # It would have run out.
        return ended

    def run_goes_on(self):
        """Whether a plan, which is refused as a run is, is made with recipients, and without."""
        manifest, recipient = self.job.folder / "installs.csv", self.job.environment["RECOVERY_SEAL__RECIPIENTS"]
        made = []
        for one in (recipient, "[]"):
            self.job.environment["RECOVERY_SEAL__RECIPIENTS"] = one
            made.append(self.job("plan", manifest, "--output", self.job.output).returncode == 0)
        return tuple(made)


@pytest.fixture
def killed(job, database, identity):
    made = Killed(job, database, identity)
    yield made
    if database:
        ask(job, database, "drop table kept")


def test_killed_at_any_moment_it_is_finished_by_the_next_and_no_run_mixes_pairs_meanwhile(killed, database):
    job = killed.job
    killed.begin_again()
    commits = killed.seal()["moments"]["a commit begins"]
    leases = 3 if database else 0  # Commits before it begins. The reports are files with either.
    moments = [("a commit begins", n) for n in range(leases + 1, commits + 1)] + [("a commit is done", commits)]
    moments += [] if database else [("a report is begun", 1), ("a report is moved into place", 1)]
    seen = set()
    for moment in moments:
        killed.begin_again()
        assert killed.seal(kill_at=moment)["code"] == -signal.SIGKILL, moment
        goes_on = killed.run_goes_on()
        assert goes_on != (True, True), moment
        seen.add(goes_on)
        assert killed.seal()["code"] == 0, (moment, killed.stage.said())
        assert found(job, database) == [], moment
        assert in_cells(job, killed.identity) == job.issued(), moment
    assert seen == {(False, True), (False, False), (True, False)}


def test_pairs_sealed_for_others_are_sealed_again_with_an_identity_that_opens_them(job, database, identity):
    new, file = pyrage.x25519.Identity.generate(), job.folder / "identity.txt"
    file.touch(0o600)
    file.write_text(str(identity))
    seal(job, identity)
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = str(new.to_public())
    job.sandbox.world.installs["Loc2"] = Place()
    assert job.run(job.folder / "installs.csv").returncode == 0  # It seals one pair for the new recipient.
    was, issued = without_tokens(job), job.issued()
    done = job("seal", job.output)
    assert done.returncode == 0, done.stderr
    assert f"4 pairs stay sealed for other recipients: `recover seal {job.output} --identity FILE`" in done.stdout
    done = job("seal", job.output, "--identity", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 pairs that were sealed for others are sealed again for SHA256:" in done.stdout
    assert (without_tokens(job), in_cells(job, new)) == (was, issued)
    with pytest.raises(pyrage.DecryptError):
        in_cells(job, identity)
    assert found(job, database) == []
    assert job("seal", job.output, "--identity", file).stdout.startswith("nothing to seal")


def test_a_pair_that_cannot_be_opened_is_named_and_stays_and_the_others_are_sealed_again(job, database, identity):
    new, file = pyrage.x25519.Identity.generate(), job.folder / "identity.txt"
    file.touch(0o600)
    file.write_text(str(identity))
    seal(job, identity)
    swapped = (
        "update installs set tokens = (select tokens from installs where account_id = 'Loc1') where account_id = 'Loc0'"
    )
    ask(job, database, swapped)
    was = ask(job, database, "select tokens from installs where account_id = 'Loc0'")
    done = seal(job, new, more=("--identity", file))
    assert done.returncode == 1
    why = "its pair stays as it was: it was sealed for another install (resource_id is another one)"
    assert f"Loc0 (client id {CLIENT_ID}): {why}" in done.stderr
    assert "1 pair could not be opened" in done.stdout
    assert ask(job, database, "select tokens from installs where account_id = 'Loc0'") == was
    assert json.loads(pyrage.decrypt(job.results()["Loc3"]["sealed"].encode(), [new]))["resource_id"] == "Loc3"
    assert job.run(job.folder / "installs.csv").returncode == 1


def test_without_recipients_it_seals_nothing(job, database):
    done = job("seal", job.output)
    assert done.returncode == 2
    assert "error: seal.recipients: is empty, so there is nobody to seal for" in done.stderr
    assert found(job, database)


def test_a_report_with_pairs_that_the_ledger_does_not_know_is_refused_before_anything_is_sealed(job, identity):
    results = job.output / "results.csv"
    kept = results.read_text().replace(job.results()["Loc0"]["refresh_token"], "of-somebody-else")
    results.write_text(kept)
    done = seal(job, identity)
    assert done.returncode == 2
    assert "holds tokens that the ledger beside it does not know" in done.stderr
    assert results.read_text() == kept
    results.unlink()
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = "[]"
    assert job("plan", job.folder / "installs.csv", "--output", job.output).returncode == 0


def test_while_a_run_has_the_folder_it_does_not_begin(play, database, identity):
    job = play(latency_seconds=0.05)
    if database:
        job.environment |= {"RECOVERY_LEDGER__URL": database.url, "RECOVERY_LEDGER__NAME": f"open {next(NUMBERS)}"}
    run = job.start("run", job.manifest(listing(40)), "--output", job.output, "--workers", 2)
    wait_until(lambda: len(job.sandbox.codes.issued) > 2)
    held = seal(job, identity)
    run.send_signal(signal.SIGTERM)
    run.communicate(60)
    assert held.returncode == 11, held.stderr
    assert seal(job, identity).returncode == 0


def test_open_pairs_elsewhere_in_the_folder_are_named(job, database, identity):
    (job.output / "opened.csv").write_text("whatever")
    if database:
        (job.output / LEDGER).touch()
    done = seal(job, identity)
    assert f"{job.output / 'opened.csv'} holds open pairs: remove it" in done.stdout


def test_a_ledger_of_an_earlier_version_is_sealed_too(job, database, identity):
    if database:
        ask(job, database, "drop view deliveries; drop table all_deliveries; update schema_version set version = 3")
    else:
        for statement in (
            "drop table deliveries",
            "drop table reported",
            "drop table spends",
            "pragma user_version = 1",
        ):
            ask(job, database, statement)
    assert seal(job, identity).returncode == 0
    assert found(job, database) == []
    assert in_cells(job, identity) == job.issued()
    version = "select version from schema_version" if database else "pragma user_version"
    assert ask(job, database, version) == [(VERSION,)]
    assert job.run(job.folder / "installs.csv").returncode == 1
