"""Two machines, one database: one of them works, the other one says who does, and none sends without its leases."""

from __future__ import annotations

import json
import re
import signal
import socket
from bisect import bisect_right
from dataclasses import replace
from itertools import count, pairwise

import pytest
from sqlalchemy import make_url

from jobs.sandbox.receiver import Receiver, receiving
from jobs.sandbox.world import Limit, Place
from tests.helpers.job import CLIENT_ID
from tests.helpers.lists import listing, listing_of_pairs
from tests.helpers.waiting import line_with, wait_until

SCHEMAS = (f"schema_{number}" for number in count())
MANY = 3_000
WRITES = "select 1 from pg_stat_activity where state <> 'idle' and pid <> pg_backend_pid()"


@pytest.fixture
def machines(play, postgres):
    """`machines(**world)` gives a job on each of two machines, which share nothing but the database."""

    def start(installs=None, **world):
        job = play(installs, **world)
        schema = next(SCHEMAS)

        def machine(name):
            folder = job.folder / name
            folder.mkdir()
            own = {
                "RECOVERY_LEDGER__URL": postgres.url,
                "RECOVERY_LEDGER__SCHEMA": schema,
                "RECOVERY_LEDGER__LEASE_SECONDS": "3",
                "XDG_STATE_HOME": str(folder / "state"),
            }
            return replace(job, folder=folder, environment=job.environment | own)

        return machine("here"), machine("there")

    return start


def begun(job, *arguments, manifest=None):
    """A run under way, once it has sent something."""
    before = job.arrived()
    manifest = manifest or job.manifest(listing(MANY, width=4))
    run = job.start("run", manifest, "--output", job.output, *arguments)
    wait_until(lambda: job.arrived() > before or run.poll() is not None)
    return run


def lease(postgres, job, columns, client_id=CLIENT_ID):
    schema = job.environment["RECOVERY_LEDGER__SCHEMA"]
    return postgres.execute(f"select {columns} from {schema}.leases where client_id = '{client_id}'")[0]


def pairs(postgres, job):
    """The refresh tokens that the database holds, by account."""
    schema = job.environment["RECOVERY_LEDGER__SCHEMA"]
    rows = postgres.execute(f"select account_id, tokens from {schema}.all_installs where tokens is not null")
    return {account: json.loads(tokens)["refresh_token"] for account, tokens in rows}


def who(job):
    done = job("ledger", "who")
    assert done.returncode == 0, done.stderr
    return done.stdout


def place(job):
    """The database and the schema of a job, as the job calls them."""
    folder = make_url(job.environment["RECOVERY_LEDGER__URL"]).query["host"]
    return f"postgresql, socket {folder}, database postgres, schema {job.environment['RECOVERY_LEDGER__SCHEMA']}"


def nobody(job):
    """What `who` says if nobody holds a lease in the schema."""
    return f"nobody holds a lease in {place(job)}\n"


def nothing_to_release(job, ledger, url=None):
    """What `release` says if nobody holds a lease that it may break: which ones these are, and what shows all."""
    whose = f"a lease of the configured apps, or of {ledger}, at {url or job.sandbox.url}"
    return f"nobody holds {whose}; `recover ledger who` shows all leases in {place(job)}\n"


def end(run, number=signal.SIGTERM):
    run.send_signal(number)
    return run.communicate(60)


@pytest.mark.parametrize(("name", "what"), [("out", "the ledger out"), ("another", f"the app {CLIENT_ID}")])
def test_a_second_run_ends_with_11_and_says_who_holds_it_since_when_and_until_when(machines, name, what):
    here, there = machines(latency_seconds=0.05)
    there.environment["RECOVERY_LEDGER__NAME"] = name
    run = begun(here)
    done = there.run(there.manifest(listing(3)))
    end(run)
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    holder = f"process {run.pid} on {re.escape(socket.gethostname())} \\(the run on {here.folder}/installs.csv\\)"
    assert done.returncode == 11
    line = f"{what}: has been held by {holder} since {moment}, until {moment} unless it is renewed: wait for its end"
    assert re.match(f"error: {line}", done.stderr), done.stderr
    assert not there.output.joinpath("results.csv").exists()


def test_the_same_app_of_another_api_is_not_held(machines, play):
    here, there = machines(latency_seconds=0.05)
    there.environment |= {"HIGHLEVEL_BASE_URL": play().sandbox.url, "RECOVERY_LEDGER__NAME": "of another API"}
    run = begun(here)
    done = there.run(there.manifest(listing(3)))
    end(run)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("moment", ["normal end", "first signal", "second signal"])
def test_a_run_gives_its_leases_back(machines, moment):
    here, there = machines()
    if moment == "normal end":
        assert here.run(here.manifest(listing(3))).returncode == 0
    else:
        run = begun(here)
        here.slow_down(2 if moment == "second signal" else 0.2)
        run.terminate()
        if moment == "second signal":
            line_with("stopping", run.stderr)
            run.terminate()
        run.communicate(60)
        assert run.returncode == 143
        assert here.summary()["exit_code"] == 143
    assert who(there) == nobody(there)


def test_a_check_and_a_list_of_an_agency_take_the_lease_of_the_app_too(machines):
    here, there = machines({"Loc0": Place(company_id="CoA")}, latency_seconds=0.05)
    there.environment["HIGHLEVEL_AGENCY_ACCESS_TOKEN"] = here.sandbox.old_pair("CoA", "Company")["access_token"]
    dump = there.manifest(listing_of_pairs(("Loc0", "CoA", here.sandbox.old_pair("Loc0")["access_token"], "")), "d.csv")
    calls = [("check", dump), ("discover", "--company", "CoA", "--output", there.folder / "found.csv")]
    run = begun(here)
    sent = len(there.calls("proof")) + len(there.calls("installed_locations"))
    for call in calls:
        done = there(*call)
        assert done.returncode == 11, done.stderr
        assert "(the run on " in done.stderr
    assert len(there.calls("proof")) + len(there.calls("installed_locations")) == sent
    end(run)
    for call in calls:
        done = there(*call)
        assert done.returncode == 0, done.stderr
        assert who(here) == nobody(here)


@pytest.mark.parametrize("number", [1, 2], ids=["first signal", "second signal"])
def test_a_check_that_a_signal_ends_gives_its_lease_back(machines, number):
    here, there = machines(latency_seconds=1)
    pairs = [(f"Loc{n}", "", here.sandbox.old_pair(f"Loc{n}")["access_token"], "") for n in range(30)]
    here.environment["RECOVERY_PACE__WORKERS"] = "1"
    run = here.start("check", here.manifest(listing_of_pairs(*pairs), "d.csv"))
    wait_until(here.arrived)
    assert "recover check on " in who(there)
    run.terminate()
    if number == 2:
        line_with("stopping", run.stderr)
        run.terminate()
    run.communicate(60)
    assert run.returncode == 143
    assert who(there) == nobody(there)


def test_a_delivery_takes_the_lease_of_the_ledger_alone(machines):
    with receiving(Receiver("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")) as store:
        here, there = machines(latency_seconds=0.05)
        target = {"RECOVERY_DELIVER__URL": store.url, "RECOVERY_DELIVER__SECRET": store.secret}
        assert here.run(here.manifest(listing(2))).returncode == 0
        run = begun(here, "--force")
        there.environment |= target
        done = there("deliver", there.output)
        assert done.returncode == 11
        assert f"the ledger {there.output.name}: has been held by" in done.stderr
        end(run)
        assert there("deliver", there.output).returncode == 0
        assert len(store.seen) >= 2
    assert who(here) == nobody(here)


def test_a_delivery_whose_lease_is_lost_hands_over_no_more_and_ends_with_3(machines):
    with receiving(Receiver("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", seconds=0.2)) as store:
        here, there = machines()
        here.environment |= {"RECOVERY_DELIVER__WORKERS": "1"}
        assert here.run(here.manifest(listing(40))).returncode == 0
        here.environment |= {"RECOVERY_DELIVER__URL": store.url, "RECOVERY_DELIVER__SECRET": store.secret}
        delivery = here.start("deliver", here.output)
        wait_until(lambda: len(store.seen) >= 2)
        assert there("ledger", "release", "--yes").returncode == 0
        out, err = delivery.communicate(60)
        assert delivery.returncode == 3, out + err
        assert "another run took this one's lease" in err
        assert "Traceback" not in out + err
        assert len(store.seen) < 20
        del here.environment["RECOVERY_DELIVER__WORKERS"]
        store.seconds = 0.0
        assert here("deliver", here.output).returncode == 0
        assert {resource for _, _, resource in store.seen} == {*here.issued()}


def test_a_check_whose_lease_is_lost_asks_no_more_and_ends_with_3(machines):
    here, there = machines(latency_seconds=0.1)
    ids = [f"Loc{number:03}" for number in range(400)]
    dump = listing_of_pairs(*((one, "", here.sandbox.old_pair(one)["access_token"], "") for one in ids))
    check = here.start("check", here.manifest(dump, "d.csv"), "--rate", "20")
    wait_until(lambda: here.arrived() > 3)
    assert there("ledger", "release", "--yes").returncode == 0
    out, err = check.communicate(60)
    assert check.returncode == 3, out + err
    assert "another run took this one's lease" in out
    assert here.arrived() < 100


def test_a_hold_of_the_server_goes_on_on_the_other_machine(machines):
    here, there = machines(limit=Limit(6, 3, "seconds"))
    manifest = listing(8)
    run = begun(here, "--workers", 1, manifest=here.manifest(manifest))
    wait_until(lambda: any(seen.status == 429 for seen in here.sandbox.seen))
    end(run)
    refused = next(seen for seen in here.sandbox.seen if seen.status == 429)
    sent = len(here.sandbox.seen)
    done = there.run(there.manifest(manifest))
    assert done.returncode == 0, done.stderr
    assert "held_back" in done.stderr
    assert min(seen.at for seen in here.sandbox.seen[sent:]) - refused.at >= 2.9


def test_the_next_run_takes_over_from_a_killed_one_by_itself_when_its_lease_has_run_out(machines, postgres):
    here, there = machines(latency_seconds=0.02)
    run = begun(here, "--workers", 3)
    wait_until(lambda: len(pairs(postgres, here)) >= 20)
    run.kill()
    run.communicate(60)
    ends, now, epoch = lease(postgres, here, "until, clock_timestamp(), epoch")
    assert (now < ends, epoch) == (True, 1)
    manifest, sent, refused = there.manifest(listing(40, width=4)), here.arrived(), 0
    next_run = there.run(manifest)
    while next_run.returncode == 11:
        refused += 1
        next_run = there.run(manifest)
    assert refused
    assert next_run.returncode == 0, next_run.stderr
    assert lease(postgres, here, "epoch")[0] == 2
    # What the killed run may have sent last counts for ten seconds, from the end of its lease.
    assert "held_back" in next_run.stderr
    at = [seen.at for seen in here.sandbox.seen]
    assert max(later - earlier for earlier, later in pairwise(at)) >= 10
    assert here.arrived() - sent == there.summary()["this_run"]["requests"]
    assert here.sandbox.codes_sent_twice == []
    newest, kept = here.issued(), pairs(postgres, here)
    assert all(kept[f"Loc{number:04}"] == newest[f"Loc{number:04}"] for number in range(40))


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (
            Limit(3, 900, "seconds"),
            "asked for a pause longer than pace.patience_seconds; run the same command again after 20",
        ),
        (
            Limit(100, 10, shown=True, a_day=7),
            f"daily limit of requests for the app {CLIENT_ID} is used up; run the same",
        ),
    ],
    ids=["a long pause", "the day"],
)
def test_what_ended_a_run_here_ends_one_there_before_it_sends_anything(machines, limit, words):
    here, there = machines(limit=limit)
    manifest = listing(600, width=3)
    first = here.run(here.manifest(manifest))
    sent = here.arrived()
    second = there.run(there.manifest(manifest))
    assert (first.returncode, second.returncode) == (3, 3), second.stdout + second.stderr
    assert words in first.stdout
    assert words in second.stdout
    assert here.arrived() == sent


def test_two_machines_together_never_go_beyond_the_pace_of_the_one_that_sends(machines):
    here, there = machines()
    here.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "40"
    there.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "8"
    manifest = listing(45)
    assert here.run(here.manifest(manifest), "--limit", 30).returncode == 4
    sent = len(here.sandbox.seen)
    assert there.run(there.manifest(manifest)).returncode == 0
    at = sorted(seen.at for seen in here.sandbox.seen)
    assert (sent, len(at)) == (60, 90)
    assert max(index - bisect_right(at, at[index] - 10) + 1 for index in range(sent, len(at))) <= 80


def stopped(run, job, postgres):
    """Stop the whole process between two writes. Returns the pairs whose answers wait for it, by account."""
    job.slow_down(0.3)
    unknown = {}

    def stops():
        run.send_signal(signal.SIGSTOP)
        wait_until(lambda: len(job.sandbox.seen) >= job.arrived())
        known = pairs(postgres, job)
        unknown.update({account: token for account, token in job.issued().items() if known.get(account) != token})
        if unknown and not postgres.execute(WRITES):
            return True
        unknown.clear()
        before = job.arrived()
        run.send_signal(signal.SIGCONT)
        wait_until(lambda: job.arrived() > before)
        return False

    wait_until(stops)
    return unknown


def test_a_run_that_slept_while_another_took_over_sends_nothing_more_and_writes_nothing_over(machines, postgres):
    here, there = machines()
    run = begun(here, "--workers", 8)
    wait_until(lambda: len(pairs(postgres, here)) >= 20)
    unknown = stopped(run, here, postgres)
    wait_until(lambda: lease(postgres, here, "until < clock_timestamp()")[0])
    next_run = there.start("run", there.manifest(listing(MANY, width=4)), "--output", there.output)
    line_with("held_back", next_run.stderr)
    next_run.send_signal(signal.SIGSTOP)  # So that whatever arrives now is from the run that slept.
    sent, asleep = here.arrived(), pairs(postgres, here)
    run.send_signal(signal.SIGCONT)
    out, err = run.communicate(60)
    arrived = here.arrived()
    next_run.send_signal(signal.SIGCONT)
    assert run.returncode == 3, out + err
    assert "another run took this one's lease" in out
    assert "Traceback" not in out + err
    assert here.summary()["stopped_because"] == "lease_lost"
    assert pairs(postgres, here) == asleep
    assert arrived == sent
    aside = [json.loads(line) for line in here.output.joinpath("unwritten.jsonl").read_text().splitlines()]
    assert {one["account_id"]: one["pair"]["refresh_token"] for one in aside} == unknown
    end(next_run)
    assert next_run.returncode == 143
    assert here.sandbox.codes_sent_twice == []


def test_a_run_that_slept_longer_than_its_lease_goes_on_if_nobody_took_over(machines, postgres):
    here, _ = machines()
    run = begun(here, manifest=here.manifest(listing(300, width=3)))
    stopped(run, here, postgres)
    wait_until(lambda: lease(postgres, here, "until < clock_timestamp()")[0])
    here.sandbox.world = replace(here.sandbox.world, latency_seconds=0)
    run.send_signal(signal.SIGCONT)
    out, err = run.communicate(60)
    assert run.returncode == 0, out + err
    assert lease(postgres, here, "epoch")[0] == 1
    assert pairs(postgres, here) == here.issued()
    assert len(here.issued()) == 300


def test_a_lease_that_is_released_is_shown_before_and_its_run_stops_and_writes_nothing_over(machines, postgres):
    here, there = machines()
    run = begun(here, "--workers", 8)
    wait_until(lambda: len(pairs(postgres, here)) >= 20)
    stopped(run, here, postgres)
    holder = f"held by process {run.pid} on {socket.gethostname()} (the run on {here.folder}/installs.csv) since 20"
    shown = who(there)
    for what in (f"the app {CLIENT_ID}", "the ledger out"):
        assert f"{what} of {here.sandbox.url}: {holder}" in shown
    kept = pairs(postgres, here)
    done = there("ledger", "release", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" is free now; it was held by process") == 2
    assert who(there) == nobody(there)
    run.send_signal(signal.SIGCONT)
    out, err = run.communicate(60)
    assert run.returncode == 3, out + err
    assert here.summary()["stopped_because"] == "lease_lost"
    assert pairs(postgres, here) == kept
    assert here.output.joinpath("unwritten.jsonl").exists()
    assert there("ledger", "release", "--yes").stdout == nothing_to_release(there, "any ledger")


def test_a_lease_that_is_over_is_shown_as_such(machines, postgres):
    here, there = machines()
    run = begun(here)
    run.kill()
    run.communicate(60)
    wait_until(lambda: lease(postgres, here, "until < clock_timestamp()")[0])
    lines = who(there).splitlines()
    assert len(lines) == 2
    assert all(" expired at 20" in line and "the next run takes it over" in line for line in lines)


def test_a_lease_is_not_released_unless_a_person_is_sure(machines):
    here, there = machines(latency_seconds=0.05)
    run = begun(here)
    done = there("ledger", "release")
    assert done.returncode == 2
    assert "say --yes if you are sure" in done.stderr
    assert f"held by process {run.pid}" in done.stderr
    end(run)
    assert run.returncode == 143


def test_leases_of_another_app_ledger_or_api_are_left_alone(machines):
    here, there = machines(latency_seconds=0.05)
    run = begun(here)
    there.environment |= {"HIGHLEVEL_CLIENT_ID": "another", "RECOVERY_LEDGER__NAME": "other"}
    assert there("ledger", "release", "--yes").stdout == nothing_to_release(there, "the ledger other")
    there.environment |= {"HIGHLEVEL_BASE_URL": "http://localhost:1", "HIGHLEVEL_CLIENT_ID": CLIENT_ID}
    elsewhere = nothing_to_release(there, "the ledger other", "http://localhost:1")
    assert there("ledger", "release", "--yes").stdout == elsewhere
    assert len(who(there).splitlines()) == 2
    end(run)
    assert run.returncode == 143


@pytest.mark.parametrize("command", ["who", "release"])
def test_without_a_database_there_are_no_leases_to_show(play, command):
    done = play()("ledger", command)
    assert done.returncode == 2
    assert done.stderr.startswith("error: RECOVERY_LEDGER__URL: is not set: set it")


def test_in_a_database_that_no_run_has_seen_nobody_holds_a_lease(machines):
    here, _ = machines()
    assert who(here) == nobody(here)
    assert here("ledger", "release", "--yes").stdout == nothing_to_release(here, "any ledger")
