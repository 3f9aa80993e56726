"""What a purge leaves in the files of the ledger or of its database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial

import pytest
from sqlalchemy import event

from jobs.core.errors import UserError
from jobs.ledger import purging
from jobs.ledger.refusals import Wait
from jobs.ledger.scrubbing import PURGE, scrub
from jobs.system.lock_holders import Patience
from tests.helpers.deliveries import tokens_of, waiting
from tests.helpers.homes import home_in_database
from tests.helpers.postgres import postgres_server

FORGET = partial(purging.forget, everything=True, at="2026-11-26T02:00:00.000Z")


def in_words(number, round_=0):
    """What an access token looks like in a file."""
    return tokens_of(number, round_).access_token.reveal().encode()


def test_no_byte_of_a_purged_pair_is_left_where_sqlite_does_not_overwrite_what_it_frees(tmp_path):
    with waiting(tmp_path, 30) as waits:
        engine = waits.ledger.engine
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA secure_delete = OFF"))
        waits.ledger.write(FORGET)
        scrub(waits.ledger, PURGE)
        left = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert not [number for number in range(30) if in_words(number) in left]


def test_a_reader_of_the_journal_is_waited_for(tmp_path):
    with waiting(tmp_path, 30) as waits, closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from installs")
        waits.ledger.write(FORGET)
        waits.ledger.wait = Wait(Patience(0.3, 0, lambda _: None, look=0.01))
        with pytest.raises(UserError, match="is read by another program: the pairs are forgotten, but its journal"):
            scrub(waits.ledger, PURGE)
        waits.ledger.wait.patience = Patience(30, 0, lambda _: reader.rollback(), look=0.01)
        scrub(waits.ledger, PURGE)
        left = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert not [number for number in range(30) if in_words(number) in left]


@pytest.fixture
def waits(postgres, tmp_path):
    """A ledger in the database with 30 pairs that no other ledger has. It does not wait long for others."""
    with waiting(home_in_database(postgres, tmp_path), 30) as made:
        made.mark = tmp_path.name
        for number in range(30):
            made.recover(number, made.mark)
        made.ledger.wait = Wait(Patience(0.3, 0, lambda _: None, look=0.01))
        postgres.execute("analyze highlevel_recovery.all_installs")
        yield made


@pytest.fixture
def other(postgres):
    """Somebody else's connection to the database."""
    with postgres.session() as connection:
        yield connection


def in_its_files(server, waits):
    """The numbers of the ledger's pairs that any file of the server's tables holds."""
    server.execute("checkpoint")
    left = b"".join(file.read_bytes() for file in (server.folder / "data" / "base").rglob("*") if file.is_file())
    return [number for number in range(30) if in_words(number, waits.mark) in left]


def test_no_byte_of_a_purged_pair_is_left_in_any_file_of_a_table(waits, postgres):
    sampled = postgres.execute("select distinct attname from pg_stats where tablename = 'all_installs'")
    assert ("account_id",) in sampled
    assert ("tokens",) not in sampled  # A sample would be in a file of the server's own.
    assert len(in_its_files(postgres, waits)) == 30
    waits.ledger.write(FORGET)
    assert in_its_files(postgres, waits)
    scrub(waits.ledger, PURGE)
    assert in_its_files(postgres, waits) == []
    assert waits.count("purged") == 30


def test_an_older_transaction_that_may_read_the_pairs_is_waited_for(waits, postgres, other):
    other.execute("set transaction isolation level repeatable read")
    other.execute("select count(*) from highlevel_recovery.schema_version")
    waits.ledger.write(FORGET)
    with pytest.raises(
        UserError, match=r"read by older transactions \(process \d+ of the server\): the pairs are forgotten, but"
    ):
        scrub(waits.ledger, PURGE)
    said = []

    def reads_and_ends(words):
        said.append(words)
        mine = f"select count(*) from highlevel_recovery.all_installs where tokens like '%/{waits.mark}%'"
        assert other.execute(mine).fetchall() == [(30,)]
        other.rollback()

    waits.ledger.wait.patience = Patience(30, 0, reads_and_ends, look=0.01)
    scrub(waits.ledger, PURGE)
    assert said[0].startswith("waiting for older transactions in the database: process")
    assert in_its_files(postgres, waits) == []


def test_nobody_is_made_to_wait_for_a_table_that_is_in_use(waits, postgres, other):
    """A transaction that begins meanwhile uses the table, and another one reads it."""
    other.execute("select 1")
    waits.ledger.write(FORGET)

    def uses_the_table(_):
        other.rollback()
        other.execute("lock table highlevel_recovery.all_installs in access share mode")

    waits.ledger.wait.patience = Patience(0.3, 0, uses_the_table, look=0.01)
    with pytest.raises(UserError, match="is in constant use by other runs: the pairs are forgotten, but"):
        scrub(waits.ledger, PURGE)
    assert postgres.execute("select count(*) from highlevel_recovery.all_installs") >= [(30,)]
    other.rollback()
    scrub(waits.ledger, PURGE)
    assert in_its_files(postgres, waits) == []


def test_a_prepared_transaction_that_keeps_old_rows_is_named(tmp_path):
    with postgres_server("fsync=off", "max_prepared_transactions=2") as server:
        with server.session() as connection:
            connection.execute("create table kept (number int)")
            connection.execute("prepare transaction 'forgotten'")
        with waiting(home_in_database(server, tmp_path), 30) as made:
            made.ledger.wait = Wait(Patience(0.3, 0, lambda _: None, look=0.01))
            made.ledger.write(FORGET)
            with pytest.raises(
                UserError, match="because of the prepared transaction forgotten: the pairs are forgotten"
            ):
                scrub(made.ledger, PURGE)
            server.execute("rollback prepared 'forgotten'")
            scrub(made.ledger, PURGE)


def test_a_statement_timeout_of_the_role_is_named_with_what_the_files_still_hold(waits, postgres):
    waits.ledger.write(FORGET)
    waits.ledger.engine.dispose()
    one = postgres.execute("select min(id) from highlevel_recovery.all_installs")[0][0]
    # Rewriting a table builds its indexes again, and this one takes a second.
    postgres.execute(
        "create function slow(bigint) returns bigint immutable language sql as 'select $1 from pg_catalog.pg_sleep(1)'",
        f"create index slow on highlevel_recovery.all_installs (slow(id)) where id = {one}",
        "alter role app set statement_timeout = 300",
    )
    try:
        with pytest.raises(
            UserError, match=r"the pairs are forgotten, but its files .* raise statement_timeout of app"
        ):
            scrub(waits.ledger, PURGE)
    finally:
        postgres.execute(
            "set statement_timeout = 0", "alter role app reset statement_timeout", "drop function slow cascade"
        )
