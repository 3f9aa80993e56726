"""Whole runs over connections that are kept, as in production; and what comes of it where the server closes them."""

from __future__ import annotations

from jobs.sandbox.world import Place
from tests.helpers.lists import listing, listing_of_pairs, of

WORKERS = 3
LOCATIONS = [f"Loc{number:02}" for number in range(24)]


def test_a_run_opens_a_connection_for_each_worker_and_reuses_it(play):
    job = play({"Loc02": Place("not_installed"), "Loc05": Place("server_error", heals_after=1)})
    assert job.run(job.manifest(listing(LOCATIONS)), "--workers", WORKERS).returncode == 1
    assert len(job.sandbox.seen) >= 2 * len(LOCATIONS)
    assert len(job.sandbox.connections) <= WORKERS


def test_only_a_refresh_token_gets_a_connection_of_its_own(play):
    job = play(of(*LOCATIONS), reconnect_removed=True)
    rows = [(location, "", "", job.sandbox.old_pair(location)["refresh_token"]) for location in LOCATIONS]
    ended = job.run(job.manifest(listing_of_pairs(*rows)), "--routes", "reconnect,refresh", "--workers", WORKERS)
    assert ended.returncode == 0, ended.stderr
    spends = [seen for seen in job.sandbox.seen if seen.call == "refresh"]
    assert len(spends) == len(LOCATIONS)
    assert len(spends) <= len(job.sandbox.connections) <= len(spends) + WORKERS


def test_a_night_of_faults_opens_new_connections_only_for_those_that_were_lost(play):
    job = play(faults={"server_error": 0.05, "drop_after": 0.05}, seed=3)
    ended = job.run(job.manifest(listing(60)), "--workers", WORKERS)
    assert ended.returncode == 0, ended.stderr
    lost = [seen.status for seen in job.sandbox.seen].count(0)
    assert lost > 1
    # The second exchange of a lost code has a connection of its own.
    assert lost < len(job.sandbox.connections) <= WORKERS + 2 * lost


def test_a_run_that_is_killed_and_the_one_after_it_reuse_their_connections(stage):
    job = stage.job
    moment = ("a reconnect was answered, its code leaves", 12)
    assert stage.run(job.manifest(listing(LOCATIONS)), job.output, kill_at=moment)["code"] == -9
    assert len(job.sandbox.connections) <= WORKERS  # as many as the stage starts
    assert stage.run(job.manifest(listing(LOCATIONS)), job.output)["code"] == 0
    assert len(job.sandbox.connections) <= 2 * WORKERS
    assert len(job.sandbox.seen) >= 2 * len(LOCATIONS)


def test_a_connection_that_the_server_closed_while_it_idled_costs_no_try(play):
    job = play({"Loc01": Place("server_error", heals_after=1)}, keep_alive_seconds=0.5)
    job.environment |= {"RECOVERY_RETRY__MIN_WAIT_SECONDS": "1.5", "RECOVERY_RETRY__MAX_WAIT_SECONDS": "2"}
    ended = job.run(job.manifest(listing(LOCATIONS[:3])), "--workers", "1")
    assert ended.returncode == 0, ended.stderr
    assert (len(job.sandbox.seen), len(job.sandbox.connections)) == (7, 2)
    assert {row["attempts"] for row in job.results().values()} == {"1", "2"}


def test_kept_connections_that_die_without_a_byte_of_the_answer_cost_no_try(play):
    job = play({"Loc03": Place("drop_before", heals_after=1), "Loc07": Place("drop_after", heals_after=1)})
    job.environment["RECOVERY_RETRY__ATTEMPTS"] = "1"
    ended = job.run(job.manifest(listing(LOCATIONS)), "--workers", "1")
    assert ended.returncode == 0, ended.stderr
    assert [seen.status for seen in job.sandbox.seen].count(0) == 2
    assert len(job.sandbox.connections) == 4  # The second exchange of a lost code has one of its own.
    assert job.sandbox.codes_sent_twice == []
    assert {row["attempts"] for row in job.results().values()} == {"1"}


def test_a_connection_that_dies_each_time_is_a_failure_of_that_install_alone(play):
    job = play({"Loc03": Place("drop_before")})
    assert job.run(job.manifest(listing(LOCATIONS)), "--workers", "1").returncode == 1
    assert {account: row["cause"] for account, row in job.failures().items()} == {"Loc03": "network_error"}
