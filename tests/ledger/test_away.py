"""A database that is away, hangs, or takes no writes: it is known in time, and nothing is written twice or lost."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from threading import Event

import pytest
from sqlalchemy import select
from sqlalchemy.engine import make_url

from jobs.config.settings import DatabaseUrl, LedgerSettings
from jobs.core.clock import utc
from jobs.core.errors import Problem, UserError
from jobs.core.model import (
    Cause,
    Failed,
    Install,
    InstallKey,
    Level,
    Recovered,
    RefreshState,
    Route,
    Run,
    Stage,
    Unfinished,
)
from jobs.core.secret import Secret
from jobs.ledger import deliveries
from jobs.ledger.engines import Purpose, transaction
from jobs.ledger.failed_set import failed_set_changed
from jobs.ledger.lease import Leases, break_leases
from jobs.ledger.place import Place
from jobs.ledger.reads import records, user_columns
from jobs.ledger.refusals import AwayError, LeaseLostError, Wait, usual_wait
from jobs.ledger.tables import installs, spends
from jobs.monitor import Latest, Monitor
from jobs.outgoing.deliver.store import Store
from jobs.outgoing.metrics import MetricsFile
from jobs.report import CutShort, render, report_again
from jobs.reports.earlier import refuse_unknown_tokens
from jobs.sealing.kept_pairs import KeptPairs
from jobs.system.lock_holders import Patience
from tests.helpers.made import CLIENT_ID, URL, enrol, messages
from tests.helpers.made import pair as made_pair
from tests.helpers.made import place as row
from tests.helpers.metrics import Soon, told
from tests.helpers.postgres import PASSWORD
from tests.helpers.waiting import wait_until

LEASE = 3.0
AT = "2026-11-26T02:00:00.000Z"
NUMBERS = count(1)


@pytest.fixture
def said():
    return []


@contextmanager
def opened(url, folder, said, **more):
    """A ledger in the database with a run's leases and five installs."""
    settings = LedgerSettings(url=DatabaseUrl(url), name=f"away {next(NUMBERS)}", **{"lease_seconds": LEASE, **more})
    ledger = Place(folder, URL, settings).open(usual_wait(said.append), "a test", [f"client {next(NUMBERS)}"])
    try:
        enrol(ledger, (row(number) for number in range(5)), (), AT)
        yield ledger
    finally:
        ledger.close()


@pytest.fixture
def ledger(own_postgres, tmp_path, said):
    """It does not wait for a database that is away."""
    with opened(own_postgres.url, tmp_path, said, patience_seconds=0) as made:
        yield made


@pytest.fixture
def patient(own_postgres, tmp_path, said):
    """It waits for a database that is away."""
    with opened(own_postgres.url, tmp_path, said) as made:
        yield made


@pytest.fixture
def behind(way, tmp_path, said):
    """It waits, and somebody is between it and the database. Its leases are not renewed meanwhile."""
    with opened(way.url, tmp_path, said, lease_seconds=60) as made:
        yield made


def install(number):
    return Install(InstallKey(CLIENT_ID, Level.SUB_ACCOUNT, f"Loc{number:017}"), "")


def recovered(number, at=AT, **more):
    pair = replace(made_pair(), access_token=Secret(f"access {number}"), refresh_token=Secret(f"refresh {number}"))
    return install(number), Recovered(pair, Route.RECONNECT, 1, at, **more)


def failed(number, at=AT):
    return install(number), Failed(Cause.NOT_INSTALLED, Stage.RECONNECT, "no", 404, "", 1, at)


def attempts(ledger):
    """The tries of each install that the ledger has counted, and its state."""
    query = select(installs.c.account_id, installs.c.attempts, installs.c.status).order_by(installs.c.account_id)
    return [(int(one[0][3:]), *one[1:]) for one in ledger.ask(lambda connection: connection.execute(query).all())]


def tokens(ledger):
    """How the old tokens stand that were about to be sent."""
    return sorted(ledger.ask(lambda connection: connection.scalars(select(spends.c.state)).all()))


UNTRIED = [(number, 0, "pending") for number in range(5)]


def once_it_is_back(act):
    """Do it. A database that was given up is asked again only every two seconds."""

    def done():
        try:
            act()
        except AwayError:
            return False
        return True

    wait_until(done)


def save(ledger, name="run"):
    ledger.save_run(Run(name, "list.csv", URL, AT))


AWAY = AwayError(Problem("is away", "the database", "start it"))


def waits(gate, gives_up=lambda: False):
    """A wait that notes in `gate` what it does to the requests."""
    patience = Patience(60, 60, lambda _: None, gives_up, look=0.01)
    return Wait(patience, lambda: gate.append("pause"), lambda: gate.append("go on"))


def test_nothing_is_sent_while_one_still_waits_for_the_database_though_another_has_it_again():
    gate, ends = [], {"reader": Event(), "writer": Event()}
    wait = waits(gate)

    def waiting(who):
        def act():
            if not ends[who].is_set():
                raise AWAY

        return threads.submit(wait.for_database, act)

    with ThreadPoolExecutor() as threads:
        reader, writer = waiting("reader"), waiting("writer")
        try:
            wait_until(lambda: wait._waiting == 2)
            ends["reader"].set()
            reader.result(10)
            assert gate == ["pause"]
        finally:
            ends["writer"].set()
            ends["reader"].set()
        writer.result(10)
    assert gate == ["pause", "go on"]


def test_a_bug_that_ends_a_wait_lets_requests_out_again_and_a_wait_in_vain_does_not():
    gate, tries = [], iter([AWAY, ValueError("a bug"), AWAY, AWAY])

    def act():
        raise next(tries)

    with pytest.raises(ValueError, match="a bug"):
        waits(gate).for_database(act)
    assert gate == ["pause", "go on"]
    with pytest.raises(AwayError):
        waits(gate, gives_up=lambda: True).for_database(act)
    assert gate == ["pause", "go on", "pause"]


def test_a_server_that_hangs_is_away_within_a_third_of_the_lease(own_postgres, ledger):
    with own_postgres.frozen():
        began = time.monotonic()
        with pytest.raises(AwayError, match="no answer"), transaction(ledger.engine, Purpose.WRITE) as connection:
            connection.exec_driver_sql("select 1")
        assert LEASE / 3 <= time.monotonic() - began < LEASE
        with pytest.raises(AwayError, match=r"no answer|timeout"):
            save(ledger)
    once_it_is_back(partial(save, ledger))
    assert ledger.last_run().run_id == "run"


def test_a_commit_without_an_answer_is_given_up_too(own_postgres, ledger):
    def act(connection):
        connection.exec_driver_sql("select 1")
        stack.enter_context(own_postgres.frozen())

    with ExitStack() as stack, pytest.raises(AwayError, match=r"no answer|timeout"):
        ledger.write(act)
    once_it_is_back(partial(save, ledger))


def test_of_a_long_list_no_more_than_some_pages_are_held_in_memory(way, behind):
    enrol(behind, (row(number, "", "x" * 1_000) for number in range(4_000)), ("notes",), AT)
    with behind.at_one_moment() as connection:
        before, rows = way.packets, records(connection)
        next(rows)
        first = way.packets - before
        assert sum(1 for _ in rows) == 3_999
        assert first < (way.packets - before) / 4


def test_what_may_take_long_is_waited_for_as_long_as_the_lease_is_renewed(ledger):
    ledger.wait.patience = replace(ledger.wait.patience, seconds=0)
    assert ledger.write(lambda connection: connection.exec_driver_sql("select pg_sleep(1.5)").rowcount, Purpose.BULK)
    assert ledger.ask(
        lambda connection: connection.exec_driver_sql("select pg_sleep(1.5)").rowcount, Purpose.ONE_MOMENT
    )


def test_what_may_take_long_is_given_up_once_the_lease_cannot_be_renewed(own_postgres, ledger):
    with own_postgres.frozen(), pytest.raises(AwayError, match=r"no answer|timeout"):
        ledger.write(lambda connection: connection.exec_driver_sql("select 1"), Purpose.BULK)


def test_nobody_takes_over_in_the_middle_of_a_write_and_nothing_is_written_afterwards(patient):
    database = replace(patient.leases._database, seconds=0.4)
    next_run = Leases(database, [*patient.leases.epochs], 30.0, 60.0, "the next run")

    def act(connection):
        connection.exec_driver_sql("select 1")
        break_leases(database, "token = %s", (patient.lease,))
        with pytest.raises(UserError, match="a write of its last holder has not ended yet"):
            next_run.take()

    patient.write(act)
    next_run.take()
    with pytest.raises(LeaseLostError):
        patient.record([recovered(0)])
    next_run.give_back()
    assert attempts(patient) == UNTRIED


def test_outcomes_whose_commit_got_through_without_an_answer_are_not_written_twice(way, behind):
    way.lost_commits = {way.commits + 1}
    behind.record([recovered(0), failed(1)])
    assert way.cuts == 1
    assert attempts(behind) == [(0, 1, "recovered"), (1, 1, "failed"), *UNTRIED[2:]]


def test_a_batch_without_a_pair_is_not_counted_twice_either(way, behind):
    way.lost_commits = {way.commits + 1}
    behind.record([failed(1), (install(2), Unfinished(1))])
    assert way.cuts == 1
    assert attempts(behind) == [UNTRIED[0], (1, 1, "failed"), (2, 1, "pending"), *UNTRIED[3:]]


def test_outcomes_given_up_after_a_lost_answer_are_not_counted_again_when_they_are_tried_one_by_one(way, behind):
    behind.wait.patience = replace(behind.wait.patience, seconds=0)
    ended = [recovered(0), failed(1)]
    way.lost_commits = {way.commits + 1, way.commits + 2}  # The second try looks first, and commits as well.
    with pytest.raises(AwayError):
        behind.record(ended)
    for one in ended:
        once_it_is_back(partial(behind.record, [one]))
    assert attempts(behind) == [(0, 1, "recovered"), (1, 1, "failed"), *UNTRIED[2:]]


def test_outcomes_whose_commit_did_not_get_through_are_written(way, behind):
    way.cut_at = {way.packets + 5}
    behind.record([recovered(0), failed(1)])
    assert way.cuts == 1
    assert attempts(behind) == [(0, 1, "recovered"), (1, 1, "failed"), *UNTRIED[2:]]


def test_a_token_whose_intention_got_through_without_an_answer_stays_unused_until_it_is_sent(way, behind):
    way.lost_commits = {way.commits + 1}
    mine = replace(install(0), old=Secret("old token"))
    behind.intend(mine, AT)
    assert tokens(behind) == ["asked"]
    behind.record([(mine, failed(0)[1])])
    assert tokens(behind) == []


def test_what_was_written_in_the_last_seconds_is_written_again_after_a_failover_to_an_older_copy(
    own_postgres, patient, said
):
    own_postgres.copy()
    mine = replace(install(3), old=Secret("old token"))
    patient.intend(mine, AT)
    patient.record([recovered(0), failed(1)])
    patient.record([(mine, recovered(3, refresh_state=RefreshState.SPENT)[1])])
    own_postgres.fail_over()
    save(patient)
    expected = [(0, 1, "recovered"), (1, 1, "failed"), UNTRIED[2], (3, 1, "recovered"), UNTRIED[4]]
    assert attempts(patient) == expected
    assert tokens(patient) == ["spent"]
    assert [line for line in said if "3 outcomes of the last seconds were gone" in line]


def test_after_a_restart_nothing_is_written_again(own_postgres, patient, said):
    patient.record([recovered(0), failed(1)])
    own_postgres.stop()
    own_postgres.start()
    patient.record([failed(2)])
    assert attempts(patient) == [(0, 1, "recovered"), (1, 1, "failed"), (2, 1, "failed"), *UNTRIED[3:]]
    assert not [line for line in said if "went back" in line]


def test_a_report_is_not_blamed_for_a_database_that_goes_away_while_it_is_read(own_postgres, patient, tmp_path):
    (tmp_path / "results.csv").write_text("access_token,refresh_token\naccess,refresh\n")
    with patient.at_one_moment() as connection:
        own_postgres.stop()
        with pytest.raises(AwayError):
            refuse_unknown_tokens(connection, tmp_path)
        own_postgres.start()


def test_a_database_that_went_back_to_before_the_lease_is_lost_and_not_another_runs(own_postgres, tmp_path, said):
    own_postgres.copy()
    with opened(own_postgres.url, tmp_path, said) as ledger:
        ledger.record([recovered(0)])
        own_postgres.fail_over()
        with pytest.raises(LeaseLostError, match="went back to a state before this run"):
            ledger.record([recovered(1)])
        wait_until(lambda: ledger.leases.lost)
        assert "went back" in str(ledger.leases.problem())


def test_a_database_that_went_back_behind_a_kept_connection_is_known_by_the_lease(own_postgres, patient, said):
    patient.record([recovered(0)])
    # As a pooler hides it: the rows are older, and the connection is the same.
    own_postgres.execute(
        "update highlevel_recovery.leases set until = until - interval '1 hour'",
        "delete from highlevel_recovery.all_pairs",
        "update highlevel_recovery.all_installs set status = 'pending', tokens = null, attempts = 0",
    )
    renewed = patient.leases.valid_until
    wait_until(lambda: patient.leases.valid_until > renewed)
    save(patient)
    assert attempts(patient) == [(0, 1, "recovered"), *UNTRIED[1:]]
    assert [line for line in said if "1 outcome of the last seconds was gone" in line]


def test_another_program_that_restores_the_list_of_before_this_run_loses_no_pair_silently(own_postgres, patient):
    own_postgres.execute("delete from highlevel_recovery.all_installs")
    with pytest.raises(LeaseLostError, match="does not know all installs any more"):
        patient.record([recovered(0)])


@pytest.fixture
def of_role(own_postgres, tmp_path, said):
    """`of_role(settings)` gives a ledger of a user whose role has these settings."""
    with ExitStack() as stack:

        def start(**settings):
            name = f"role{next(NUMBERS)}"
            words = [f"create role {name} login superuser password '{PASSWORD}'"]
            own_postgres.execute(
                *words, *(f"alter role {name} set {key} = '{value}'" for key, value in settings.items())
            )
            url = make_url(own_postgres.url).set(username=name).render_as_string(hide_password=False)
            return stack.enter_context(opened(url, tmp_path, said))

        yield start


def test_what_may_take_long_is_not_ended_by_a_statement_timeout_of_the_role(of_role):
    ledger = of_role(statement_timeout="200ms")
    assert ledger.write(lambda connection: connection.exec_driver_sql("select pg_sleep(0.5)").rowcount, Purpose.BULK)


def test_a_transaction_is_not_ended_by_an_idle_timeout_of_the_role(of_role, own_postgres):
    ledger = of_role(idle_in_transaction_session_timeout="200ms")

    def act(connection):
        connection.exec_driver_sql("select 1")
        own_postgres.execute("select pg_sleep(0.5)")
        return connection.exec_driver_sql("select 1").scalar()

    assert ledger.write(act) == 1
    assert ledger.ask(act) == 1


def test_a_run_that_falls_asleep_in_the_middle_of_a_write_keeps_its_locks_no_longer_than_its_lease(
    own_postgres, ledger
):
    began = time.monotonic()

    def act(connection):
        connection.exec_driver_sql("select from installs for update")
        wait_until(lambda: not own_postgres.execute("select 1 from pg_locks where mode = 'RowShareLock'"))

    with pytest.raises(AwayError, match="idle"):
        ledger.write(act)
    assert time.monotonic() - began >= LEASE
    once_it_is_back(partial(save, ledger))


def test_a_server_that_does_not_sync_commits_is_warned_of(of_role, said):
    of_role(synchronous_commit="off")
    assert [line for line in said if "has synchronous_commit off" in line]
    said.clear()
    of_role(synchronous_commit="local")
    assert not said


def test_a_restart_while_the_reports_are_rendered_costs_them_nothing(own_postgres, patient, tmp_path, monkeypatch):
    save(patient)

    def restarted(connection, cause=None):
        monkeypatch.undo()
        own_postgres.stop()
        own_postgres.start()
        return user_columns(connection)

    monkeypatch.setattr("jobs.report.user_columns", restarted)
    render(tmp_path, patient, Run("run", "list.csv", URL, AT), {}, messages(), workbook=True)
    assert (tmp_path / "results.csv").exists()


def test_pairs_whose_handing_out_got_through_without_an_answer_are_handed_out(way, behind, monkeypatch):
    behind.delivers = KeptPairs()
    behind.record([recovered(0), recovered(1)])
    act = deliveries.hand_out

    def unanswered(connection, keys):
        way.lost_commits = way.lost_commits or {way.commits + 1}
        return act(connection, keys)

    monkeypatch.setattr(deliveries, "hand_out", unanswered)
    store = Store(behind, "ledger", utc, behind.delivers)
    handed = store.hand_out(10).pairs
    assert way.cuts == 1
    assert [pair.record.location_id for pair in handed] == [install(0).key.account_id, install(1).key.account_id]
    assert store.hand_out(10).pairs == []


def test_a_change_whose_commit_got_through_without_an_answer_is_a_change(way, behind):
    behind.record([failed(0)])
    way.lost_commits = {way.commits + 1, way.commits + 2}  # One may end the question.
    assert failed_set_changed(behind)
    assert way.cuts >= 1
    assert not failed_set_changed(behind)


def test_a_run_that_was_cut_short_gives_back_its_leases_even_if_its_folder_is_gone(own_postgres, patient, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "config").mkdir()
    name = own_postgres.execute("select name from highlevel_recovery.ledgers order by id desc limit 1")[0][0]
    environment = {"RECOVERY_LEDGER__URL": own_postgres.url, "RECOVERY_LEDGER__NAME": name, "HIGHLEVEL_BASE_URL": URL}
    with pytest.raises((OSError, UserError)):
        report_again(tmp_path / "file" / "out", tmp_path, environment, print, CutShort(143, 0, 0, patient.lease))
    mine = f"select 1 from highlevel_recovery.leases where token = '{patient.lease}' and until > clock_timestamp()"
    assert own_postgres.execute(mine) == []


def test_the_metrics_of_a_run_are_written_again_and_again_while_its_database_answers_nothing(way, tmp_path, said):
    writes = []
    file = MetricsFile(tmp_path / "a.prom", "a", said.append, lambda: writes.append(1) or 0.0)
    run, at_once = Run("ab", "in.csv", URL, AT), {"ending": Soon(), "clock": lambda: 0.0}
    with opened(way.url, tmp_path, said) as ledger, Monitor(file, ledger, Latest(run), **at_once):
        wait_until(lambda: told(tmp_path / "a.prom").by("installs") == {("pending",): 5})
        way.drops = True
        away = len(writes)
        wait_until(lambda: len(writes) > away + 1)
        way.heal()  # What was lost meanwhile never comes.
    assert told(tmp_path / "a.prom").lists == {"a"}
    assert said == []
