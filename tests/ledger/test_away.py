"""A database that is away, hangs, or takes no writes: it is known in time, and nothing is written twice or lost."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from itertools import count

import pytest

from jobs.config.settings import DatabaseUrl, LedgerSettings
from jobs.core.model import Install, InstallKey, Level, Run
from jobs.ledger.engines import Purpose
from jobs.ledger.place import Place
from jobs.ledger.refusals import AwayError, usual_wait
from tests.helpers.made import CLIENT_ID, URL, enrol
from tests.helpers.made import place as row
from tests.helpers.postgres import postgres_server

LEASE = 3.0
AT = "2026-11-26T02:00:00.000Z"
NUMBERS = count(1)


@pytest.fixture(scope="module")
def postgres():
    with postgres_server() as server:
        yield server


@pytest.fixture
def said():
    return []


@pytest.fixture
def ledger(postgres, tmp_path, said):
    """A ledger in the database with a run's leases; it does not wait for a database that is away."""
    settings = LedgerSettings(
        url=DatabaseUrl(postgres.url), name=f"away {next(NUMBERS)}", lease_seconds=LEASE, patience_seconds=0
    )
    opened = Place(tmp_path, URL, settings).open(usual_wait(said.append), "a test", [f"client {next(NUMBERS)}"])
    enrol(opened, (row(number) for number in range(5)), (), AT)
    yield opened
    opened.close()


def install(number):
    return Install(InstallKey(CLIENT_ID, Level.SUB_ACCOUNT, f"Loc{number:017}"), "")


def save(ledger, name="run"):
    ledger.save_run(Run(name, "list.csv", URL, AT))


def test_a_server_that_hangs_is_away_within_a_third_of_the_lease(postgres, ledger):
    with postgres.frozen(), pytest.raises(AwayError, match=r"no answer|timeout"):
        save(ledger)
    save(ledger)
    assert ledger.last_run().run_id == "run"


def test_a_commit_without_an_answer_is_given_up_too(postgres, ledger):
    def act(connection):
        connection.exec_driver_sql("select 1")
        stack.enter_context(postgres.frozen())

    with ExitStack() as stack, pytest.raises(AwayError, match=r"no answer|timeout"):
        ledger.write(act)
    save(ledger)


def test_what_may_take_long_is_waited_for_as_long_as_the_lease_is_renewed(ledger):
    ledger.wait.patience = replace(ledger.wait.patience, seconds=0)
    assert ledger.write(lambda connection: connection.exec_driver_sql("select pg_sleep(1.5)").rowcount, Purpose.BULK)
    assert ledger.ask(
        lambda connection: connection.exec_driver_sql("select pg_sleep(1.5)").rowcount, Purpose.ONE_MOMENT
    )


def test_what_may_take_long_is_given_up_once_the_lease_cannot_be_renewed(postgres, ledger):
    with postgres.frozen(), pytest.raises(AwayError, match=r"no answer|timeout"):
        ledger.write(lambda connection: connection.exec_driver_sql("select 1"), Purpose.BULK)
