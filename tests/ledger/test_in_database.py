"""The tables in PostgreSQL: who may make them, who makes them first, which version they have, and whose rows they hold."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from msgspec import structs

from jobs.core.errors import UserError
from jobs.core.model import Cause
from jobs.ledger import tables
from jobs.ledger.in_database import open_beside
from jobs.ledger.reads import records
from jobs.ledger.refusals import usual_wait
from tests.helpers.homes import home_in_database
from tests.helpers.made import make_run, opened, place
from tests.helpers.waiting import wait_until

AT = "2026-11-26T02:31:00.000Z"


@pytest.fixture
def home(postgres, tmp_path, request):
    """The place of a new ledger in a schema that is not there yet."""
    schema = request.node.name.partition("[")[0][:63]
    yield home_in_database(postgres, tmp_path, schema=schema)
    postgres.execute(f"drop schema if exists {schema} cascade")


def of_name(home, name):
    return replace(home, settings=structs.replace(home.settings, name=name))


def states(home):
    """How each install of a ledger stands."""
    ledger = home.open_beside(usual_wait())
    try:
        return {record.location_id: record.status.value for record in ledger.ask(lambda c: list(records(c)))}
    finally:
        ledger.close()


def test_starts_at_the_same_moment_all_find_the_tables_made(home):
    barrier = Barrier(4)

    def start(number):
        mine = of_name(home, f"ledger {number}")
        barrier.wait()
        ledger = opened(mine)
        ledger.close()
        return True

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(start, range(4)))


def test_a_ledger_that_cannot_be_opened_leaves_no_connection_open(home, postgres):
    ours = "select count(*) from pg_stat_activity where application_name = 'highlevel-recovery'"
    other, ledger = of_name(home, "missing"), opened(home)
    before = postgres.execute(ours)
    # Whoever tells a person why may keep the error, and what it refers to.
    with pytest.raises(UserError, match="held by") as held:
        opened(home)
    with pytest.raises(UserError, match="holds no such ledger") as missing:
        open_beside(other.settings, other.folder, other.base_url, usual_wait())
    wait_until(lambda: postgres.execute(ours) == before)
    assert held.value is not missing.value
    ledger.close()


def make_earlier(home, postgres):
    """Make the tables what the third version would have been."""
    schema = home.settings.schema
    postgres.execute(
        f"drop view {schema}.deliveries",
        f"drop table {schema}.all_deliveries",
        f"update {schema}.schema_version set version = 3",
    )


def test_an_earlier_version_is_brought_up_to_date_by_the_first_start_and_nothing_is_lost(home, postgres):
    schema = home.settings.schema
    make_run(home, (), [(place(1), None), (place(2), Cause.NOT_INSTALLED)], at=AT)
    before = states(home)
    make_earlier(home, postgres)
    with ThreadPoolExecutor(2) as threads:
        for ledger in threads.map(opened, [home, of_name(home, "another")]):
            ledger.close()
    assert states(home) == before
    make_run(home, (), [(place(3), None)], at=AT)
    assert postgres.execute(f"select version from {schema}.schema_version") == [(tables.VERSION,)]
    assert postgres.execute(f"select count(*) from {schema}.all_deliveries") == [(0,)]


def test_an_earlier_version_is_brought_up_to_date_as_a_whole_or_not_at_all(home, postgres):
    schema = home.settings.schema
    make_run(home, (), [(place(1), None)], at=AT)
    before = states(home)
    make_earlier(home, postgres)
    postgres.execute(
        f"create function {schema}.refuses() returns event_trigger language plpgsql as"
        " $$begin raise exception 'no space left' using errcode = 'disk_full'; end$$",
        f"create event trigger refuses on ddl_command_start when tag in ('CREATE VIEW') execute function {schema}.refuses()",
    )
    try:
        with pytest.raises(UserError, match="no space left"):
            opened(home)
    finally:
        postgres.execute("drop event trigger refuses", f"drop function {schema}.refuses()")
    assert postgres.execute(f"select version from {schema}.schema_version") == [(3,)]
    assert postgres.execute(f"select to_regclass('{schema}.all_deliveries')") == [(None,)]
    opened(home).close()
    assert states(home) == before


def test_a_report_brings_an_earlier_version_up_to_date_and_a_plan_leaves_it(home, postgres):
    make_run(home, (), [(place(1), None)], at=AT)
    before = states(home)
    make_earlier(home, postgres)
    version = f"select version from {home.settings.schema}.schema_version"
    with home.reading() as ledger:
        assert ledger.last_run() is not None
    assert postgres.execute(version) == [(3,)]
    assert states(home) == before
    assert postgres.execute(version) == [(tables.VERSION,)]


def test_a_newer_version_is_refused_and_left_as_it_is(home, postgres):
    schema = home.settings.schema
    make_run(home, (), [(place(1), None)], at=AT)
    postgres.execute(f"update {schema}.schema_version set version = version + 1")
    for act in (opened, states):
        with pytest.raises(UserError, match=rf"schema {schema}: has version 6, but .* use the newer release"):
            act(home)
    assert postgres.execute(f"select version from {schema}.schema_version") == [(tables.VERSION + 1,)]


def test_a_schema_that_holds_something_else_is_refused_and_left_as_it_is(home, postgres):
    schema = home.settings.schema
    postgres.execute(f"create schema {schema}", f"create table {schema}.installs (id int)")
    for act in (opened, states):
        with pytest.raises(UserError, match=rf"has a schema {schema} that holds something else, like installs"):
            act(home)
    assert postgres.execute(f"select tablename from pg_tables where schemaname = '{schema}'") == [("installs",)]


def test_ledgers_of_several_names_are_never_mixed(home):
    """They hold the same install, and each is lined up, written and read at the same time."""
    names = [of_name(home, f"ledger {number}") for number in range(4)]
    ends = [None, Cause.NOT_INSTALLED, Cause.SERVER_ERROR, None]

    def run(number):
        for _ in range(3):
            made = [(place(1), ends[number]), (place(10 + number), ends[number])]
            make_run(replace(names[number], folder=home.folder / str(number)), (), made, at=AT)
        return True

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(run, range(4)))
    for number, name in enumerate(names):
        status = "failed" if ends[number] else "recovered"
        assert states(name) == {place(1).account_id: status, place(10 + number).account_id: status}


def test_the_same_name_for_another_api_is_another_ledger_only_if_it_was_made_first(home):
    opened(home).close()
    with pytest.raises(
        UserError, match=r"belongs to https://services\.leadconnectorhq\.com, not to http://127\.0\.0\.1"
    ):
        opened(replace(home, base_url="http://127.0.0.1:1"))
