"""Whole runs whose database is lost: it stops, hangs, goes back, fills up or refuses, at every moment that has a name.

Whatever happens, the next run holds every pair that was issued, no code was sent twice, and nobody sees a traceback.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import replace
from itertools import count
from subprocess import CompletedProcess

import pytest
from sqlalchemy.engine import make_url

from jobs.sandbox.receiver import Receiver, receiving
from tests.helpers.lists import listing
from tests.helpers.postgres import PASSWORD
from tests.helpers.waiting import line_with, wait_until

INSTALLS = 12
NUMBERS = count()
# A run has some hundred packets to and from its database. Each of them was tried by hand.
CUTS = (1, 20, 47, 75, 110)


@pytest.fixture
def job(play, way, request):
    job = play()
    job.environment |= {
        "RECOVERY_LEDGER__URL": way.url,
        "RECOVERY_LEDGER__NAME": request.node.name[:100],
        "RECOVERY_LEDGER__LEASE_SECONDS": "3",
        "RECOVERY_LEDGER__PATIENCE_SECONDS": "20",
    }
    return job


def no_traceback(done):
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert done.returncode != 70
    assert "pass-word" not in done.stdout + done.stderr
    return done


def next_run(job, manifest):
    """The run after it, as soon as nobody holds the lease any more."""
    done = no_traceback(job.run(manifest))
    while done.returncode == 11:
        done = no_traceback(job.run(manifest))
    return done


def nothing_is_lost(job, manifest, installs=INSTALLS):
    """The next run has every install back, by the newest pair that was issued for it."""
    job.sandbox.world = replace(job.sandbox.world, latency_seconds=0)
    done = next_run(job, manifest)
    assert done.returncode == 0, done.stdout + done.stderr
    stored = {account: row["refresh_token"] for account, row in job.results().items()}
    assert stored == job.issued()
    assert len(stored) == installs
    assert len(job.sandbox.codes.issued) == installs, "a pair was minted twice"
    assert job.sandbox.codes_sent_twice == []
    assert not (job.output / "unwritten.jsonl").exists()


@pytest.mark.parametrize("packet", CUTS)
def test_a_connection_that_is_cut_at_any_packet_costs_nothing(job, way, packet):
    manifest = job.manifest(listing(INSTALLS))
    way.cut_at = {packet}
    done = no_traceback(job.run(manifest))
    assert way.packets >= packet
    assert done.returncode in {0, 2}, done.stdout + done.stderr
    assert done.returncode == 0 or not job.sandbox.seen
    way.heal()
    nothing_is_lost(job, manifest)


@pytest.mark.parametrize("number", [1, 5])
def test_an_answer_to_commit_that_is_lost_costs_nothing(job, way, number):
    manifest = job.manifest(listing(INSTALLS))
    way.lost_commits = {number}
    done = no_traceback(job.run(manifest))
    assert done.returncode in {0, 2}, done.stdout + done.stderr
    way.heal()
    nothing_is_lost(job, manifest)
    assert {row["attempts"] for row in job.results().values()} == {"1"}


@pytest.mark.parametrize("packet", [2, 40, 100])
def test_a_server_that_stops_at_any_packet_and_comes_back_costs_nothing(job, way, own_postgres, packet):
    manifest = job.manifest(listing(INSTALLS))

    def restart():
        own_postgres.stop()
        own_postgres.start()

    way.acts[packet] = restart
    done = no_traceback(job.run(manifest))
    assert not way.acts
    assert done.returncode in {0, 2}, done.stdout + done.stderr
    nothing_is_lost(job, manifest)


def under_way(job, patience, installs=INSTALLS):
    """A run whose requests are on their way, each for half a second."""
    job.environment["RECOVERY_LEDGER__PATIENCE_SECONDS"] = str(patience)
    job.sandbox.world = replace(job.sandbox.world, latency_seconds=0.05)
    run = job.start("run", job.manifest(listing(installs)), "--output", job.output, "--workers", "3")
    wait_until(lambda: len(job.sandbox.codes.issued) >= 3)
    job.slow_down(0.5)
    return run


def stored(own_postgres):
    """How many pairs the server holds."""
    return own_postgres.execute("select count(*) from highlevel_recovery.all_pairs")[0][0]


def forget_leases(own_postgres):
    """Else the next run begins ten seconds after their end, since what was sent last is not known."""
    own_postgres.execute("delete from highlevel_recovery.leases")


def ended(run):
    out, err = run.communicate(60)
    return no_traceback(CompletedProcess([], run.returncode, out, err))


def test_nothing_is_sent_while_the_database_is_away_and_the_run_goes_on_when_it_is_back(job, own_postgres):
    run = under_way(job, patience=30)
    own_postgres.stop()
    line_with("waiting for the database", run.stderr)
    sent = job.arrived()
    own_postgres.start()
    assert sent < 2 * INSTALLS
    assert job.arrived() == sent
    done = ended(run)
    assert done.returncode == 0, done.stdout + done.stderr
    nothing_is_lost(job, job.folder / "installs.csv")


def test_a_database_that_is_away_for_too_long_leaves_what_was_in_flight_beside_the_reports(job, own_postgres):
    run = under_way(job, patience=1)
    own_postgres.stop()
    done = ended(run)
    own_postgres.start()
    forget_leases(own_postgres)
    aside = job.output / "unwritten.jsonl"
    assert done.returncode == 3, done.stdout + done.stderr
    assert (
        f"new pairs are in {aside}: the next run on that folder takes them in; in a container, copy that file"
        in done.stdout
    )
    summary = job.summary()
    assert (summary["exit_code"], summary["stopped_because"]) == (3, "ledger")
    assert aside.stat().st_mode & 0o777 == 0o600
    nothing_is_lost(job, job.folder / "installs.csv")


def test_a_signal_while_the_database_is_away_keeps_its_code_and_what_was_in_flight(job, own_postgres):
    run = under_way(job, patience=600)
    own_postgres.stop()
    line_with("waiting for the database", run.stderr)
    run.send_signal(signal.SIGTERM)
    done = ended(run)
    own_postgres.start()
    forget_leases(own_postgres)
    assert done.returncode == 143, done.stdout + done.stderr
    assert f"new pairs are in {job.output / 'unwritten.jsonl'}" in done.stdout
    assert job.summary()["stopped_because"] == "signal"
    nothing_is_lost(job, job.folder / "installs.csv")


def test_a_server_that_hangs_is_waited_for(job, own_postgres):
    run = under_way(job, patience=30)
    with own_postgres.frozen():
        line_with("waiting for the database", run.stderr)
    done = ended(run)
    assert done.returncode == 0, done.stdout + done.stderr
    nothing_is_lost(job, job.folder / "installs.csv")


def test_a_signal_while_the_server_hangs_ends_the_run(job, own_postgres):
    run = under_way(job, patience=600)
    with own_postgres.frozen():
        line_with("waiting for the database", run.stderr)
        run.send_signal(signal.SIGTERM)
        done = ended(run)
    assert done.returncode == 143, done.stdout + done.stderr
    forget_leases(own_postgres)
    nothing_is_lost(job, job.folder / "installs.csv")


def test_reports_that_an_earlier_run_left_are_named_as_older(job, own_postgres):
    job.run(job.manifest(listing(2)))
    run = under_way(job, patience=1)
    own_postgres.stop()
    done = ended(run)
    own_postgres.start()
    forget_leases(own_postgres)
    assert "results.csv, failures.csv, failures.html, failures.xlsx may be older than this run" in done.stdout
    assert f"then run `recover report {job.output}`" in done.stdout


def test_a_failover_to_a_copy_that_is_a_second_behind_loses_no_pair(job, own_postgres):
    run = under_way(job, patience=30, installs=30)
    own_postgres.copy()
    known = stored(own_postgres)
    wait_until(lambda: stored(own_postgres) >= known + 3)
    own_postgres.fail_over()
    done = ended(run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the database went back to an older state" in done.stderr
    nothing_is_lost(job, job.folder / "installs.csv", installs=30)


@pytest.fixture
def role(own_postgres, job):
    """The user of the job, who owns a schema and has no other rights."""
    name = f"job{next(NUMBERS)}"
    own_postgres.execute(
        f"create role {name} login password '{PASSWORD}'", f"create schema {name} authorization {name}"
    )
    job.environment |= {
        "RECOVERY_LEDGER__URL": make_url(own_postgres.url).set(username=name).render_as_string(hide_password=False),
        "RECOVERY_LEDGER__SCHEMA": name,
    }
    return name


@pytest.fixture
def read_only(own_postgres):
    """Lets the server only read, until it is undone."""

    def reads(value):
        own_postgres.execute(f"alter system set default_transaction_read_only = {value}", "select pg_reload_conf()")

    yield reads
    own_postgres.execute("set default_transaction_read_only = off", "alter system reset all", "select pg_reload_conf()")


def test_a_server_that_only_reads_is_waited_for(job, read_only):
    run = under_way(job, patience=30)
    read_only("on")
    assert "read-only transaction" in line_with("waiting for the database", run.stderr)
    read_only("off")
    done = ended(run)
    assert done.returncode == 0, done.stdout + done.stderr
    nothing_is_lost(job, job.folder / "installs.csv")


@pytest.mark.parametrize(
    ("change", "back", "todo"),
    [
        ("connection limit 1", "connection limit -1", "end other connections"),
        ("valid until 'yesterday'", "valid until 'infinity'", "renew the user's password"),
    ],
)
def test_a_user_who_may_not_connect_any_more_stops_the_run_with_what_to_do(job, own_postgres, role, change, back, todo):
    run = under_way(job, patience=1)
    own_postgres.execute(f"alter role {role} {change}")
    job.sandbox.world = replace(job.sandbox.world, latency_seconds=2)
    done = ended(run)
    own_postgres.execute(f"alter role {role} {back}", f"delete from {role}.leases")
    assert done.returncode == 3, done.stdout + done.stderr
    assert job.summary()["stopped_because"] == "ledger"
    assert todo in done.stdout
    nothing_is_lost(job, job.folder / "installs.csv")


def test_a_user_without_a_second_connection_is_refused_at_the_start(job, own_postgres, role):
    own_postgres.execute(f"alter role {role} connection limit 1")
    done = no_traceback(job.run(job.manifest(listing(2))))
    assert done.returncode == 2
    assert "too many connections" in done.stderr
    assert job.sandbox.seen == []


def test_a_user_with_two_connections_has_enough_for_any_number_of_workers(job, own_postgres, role):
    own_postgres.execute(f"alter role {role} connection limit 2")
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    with receiving(Receiver(secret)) as store:
        job.environment |= {"RECOVERY_DELIVER__URL": store.url, "RECOVERY_DELIVER__SECRET": secret}
        done = no_traceback(job.run(job.manifest(listing(40)), "--workers", 8))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "waiting for the database" not in done.stderr
    assert len({resource for _, _, resource in store.seen}) == 40


@pytest.mark.parametrize("command", ["deliver", "purge", "report"])
def test_a_command_on_a_database_that_is_away_is_one_line(job, own_postgres, command):
    job.environment["RECOVERY_DELIVER__COMMAND"] = '["cat"]'
    job.run(job.manifest(listing(2)))
    own_postgres.stop()
    done = no_traceback(job(command, job.output))
    own_postgres.start()
    assert done.returncode == 2
    assert done.stderr.startswith("error: postgresql, socket ")
    assert len(done.stderr.splitlines()) == 2


def test_a_pair_that_was_taken_while_the_database_went_is_handed_over_again_by_the_same_id(job, own_postgres):
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    with receiving(Receiver(secret)) as store:
        job.environment |= {"RECOVERY_DELIVER__URL": store.url, "RECOVERY_DELIVER__SECRET": secret}
        run = under_way(job, patience=1)
        wait_until(lambda: store.seen)
        own_postgres.stop()
        done = ended(run)
        own_postgres.start()
        forget_leases(own_postgres)
        assert done.returncode == 3, done.stdout + done.stderr
        nothing_is_lost(job, job.folder / "installs.csv")
        ids = {(message, resource) for message, _, resource in store.seen}
        assert sorted(resource for _, resource in ids) == sorted(job.issued())
        assert {row["delivery"] for row in job.results().values()} == {"delivered"}


def test_a_way_that_drops_everything_is_known_and_the_run_goes_on_when_it_is_open_again(job, way):
    run = under_way(job, patience=30)
    way.drops = True
    line_with("waiting for the database", run.stderr)
    way.heal()
    done = ended(run)
    assert done.returncode == 0, done.stdout + done.stderr
    nothing_is_lost(job, job.folder / "installs.csv")


@pytest.fixture
def small_disk(own_postgres, role):
    """Where the server keeps the job's tables: a disk of four megabytes of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a disk of a few megabytes")
    folder = own_postgres.folder / f"disk of {role}"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "small", folder], check=True)
    try:
        shutil.chown(folder, own_postgres.user)
        own_postgres.execute(
            f"create tablespace of_{role} location '{folder}'",
            f"grant create on tablespace of_{role} to {role}",
            f"alter role {role} set default_tablespace = of_{role}",
        )
        yield folder
    finally:
        own_postgres.execute(f"drop schema {role} cascade", "checkpoint", f"drop tablespace of_{role}")
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_server_whose_disk_is_full_is_waited_for(job, small_disk):
    run = under_way(job, patience=60, installs=200)
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(1 << 12))
    line = line_with("waiting for the database", run.stderr)
    assert "No space left on device" in line
    (small_disk / "filler").unlink()
    job.sandbox.world = replace(job.sandbox.world, latency_seconds=0)
    done = ended(run)
    assert done.returncode == 0, done.stdout + done.stderr
    nothing_is_lost(job, job.folder / "installs.csv", 200)


def test_even_tables_that_are_not_as_they_were_leave_every_pair_beside_the_reports(job, own_postgres):
    run = under_way(job, patience=1)
    view = "alter view highlevel_recovery.pairs rename column"
    own_postgres.execute(f"{view} fingerprint to other")
    run.communicate(60)
    assert run.returncode == 70
    own_postgres.execute(f"{view} other to fingerprint")
    assert (job.output / "unwritten.jsonl").exists()
    nothing_is_lost(job, job.folder / "installs.csv")


@pytest.mark.parametrize("packet", [4, 70])
def test_a_server_that_hangs_at_any_packet_for_good_ends_the_run_and_costs_nothing(job, way, own_postgres, packet):
    job.environment["RECOVERY_LEDGER__PATIENCE_SECONDS"] = "1"
    manifest = job.manifest(listing(INSTALLS))
    way.acts[packet] = lambda: setattr(way, "drops", True)
    done = no_traceback(job.run(manifest))
    assert done.returncode in {2, 3}, done.stdout + done.stderr
    way.heal()
    if own_postgres.execute("select to_regclass('highlevel_recovery.leases')")[0][0]:
        forget_leases(own_postgres)
    nothing_is_lost(job, manifest)


@pytest.mark.parametrize(("sent", "code"), [(None, 3), (signal.SIGTERM, 143)])
def test_a_delivery_whose_database_goes_away_does_not_say_that_nothing_was_sent(job, own_postgres, sent, code):
    done = job.run(job.manifest(listing(INSTALLS)))
    assert done.returncode == 0, done.stderr
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    with receiving(Receiver(secret, seconds=0.5)) as store:
        job.environment |= {"RECOVERY_DELIVER__URL": store.url, "RECOVERY_DELIVER__SECRET": secret}
        job.environment["RECOVERY_LEDGER__PATIENCE_SECONDS"] = "600" if sent else "1"
        command = job.start("deliver", job.output, "--all", "--yes")
        wait_until(lambda: store.seen)
        own_postgres.stop()
        if sent:
            line_with("waiting for the database", command.stderr)
            command.send_signal(sent)
        done = ended(command)
    own_postgres.start()
    assert done.returncode == code, done.stdout + done.stderr
    assert "see that it is up and reachable\nexit " in done.stderr
