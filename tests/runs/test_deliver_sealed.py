"""Sealed pairs handed over to the app's own store: from memory in the run that gets them, later only with an identity."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing

import pyrage
import pytest

from jobs.sandbox.receiver import Receiver, receiving
from tests.helpers.identities import ENCRYPTED, PASSPHRASE, RECIPIENT
from tests.helpers.job import deliver_to_a_command
from tests.helpers.screen import terminal
from tests.helpers.waiting import wait_until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
IDS = [f"Loc{n:02}" for n in range(6)]
LIST = "location_id,plan\n" + "".join(f"{one},gold\n" for one in IDS)
DOWN = {"RECOVERY_DELIVER__ATTEMPTS": "1", "RECOVERY_DELIVER__GIVE_UP_AFTER": "1", "RECOVERY_DELIVER__WORKERS": "1"}


@pytest.fixture
def identity():
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def key(identity, tmp_path):
    """The file of the identity."""
    file = tmp_path / "key.txt"
    file.touch(0o600)
    file.write_text(f"{identity}\n")
    return file


@pytest.fixture(scope="module")
def server():
    with receiving(Receiver(SECRET)) as receiver:
        yield receiver


@pytest.fixture
def store(server):
    with server.lock, server.database:
        server.database.execute("DELETE FROM connections")
    server.refuses, server.seconds = frozenset(), 0.0
    server.seen.clear()
    server.answers.clear()
    return server


@pytest.fixture
def sealing(play, identity):
    """A job that seals."""
    job = play()
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = str(identity.to_public())
    return job


@pytest.fixture(params=["folder", "database"])
def job(sealing, store, request):
    """A job that seals, and hands over to `store`."""
    sealing.environment |= {"RECOVERY_DELIVER__URL": store.url, "RECOVERY_DELIVER__SECRET": SECRET}
    if request.param == "database":
        url = request.getfixturevalue("postgres").url
        sealing.environment |= {"RECOVERY_LEDGER__URL": url, "RECOVERY_LEDGER__NAME": request.node.name}
    return sealing


def access_tokens(job, identity):
    """The access token of each install, as the ledger's sealed pairs hold them."""
    sealed = {name: row["sealed"] for name, row in job.results().items() if row["sealed"]}
    opened = {name: json.loads(pyrage.decrypt(text.encode(), [identity])) for name, text in sealed.items()}
    return {name: pair["access_token"] for name, pair in opened.items()}


def states(job):
    return {row["delivery"] for row in job.results().values()}


@pytest.fixture
def left(job, store):
    """What a run left whose store was down: every pair waits."""
    store.answers.extend([503] * 100)
    job.environment |= DOWN
    done = job.run(job.manifest(LIST))
    assert done.returncode == 1, done.stderr
    assert states(job) == {"waiting"}
    store.answers.clear()
    store.seen.clear()
    for name in DOWN:
        del job.environment[name]
    return done


def test_the_run_that_gets_sealed_pairs_hands_them_over_from_memory(job, store, identity):
    done = job.run(job.manifest(LIST))
    assert done.returncode == 0, done.stderr
    assert store.stored() == access_tokens(job, identity)
    assert sorted(store.stored()) == IDS
    assert states(job) == {"delivered"}
    assert job("deliver", job.output).returncode == 0  # Nothing waits, so nothing has to be opened.
    for again in (("--id", IDS[0]), ("--all", "--yes")):
        assert job("deliver", job.output, *again).returncode == 2
    assert len(store.seen) == len(IDS)
    assert states(job) == {"delivered"}


def test_the_end_of_a_run_and_the_plan_say_what_hands_over_pairs_that_wait_sealed(left, job):
    assert "0 are delivered to your app (0 of them now), 6 wait" in left.stdout
    assert "a run with --identity FILE hands over what waits, and so does this command" in left.stdout
    assert f"deliver {job.output} --identity FILE" in left.stdout
    assert left.stdout.splitlines()[-2].endswith(f"--output {job.output} --identity FILE")
    assert job.summary()["counts"]["undelivered"] == 6
    planned = job("plan", job.manifest(LIST), "--output", job.output)
    assert "6 pairs wait to be delivered already, sealed: they need --identity FILE" in planned.stdout


def test_what_to_run_next_names_the_identity_that_was_given(sealing, store, key):
    sealing.environment |= DOWN | {"RECOVERY_DELIVER__URL": store.url, "RECOVERY_DELIVER__SECRET": SECRET}
    store.answers.extend([503] * 100)
    done = sealing.run(sealing.manifest(LIST), "--identity", key)
    assert f"a run with --identity {key} hands over what waits" in done.stdout
    again = sealing("deliver", sealing.output, "--identity", key)
    for said in (done.stdout, again.stdout):
        assert f" deliver {sealing.output} --identity {key}\n" in said
    assert f" open {sealing.output} --identity {key}\n" in done.stdout
    assert "FILE" not in done.stdout + again.stdout


def test_a_later_run_without_an_identity_leaves_sealed_pairs_waiting_and_never_sends_empty_ones(left, job, store):
    more = LIST + "LocNew,gold\n"
    again = job.run(job.manifest(more))
    assert again.returncode == 1, again.stderr
    assert [*store.stored()] == ["LocNew"]
    assert len(store.seen) == 1
    assert job.summary()["counts"]["undelivered"] == 6
    assert job.summary()["delivery"]["rested_because"] is None


def test_deliver_without_an_identity_is_refused_where_sealed_pairs_wait(left, job, store):
    for options in ((), ("--id", IDS[0]), ("--all", "--yes")):
        done = job("deliver", job.output, *options)
        assert done.returncode == 2
        assert (
            f"error: {job.output}: holds sealed pairs, which an identity must open before they are delivered: give --identity FILE"
            in done.stderr
        )
    assert store.seen == []
    assert states(job) == {"waiting"}
    assert job("deliver", job.output, "--test").returncode == 0


def test_deliver_with_an_identity_hands_over_what_waits_and_needs_no_secret_of_the_app(left, job, store, identity, key):
    del job.environment["HIGHLEVEL_CLIENT_SECRET"]
    done = job("deliver", job.output, "--identity", key)
    assert done.returncode == 0, done.stderr
    assert store.stored() == access_tokens(job, identity)
    assert str(identity) not in done.stdout + done.stderr
    again = job("deliver", job.output, "--identity", key, "--id", IDS[1])
    assert again.returncode == 0, again.stderr
    assert job("deliver", job.output, "--identity", key, "--all", "--yes").returncode == 0
    sent = [resource for *_, resource in store.seen]
    assert sorted(sent) == sorted([*IDS, IDS[1], *IDS])
    assert len({message for message, _, resource in store.seen if resource == IDS[1]}) == 1


def test_a_run_with_an_identity_hands_over_what_earlier_runs_left_and_what_it_gets(left, job, store, identity, key):
    sent = len(job.sandbox.seen)
    done = job.run(job.manifest(LIST + "LocNew,gold\n"), "--identity", key)
    assert done.returncode == 0, done.stderr
    assert store.stored() == access_tokens(job, identity)
    assert sorted(store.stored()) == [*IDS, "LocNew"]
    assert states(job) == {"delivered"}
    assert len(job.sandbox.seen) == sent + 2  # Nothing was minted for what waited.


def test_a_pair_that_the_identity_does_not_open_is_refused_by_name_and_waits_for_another(left, job, store, key):
    other = job.folder / "other.txt"
    other.touch(0o600)
    other.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    done = job("deliver", job.output, "--identity", other)
    assert done.returncode == 1, done.stderr
    assert states(job) == {"no: its sealed pair cannot be opened: no identity in --identity FILE opens it"}
    assert f"id={IDS[0]} message='its sealed pair cannot be opened" in done.stderr
    assert store.seen == []
    assert job("deliver", job.output, "--identity", key).returncode == 0
    assert sorted(store.stored()) == IDS


def test_killed_between_the_commit_and_the_delivery_sealed_pairs_are_handed_over_by_deliver(job, store, identity, key):
    job.environment |= {"RECOVERY_DELIVER__WORKERS": "1", "RECOVERY_LEDGER__LEASE_SECONDS": "3"}
    store.seconds = 2.0
    process = job.start("run", job.manifest(LIST), "--output", job.output, "--workers", "1")
    wait_until(lambda: store.seen and len(job.issued()) == len(IDS))
    process.kill()
    process.communicate()
    assert len(store.seen) == 1
    store.seconds = 0.0
    done = job("deliver", job.output, "--identity", key)
    while done.returncode == 11:  # The lease of the killed run has not run out yet.
        done = job("deliver", job.output, "--identity", key)
    assert done.returncode == 0, done.stderr
    known = access_tokens(job, identity)
    assert len(known) >= len(IDS) - 2
    assert store.stored() == known


def test_deliver_asks_for_the_passphrase_of_an_identity_on_the_terminal(sealing, store, tmp_path):
    sealing.environment |= DOWN | {"RECOVERY_DELIVER__URL": store.url, "RECOVERY_DELIVER__SECRET": SECRET}
    sealing.environment["RECOVERY_SEAL__RECIPIENTS"] = RECIPIENT
    store.answers.append(503)
    assert sealing.run(sealing.manifest(LIST)).returncode == 1
    key = tmp_path / "locked.age"
    key.write_text(ENCRYPTED)
    with terminal(sealing, "deliver", sealing.output, "--identity", key, columns=200) as screen:
        screen.read(until=lambda text: f"passphrase of {key}: " in text)
        screen.type(f"{PASSPHRASE}\n".encode())
        code, text = screen.end()
    assert code == 0, text
    assert PASSPHRASE not in text
    assert sorted(store.stored()) == IDS


def test_a_command_gets_sealed_pairs_in_the_run_and_later(sealing, key):
    ends = [sys.executable, "-c", "raise SystemExit(3)"]
    kept = deliver_to_a_command(sealing)
    assert sealing.run(sealing.manifest(LIST)).returncode == 0
    sealing.environment["RECOVERY_DELIVER__COMMAND"] = json.dumps(ends)
    assert sealing.run(sealing.manifest(LIST), "--force").returncode == 1
    deliver_to_a_command(sealing)
    assert sealing("deliver", sealing.output, "--identity", key).returncode == 0
    given = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [pair["location_id"] for pair in given].count(IDS[0]) == 2
    assert {pair["location_id"]: pair["refresh_token"] for pair in given} == sealing.issued()


def test_a_database_gets_sealed_pairs_in_the_run_and_later(sealing, key):
    file = sealing.folder / "app.db"
    with closing(sqlite3.connect(file)) as app:
        app.execute("create table installs (id text primary key, token text)")
        app.executemany("insert into installs (id) values (?)", [(account,) for account in IDS[:4]])
        app.commit()
        sealing.environment |= {
            "RECOVERY_DELIVER__DATABASE_URL": f"sqlite:///{file}",
            "RECOVERY_DELIVER__SQL": "update installs set token = :refresh_token where id = :location_id",
        }
        assert sealing.run(sealing.manifest(LIST)).returncode == 1
        app.executemany("insert into installs (id) values (?)", [(account,) for account in IDS[4:]])
        app.commit()
        assert sealing("deliver", sealing.output, "--identity", key).returncode == 0
        assert dict(app.execute("select id, token from installs")) == sealing.issued()
