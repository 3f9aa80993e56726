"""Leases in PostgreSQL: one holder at a time, who never believes longer than the database does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count

import pytest
from psycopg import OperationalError

from jobs.config.settings import DatabaseUrl, LedgerSettings
from jobs.core.errors import Exit, UserError
from jobs.ledger.lease import LeaseKey, Leases, break_leases, clock, held_leases, own_connection
from jobs.ledger.leasing import take_leases
from jobs.ledger.postgres import Database
from jobs.pace.usage import LONGEST, Usage
from tests.helpers.waiting import wait_until

URL = "https://services.example"
ROUNDS = 80


SCHEMAS = (f"schema_{number}" for number in count())


@pytest.fixture
def database(own_postgres):
    settings = LedgerSettings(DatabaseUrl(own_postgres.url), schema=next(SCHEMAS))
    take_leases(settings, URL, ["maker"], "the maker of the tables").give_back()
    return Database(settings.url, settings.schema, 10.0)


@pytest.fixture
def lease(database):
    """`lease("app", ...)` takes the leases of these apps; all are given back in the end."""
    taken = []

    def take(*apps, seconds=30.0, holder="a run"):
        leases = Leases(database, [LeaseKey(URL, app, "") for app in apps], seconds, 60.0, holder)
        leases.take()
        taken.append(leases)
        return leases

    yield take
    for leases in taken:
        leases.give_back()


def row(own_postgres, database, app="app"):
    found = own_postgres.execute(
        f"select epoch, token, until, until > clock_timestamp() from {database.schema}.leases where client_id = '{app}'"
    )
    return found[0]


def is_refused(take):
    with pytest.raises(UserError) as refused:
        take()
    assert refused.value.code is Exit.HELD
    return str(refused.value)


def race(database, start, end, wins):
    for _ in range(ROUNDS):
        leases = Leases(database, [LeaseKey(URL, "app", ""), LeaseKey(URL, "", "ledger")], 30.0, 60.0, "a racer")
        start.wait()
        try:
            leases.take()
        except UserError:
            won = False
        else:
            won = True
        end.wait()
        if won:
            leases.give_back()
        wins.put(won)


def test_of_two_processes_that_race_for_a_lease_exactly_one_has_it(own_postgres, database):
    processes = multiprocessing.get_context("spawn")
    start, end, wins = processes.Barrier(2), processes.Barrier(2), processes.Queue()
    racers = [processes.Process(target=race, args=(database, start, end, wins)) for _ in range(2)]
    for racer in racers:
        racer.start()
    won = [wins.get(timeout=60) for _ in range(2 * ROUNDS)]
    for racer in racers:
        racer.join()
    assert won.count(True) == ROUNDS
    assert row(own_postgres, database)[0] == ROUNDS


def test_a_second_holder_is_told_who_has_it_since_when_and_until_when(lease, own_postgres, database):
    lease("app", holder="process 7 on there (the run on list.csv)")
    said = is_refused(lambda: lease("other", "app"))
    since, until = own_postgres.execute(
        "select to_char(since at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),"
        " to_char(until at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
        f" from {database.schema}.leases where client_id = 'app'"
    )[0]
    held = (
        f"has been held by process 7 on there (the run on list.csv) since {since}, until {until} unless it is renewed"
    )
    assert said.startswith(f"the app app: {held}: ")
    lease("other")


def test_who_takes_several_leases_has_all_or_none(lease, own_postgres, database):
    lease("b")
    is_refused(lambda: lease("a", "b", "c"))
    lease("a", "c")


def test_the_holder_names_its_process_and_its_machine(own_postgres, database):
    settings = LedgerSettings(database.url, schema=database.schema)
    leases = take_leases(settings, URL, ["app"], "recover check on list.csv")
    (shown,) = held_leases(database)
    leases.give_back()
    assert shown.holder == f"process {os.getpid()} on {socket.gethostname()} (recover check on list.csv)"


def test_a_holder_may_work_on_a_list_of_any_name(database):
    settings = LedgerSettings(database.url, schema=database.schema)
    leases = take_leases(settings, URL, ["app"], "the run on a\udcff\x1b[31m\nlist.csv")
    (shown,) = held_leases(database)
    leases.give_back()
    assert shown.holder.endswith("(the run on a? [31m list.csv)")


def test_a_lease_is_renewed_while_the_main_thread_is_busy(lease, own_postgres, database):
    lease("app", seconds=0.6)
    first = row(own_postgres, database)[2]
    end = time.monotonic() + 60
    while row(own_postgres, database)[2] == first:
        sum(range(100_000))
        assert time.monotonic() < end
    assert row(own_postgres, database)[3]


def hold_until_killed(database, ready):
    Leases(database, [LeaseKey(URL, "app", "")], 1.0, 60.0, "the one that is killed").take()
    ready.set()
    time.sleep(60)


@pytest.fixture
def killed(database):
    """A holder was killed just now, as by `kill -9`."""
    processes = multiprocessing.get_context("spawn")
    ready = processes.Event()
    holder = processes.Process(target=hold_until_killed, args=(database, ready))
    holder.start()
    assert ready.wait(60)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()


def taken_in_the_end(lease):
    """The lease, once it has run out for its holder, and how often it was refused until then."""
    taken, refusals = [], 0

    def is_free():
        nonlocal refusals
        try:
            taken.append(lease("app"))
        except UserError:
            refusals += 1
        return bool(taken)

    wait_until(is_free)
    return taken[0], refusals


def test_the_lease_of_a_killed_holder_runs_out_and_the_next_one_begins_when_what_it_sent_counts_no_more(
    killed, lease, own_postgres, database
):
    until = row(own_postgres, database)[2]
    leases, refusals = taken_in_the_end(lease)
    assert refusals
    assert row(own_postgres, database)[0] == 2
    used = leases.used_before()["app"]
    since = own_postgres.execute(f"select extract(epoch from clock_timestamp() - '{until}'::timestamptz)::float")[0][0]
    assert used.status == 0
    assert LONGEST - since <= used.held < LONGEST


def test_a_holder_that_fell_asleep_in_the_middle_of_a_renewal_keeps_no_lock(lease, database):
    hasty = replace(database, seconds=0.4)
    asleep = own_connection(hasty)
    asleep.execute("update leases set until = until")
    refused = is_refused(Leases(hasty, [LeaseKey(URL, "maker", "")], 30.0, 60.0, "the next run").take)
    assert "is free, but a write of its last holder has not ended yet: try again in a moment" in refused
    lease("maker")
    asleep.close()


def test_the_wait_after_a_killed_holder_goes_on_for_the_one_after_the_next(killed, lease):
    first, _ = taken_in_the_end(lease)
    held = first.used_before()["app"].held
    first.give_back()
    assert 0 < lease("app").used_before()["app"].held < held


def test_what_an_app_used_goes_to_the_next_holder_with_its_age(lease, database):
    first = lease("app", "other")
    first.used = lambda: {"app": Usage((0.5, 4.0), 30.0, 429, 17, 3600.0)}
    first.give_back()
    used = lease("app", "other").used_before()
    assert used["other"] == Usage()
    age = used["app"].left[0] - 0.5
    assert 0 < age < 5
    assert used["app"].left[1] == pytest.approx(4.0 + age)
    assert used["app"].held == pytest.approx(30.0 - age)
    assert used["app"].status == 429
    assert used["app"].today == 17
    assert used["app"].next_day == pytest.approx(3600.0 - age)


def test_what_an_app_used_is_written_with_each_renewal(lease, own_postgres, database):
    leases = lease("app", seconds=0.6)
    leases.used = lambda: {"app": Usage(today=5, next_day=100.0)}
    limits = f"select limits::json ->> 'today' from {database.schema}.leases where client_id = 'app'"
    wait_until(lambda: own_postgres.execute(limits) == [("5",)])


def test_a_holder_that_sent_nothing_leaves_what_was_used_before(lease):
    first = lease("app")
    first.used = lambda: {"app": Usage(held=30.0, status=429)}
    first.give_back()
    lease("app").give_back()
    assert lease("app").used_before()["app"].held > 20


def test_a_lease_that_could_not_be_renewed_in_time_is_not_held_and_goes_on_with_the_same_epoch(
    lease, own_postgres, database
):
    leases = lease("app", seconds=1.0)
    own_postgres.stop()
    wait_until(lambda: not leases.hold())
    assert not leases.lost
    own_postgres.start()
    wait_until(leases.hold)
    assert row(own_postgres, database)[0] == 1


def while_it_waits(own_postgres, database, ask):
    """Let `ask` wait for the row of the lease. Returns what it returns, and when it had waited for it."""
    with ThreadPoolExecutor() as threads, own_postgres.session() as other:
        other.execute(f"select from {database.schema}.leases where client_id = 'app' for update")
        asked = threads.submit(ask)
        wait_until(lambda: own_postgres.execute("select 1 from pg_locks where not granted"))
        waited = clock()
        other.rollback()
        return asked.result(60), waited


def test_a_lease_counts_from_before_it_was_asked_for(lease, own_postgres, database):
    lease("app").give_back()
    leases, waited = while_it_waits(own_postgres, database, lambda: lease("app", seconds=30.0))
    assert leases.valid_until < waited + 30.0


def test_a_renewed_lease_counts_from_before_it_was_asked_for(lease, own_postgres, database):
    leases = lease("app", seconds=3.0)
    until = leases.valid_until

    def renewed():
        wait_until(lambda: leases.valid_until != until)
        return leases.valid_until

    new, waited = while_it_waits(own_postgres, database, renewed)
    assert until < new < waited + 3.0


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no clock that runs through suspend")
def test_a_lease_runs_out_while_the_machine_sleeps(lease, monkeypatch):
    leases, clock_gettime = lease("app", seconds=30.0), time.clock_gettime
    assert leases.hold()
    slept = {time.CLOCK_BOOTTIME: 31.0}
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock_gettime(which) + slept.get(which, 0.0))
    assert not leases.hold()


def test_a_lease_that_was_broken_is_lost_for_good(lease, own_postgres, database):
    leases = lease("app", seconds=0.6)
    (broken,) = break_leases(database, "client_id = %s", ("app",))
    assert broken.key.client_id == "app"
    wait_until(lambda: leases.lost)
    assert not leases.hold()
    assert "another run took this one's lease" in str(leases.problem())
    assert held_leases(database) == []
    used = lease("app").used_before()["app"]
    assert LONGEST - 5 < used.held <= LONGEST


def test_a_lease_that_was_given_back_is_free_at_once(lease, database):
    lease("app").give_back()
    assert held_leases(database) == []
    assert lease("app").used_before() == {"app": Usage()}


def test_who_lost_one_of_several_leases_gives_the_others_back(lease, database):
    leases = lease("app", "other", seconds=3.0)
    break_leases(database, "client_id = %s", ("app",))
    wait_until(lambda: leases.lost)
    leases.give_back()
    assert held_leases(database) == []


def test_a_holder_that_comes_too_late_takes_nothing_from_the_next_one(lease, own_postgres, database):
    late = lease("app", seconds=30.0)
    break_leases(database, "client_id = %s", ("app",))
    lease("app", holder="the next run")
    late.give_back()
    assert [one.holder for one in held_leases(database)] == ["the next run"]


def test_a_renewal_locks_in_the_order_in_which_leases_are_taken(lease, own_postgres, database):
    lease("a").give_back()
    leases = lease("a", "B", seconds=3.0)
    table = f"{database.schema}.leases"
    # "a" now lies before "B" in the table, and comes before it in the database's own order.
    own_postgres.execute(f"update {table} set until = until where client_id = 'B'")
    assert [one.key.client_id for one in held_leases(database)] == ["B", "a"]
    with own_postgres.session() as other:
        other.execute(f"select from {table} where client_id = 'B' for update")
        wait_until(lambda: own_postgres.execute("select 1 from pg_locks where not granted"))
        other.execute(f"select from {table} where client_id = 'a' for update nowait")
    wait_until(leases.hold)


def test_who_takes_leases_against_the_order_of_another_is_told_that_they_are_held(lease, own_postgres, database):
    lease("a", "b").give_back()
    table = f"{database.schema}.leases"
    next_run = Leases(database, [LeaseKey(URL, app, "") for app in "ab"], 30.0, 60.0, "the next run")
    with own_postgres.session() as other, ThreadPoolExecutor() as threads:
        other.execute(f"select from {table} where client_id = 'b' for update")
        refused = threads.submit(is_refused, next_run.take)
        wait_until(lambda: own_postgres.execute("select 1 from pg_locks where not granted"))
        other.execute(f"select from {table} where client_id = 'a' for update")
        assert "is being taken or released by another run: try again" in refused.result(30)


class Failing:
    """A database that is known to be away only after `seconds`."""

    shown, secrets = "the database", ()

    def __init__(self, error, seconds=0.0):
        self.tries = []
        self._error, self._seconds = error, seconds

    def connect(self):
        self.tries.append(time.monotonic())
        time.sleep(self._seconds)
        raise self._error


def test_a_renewal_begins_with_each_third_of_a_lease_however_long_the_last_one_took_to_fail(lease):
    began, leases = time.monotonic(), lease("app", seconds=3.0)
    leases._database = failing = Failing(OperationalError("no answer"), 1.0)
    wait_until(lambda: len(failing.tries) > 1)
    assert failing.tries[0] - began < 2.5
    assert failing.tries[1] - failing.tries[0] < 1.5


def test_whatever_keeps_a_lease_from_being_renewed_is_told_and_it_is_tried_again(lease):
    leases, heard = lease("app", seconds=0.6), []
    leases._patience = 0.0
    leases.looked_after = lambda: heard.append(leases.problem())
    database, leases._database = leases._database, Failing(OSError(24, "Too many open files"))
    wait_until(lambda: heard and heard[-1])
    assert "it could not be asked (OSError: [Errno 24] Too many open files)" in str(heard[-1])
    leases._database = database
    wait_until(leases.hold)
