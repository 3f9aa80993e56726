"""The target that is a database: SQLite and PostgreSQL for real."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.config.settings import DatabaseUrl, DeliverSettings, Statements
from jobs.core.errors import UserError
from jobs.core.secret import Secret
from jobs.outgoing.deliver import opening
from jobs.outgoing.deliver.pool import PoolCourier
from jobs.outgoing.deliver.sql import SqlTarget, parameter_of
from jobs.outgoing.deliver.verdict import Later, No, Yes
from tests.helpers.deliveries import FAST, a_pair, played, waiting
from tests.helpers.postgres import PASSWORD

INSERT = "insert into pairs (id, token, at) values (:location_id, :access_token, :expires_at)"
UPDATE = "update pairs set token = :access_token where id = :location_id"
UPSERT = f"{INSERT} on conflict (id) do update set token = excluded.token"
TABLE = "create table pairs (id text primary key, token varchar(255), at timestamp with time zone, n bigint)"


class SqliteStore:
    """An app's store in a file."""

    def __init__(self, folder):
        self.file = folder / "app.db"
        self.url = f"sqlite:///{self.file}"
        self.execute(TABLE)

    def execute(self, *statements):
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            return [connection.execute(statement).fetchall() for statement in statements][-1]


def target_of(store, *statements, columns=(), workers=4, seconds=20, folder=None):
    url = store if isinstance(store, str) else store.url
    return SqlTarget(Secret(url), statements, columns, workers, seconds, folder or opening._PROJECT)


@pytest.fixture
def postgres(own_postgres):
    own_postgres.execute("drop table if exists pairs", TABLE)
    return own_postgres


@pytest.fixture
def lite(tmp_path):
    return SqliteStore(tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request):
    return request.getfixturevalue({"sqlite": "lite", "postgresql": "postgres"}[request.param])


def stored(store):
    return [tuple(row) for row in store.execute("select id, token from pairs order by id")]


# -- what is taken ---------------------------------------------------------------------------------------------------


def test_a_pair_is_taken_if_a_statement_changed_a_row(store):
    store.execute("insert into pairs (id, token) values ('test-location', 'old')")
    target = target_of(store, UPDATE)
    assert target.hand_over(a_pair()) == Yes()
    assert stored(store) == [("test-location", "access+0/0")]
    target.close()


def test_a_pair_that_no_row_took_is_a_no(store):
    target = target_of(store, UPDATE)
    assert target.hand_over(a_pair()) == No("no row took it")
    target.close()


def test_an_update_and_an_insert_of_a_missing_row_are_two_statements_of_one_transaction(store):
    missing = (
        "insert into pairs (id, token) select CAST(:location_id AS text), CAST(:access_token AS text)"
        " where not exists (select 1 from pairs where id = :location_id)"
    )
    target = target_of(store, UPDATE, missing)
    for round_ in range(2):
        assert target.hand_over(a_pair(access_token=f"access-{round_}")) == Yes()
        assert stored(store) == [("test-location", f"access-{round_}")]
    target.close()


def test_if_one_statement_fails_nothing_of_the_others_stays(store):
    target = target_of(store, UPSERT, "insert into pairs (id, nothing) values ('x', 1)")
    assert isinstance(target.hand_over(a_pair()), No)
    assert stored(store) == []
    target.close()


@pytest.mark.parametrize(
    "statement",
    [
        "select * from pairs where id <> :location_id",
        "/* updates nothing */ select id from pairs where id <> :location_id",
        "with them as (select * from pairs where id <> :location_id) select * from them",
    ],
)
def test_a_statement_that_only_reads_takes_nothing_however_many_rows_it_finds(store, statement):
    store.execute("insert into pairs (id) values ('another')")
    target = target_of(store, statement)
    assert target.hand_over(a_pair()) == No("no row took it")
    target.close()


def test_a_row_that_is_only_locked_for_an_update_is_not_changed(postgres):
    postgres.execute("insert into pairs (id) values ('test-location')")
    for lock in ("for update", "FOR NO KEY\nUPDATE"):
        target = target_of(postgres, f"select 1 from pairs where id = :location_id {lock}")
        assert target.hand_over(a_pair()) == No("no row took it")
        target.close()


def test_rows_that_a_statement_gives_back_are_rows_that_it_changed(store):
    target = target_of(store, f"{UPSERT} returning id", f"{UPDATE} and id = 'nobody' returning id")
    assert target.hand_over(a_pair()) == Yes()
    assert target.test(a_pair()) == [1, 0]
    target.close()


def test_a_statement_that_changes_within_another_counts(postgres):
    changes = f"with made as ({INSERT} returning id) select * from made"
    target = target_of(postgres, changes)
    assert target.hand_over(a_pair()) == Yes()
    assert len(stored(postgres)) == 1
    target.close()


# -- parameters ------------------------------------------------------------------------------------------------------


def test_a_moment_is_iso_text_with_its_offset_in_sqlite(lite):
    target = target_of(lite, INSERT)
    pair = a_pair()
    target.hand_over(pair)
    ((at,),) = lite.execute("select at from pairs")
    assert at.endswith("+00:00")
    assert datetime.fromisoformat(at) == datetime.fromisoformat(pair.data["expires_at"])
    target.close()


def test_a_moment_is_a_timestamp_with_time_zone_in_postgresql(postgres):
    postgres.execute("create table if not exists moments (a timestamptz, b timestamptz)", "delete from moments")
    target = target_of(postgres, "insert into moments values (:expires_at, :recovered_at)")
    pair = a_pair()
    assert target.hand_over(pair) == Yes()
    ((expires, recovered),) = postgres.execute("select * from moments")
    assert expires == datetime.fromisoformat(pair.data["expires_at"])
    assert recovered == datetime.fromisoformat(pair.data["recovered_at"])
    target.close()


def test_every_name_of_a_pair_is_a_parameter_and_what_is_absent_is_null(store):
    target = target_of(
        store,
        "insert into pairs (id, token, n) values (:resource_id, :user_id, :expires_at_ms)",
        "delete from pairs where id in (:pair_id, :company_id, :client_id, :application_id, :user_type, :refresh_token,"
        " :token_type, :scope, :route) or n in (:expires_at_s, :expires_in) or at = :recovered_at",
    )
    assert target.hand_over(a_pair(user_id=None)) == Yes()
    assert stored(store) == [("test-location", None)]
    target.close()


def test_the_lists_own_columns_are_parameters(store):
    statement = "insert into pairs (id, token) values (:column_account__2, :column_stra_e)"
    target = target_of(store, statement, columns=("Account #2", "Straße", "unused"))
    assert target.hand_over(a_pair(columns={"Account #2": "a1", "Straße": None})) == Yes()
    assert stored(store) == [("a1", None)]
    assert target.hand_over(a_pair(columns={"Account #2": "a2"})) == Yes()  # This list does not have the other.
    target.close()


def test_a_percent_sign_and_a_colon_in_a_text_are_what_they_are(store):
    target = target_of(store, "insert into pairs (id, token) values ('100%', '12:30 \\:x')")
    assert target.hand_over(a_pair()) == Yes()
    assert stored(store) == [("100%", "12:30 :x")]
    target.close()


@given(st.text())
def test_the_parameter_of_a_column_is_lower_case_ascii(name):
    folded = parameter_of(name)
    assert folded.isascii()
    assert folded == folded.lower()
    assert len(folded) == len("column_") + len(name)
    for sign, original in zip(folded.removeprefix("column_"), name, strict=True):
        assert sign == (original.lower() if original.isascii() and original.isalnum() else "_")


@given(st.text(alphabet="abcXYZ019_", min_size=1))
def test_a_column_with_a_plain_name_keeps_it(name):
    assert parameter_of(name) == f"column_{name.lower()}"


# -- what is refused at the start ------------------------------------------------------------------------------------


def refused(url, *statements, columns=(), folder=None):
    settings = DeliverSettings(database_url=DatabaseUrl(url), sql=Statements(statements))
    with pytest.raises(UserError) as error:
        opening.check_target(settings, columns, {}, folder or opening._PROJECT)
    return str(error.value)


LITE = "sqlite:////nowhere/app.db"


def test_an_unknown_parameter_is_refused_naming_it_and_the_known_ones():
    said = refused(LITE, "update pairs set token = :access_tokn", columns=("Plan",))
    assert said.startswith("deliver.sql: has an unknown parameter :access_tokn: use one of :pair_id, :resource_id, ")
    assert ":column_plan" in said
    assert "\n" not in said
    assert ":Location_ID" in refused(LITE, "update pairs set token = :Location_ID")
    assert ":columns" in refused(LITE, "update pairs set token = :columns").partition(": use")[0]


@pytest.mark.parametrize(
    "cast", [":expires_at::timestamptz", "f(:expires_at::timestamptz)", ":expires_at::timestamptz[]"]
)
def test_a_cast_of_postgresqls_own_is_refused_with_its_cure(cast):
    said = refused("postgresql://localhost/app", f"update pairs set at = {cast}")
    assert said == (
        "deliver.sql: has :expires_at::timestamptz, which looks like part of a name: "
        "write CAST(:expires_at AS timestamptz)"
    )


def test_a_cast_of_something_else_is_allowed(postgres):
    target = target_of(postgres, "insert into pairs (id, n) values (:location_id, '7'::bigint)")
    assert target.hand_over(a_pair()) == Yes()
    target.close()


def test_two_columns_that_fold_to_one_name_are_refused_if_a_statement_uses_it():
    columns = ("Plan!", "plan?", "other")
    said = refused(LITE, "update pairs set token = :column_plan_", columns=columns)
    assert said == "deliver.sql: has :column_plan_, which stands for 'Plan!' and 'plan?': rename one of these columns"
    assert target_of(LITE, "update pairs set token = :column_other", columns=columns)
    assert target_of(LITE, "update pairs set token = :column_plan", columns=("plan", "plan"))  # The first of one name.


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("no address with pass-word in it", "is not a valid address of a database"),
        ("postgresql://app:pass-word@host:port/app", "is not a valid address of a database"),
        ("sqlite://app:pass-word@host/app", "is not a valid address of a database"),
        (
            "postgresql://app:first@pass-word@host/app",
            "has a sign in its password that must be escaped: write %40 for @",
        ),
        ("nosuch://app:pass-word@host/app", "names an unknown kind of database (nosuch)"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("postgresql+pg8000://app:pass-word@host/app", "needs a driver that is not installed (pg8000): install it"),
        ("mysql+pymysql://app:pass-word@host/app", "needs a driver that is not installed (pymysql)"),
        ("postgresql+psycopg_async://app:pass-word@host/app", "names a driver that is asynchronous"),
    ],
)
def test_an_address_that_cannot_work_is_refused_and_not_shown(url, says):
    said = refused(url, UPDATE)
    assert said.startswith(f"deliver.database_url: {says}")
    assert "pass-word" not in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql://app:secret@db.example.com:6543/main?sslmode=require&sslpassword=x",
            "postgresql://db.example.com/main",
        ),
        ("postgres://app:secret@db.example.com/main", "postgresql://db.example.com/main"),
        ("postgresql+psycopg:///main?host=/run/pg", "postgresql:///run/pg/main"),
        ("sqlite:///data/app.db", "sqlite:///data/app.db"),
    ],
)
def test_only_the_kind_host_and_name_of_an_address_are_shown(url, shown):
    settings = DeliverSettings(database_url=DatabaseUrl(url), sql=Statements([UPDATE]))
    assert opening.where(settings) == shown
    opening.check_target(settings, (), {})  # A run starts even if its store is down.


# -- what may pass, and what never does -------------------------------------------------------------------------------


def test_a_constraint_is_a_no_and_its_words_are_one_line_without_the_secrets(store):
    store.execute("create unique index if not exists one_token on pairs (token)")
    token = "a-token-that-is-not-like-any"
    store.execute(f"insert into pairs (id, token) values ('other', '{token}')")
    target = target_of(store, INSERT)
    said = target.hand_over(a_pair(access_token=token))
    assert isinstance(said, No)
    assert said.why.startswith("the database refuses it: ")
    assert "unique" in said.why.lower()
    assert token not in said.why
    assert "DETAIL" not in said.why
    target.close()


def test_a_value_that_a_database_repeats_in_its_first_line_is_starred(postgres):
    target = target_of(postgres, "insert into pairs (id, n) values ('x', CAST(:access_token AS bigint))")
    said = target.hand_over(a_pair(access_token="canary-token"))
    assert said == No('the database refuses it: invalid input syntax for type bigint: "****"')
    target.close()


@pytest.mark.parametrize(
    "statement",
    [
        "update nowhere set x = 1",
        "update pairs set nothing = 1",
        "updat pairs",
        "update pairs set id = 1; drop table pairs",
    ],
)
def test_a_statement_that_is_wrong_is_a_no(store, statement):
    target = target_of(store, statement)
    assert isinstance(target.hand_over(a_pair()), No)
    target.close()


def test_a_value_that_the_database_cannot_hold_is_a_no(store):
    target = target_of(store, UPSERT)
    for token in ("nul \0 sign", "half a character \ud800", "x" * 300):
        said = target.hand_over(a_pair(access_token=token))
        assert isinstance(said, No) or hasattr(store, "file"), said
        assert token not in getattr(said, "why", "")
    target.close()


def test_what_a_trigger_refuses_is_a_no(postgres):
    postgres.execute(
        "create or replace function refuse() returns trigger language plpgsql as "
        "$$ begin raise exception 'not % here', new.token; end $$",
        "create trigger refuses before insert on pairs for each row execute function refuse()",
    )
    target = target_of(postgres, INSERT)
    assert target.hand_over(a_pair()) == No("the database refuses it: not **** here")
    target.close()


def test_a_row_that_another_transaction_holds_is_for_later(store):
    store.execute("insert into pairs (id) values ('test-location')")
    target = target_of(store, UPDATE, seconds=0.3)
    if hasattr(store, "file"):
        holder = sqlite3.connect(store.file, isolation_level=None)
        holder.execute("begin immediate")
    else:
        from psycopg import connect

        holder = connect(store.url.replace("+psycopg", ""))
        holder.execute("update pairs set n = 1")
    said = target.hand_over(a_pair())
    holder.close()
    assert isinstance(said, Later)
    assert "locked" in said.why or "timeout" in said.why
    assert target.hand_over(a_pair()) == Yes()
    target.close()


def test_a_file_that_is_not_there_is_for_later_and_is_not_made(tmp_path):
    target = target_of("sqlite:///sub/app.db", UPDATE, folder=tmp_path)
    (tmp_path / "sub").mkdir()
    said = target.hand_over(a_pair())
    assert said == Later("the database cannot take it: unable to open database file")
    assert not [*(tmp_path / "sub").iterdir()]
    target.close()


def test_a_path_goes_from_the_projects_folder(tmp_path):
    folder = tmp_path / "a folder with ? and # and %20"
    folder.mkdir()
    store = SqliteStore(folder)
    target = target_of("sqlite:///app.db", UPSERT, folder=folder)
    assert target.hand_over(a_pair()) == Yes()
    assert stored(store) == [("test-location", "access+0/0")]
    target.close()


def test_a_server_that_is_down_is_for_later_and_a_wrong_password_is_not_shown(postgres):
    target = target_of(postgres.url.replace("pass-word", "wrong-word"), UPDATE)
    said = target.hand_over(a_pair())
    assert isinstance(said, Later)
    assert "password authentication failed" in said.why
    assert "wrong-word" not in said.why
    target.close()
    nobody = target_of("postgresql://app:canary@127.0.0.1:1/app", UPDATE)
    said = nobody.hand_over(a_pair())
    assert isinstance(said, Later)
    assert "canary" not in said.why
    assert "\n" not in said.why
    nobody.close()


def test_a_kept_connection_that_was_lost_meanwhile_costs_no_try(postgres):
    target = target_of(postgres, UPSERT, workers=1)
    assert target.hand_over(a_pair()) == Yes()
    postgres.stop()
    assert isinstance(target.hand_over(a_pair()), Later)
    postgres.start()
    assert target.hand_over(a_pair()) == Yes()
    postgres.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where pid <> pg_backend_pid() and backend_type = 'client backend'"
    )
    assert target.hand_over(a_pair(access_token="newest")) == Yes()
    assert stored(postgres) == [("test-location", "newest")]
    target.close()


def test_a_serialization_failure_is_for_later(postgres):
    postgres.execute(
        "create or replace function fail() returns trigger language plpgsql as "
        "$$ begin raise exception 'could not serialize' using errcode = '40001'; end $$",
        "create trigger fails before insert on pairs for each row execute function fail()",
    )
    target = target_of(postgres, INSERT)
    assert target.hand_over(a_pair()) == Later("the database cannot take it: could not serialize")
    target.close()


@pytest.mark.parametrize(
    ("state", "kind"),
    [("40P01", Later), ("53100", Later), ("57P01", Later), ("25006", Later), ("55P03", Later), ("08006", Later),
     ("23514", No), ("22001", No), ("42501", No), ("54000", No), ("P0001", No)],
)  # fmt: skip
def test_the_sqlstate_decides(postgres, state, kind):
    postgres.execute(
        "create or replace function state() returns trigger language plpgsql as "
        f"$$ begin raise exception 'words' using errcode = '{state}'; end $$",
        "create trigger states before insert on pairs for each row execute function state()",
    )
    target = target_of(postgres, INSERT)
    assert isinstance(target.hand_over(a_pair()), kind)
    target.close()


def test_a_server_that_hangs_is_cut_after_the_timeout(postgres):
    target = target_of(postgres, UPSERT, workers=1, seconds=0.5)
    assert target.hand_over(a_pair()) == Yes()
    ((pid,),) = postgres.execute(
        "select pid from pg_stat_activity where query like 'COMMIT%' and pid <> pg_backend_pid()"
        " and backend_type = 'client backend'"
    )
    postgres.freeze(pid)
    assert target.hand_over(a_pair()) == Later("the database did not answer within 0.5 s")
    assert target.hand_over(a_pair(access_token="newest")) == Yes()
    assert stored(postgres) == [("test-location", "newest")]
    target.close()


def test_a_statement_that_takes_too_long_is_ended_by_the_server_itself(postgres):
    slow = "insert into pairs (id) select :location_id from pg_sleep(30)"
    target = target_of(postgres, slow.replace(":location_id", "CAST(:location_id AS text)"), seconds=0.3)
    assert target.hand_over(a_pair()) == Later(
        "the database cannot take it: canceling statement due to statement timeout"
    )
    assert postgres.execute("select count(*) from pg_stat_activity where query like '%pg_sleep(30)%' and state = 'active'"
                            " and pid <> pg_backend_pid()") == [(0,)]  # fmt: skip
    target.close()


def test_nothing_is_kept_on_a_connection_between_two_transactions(postgres):
    target = target_of(postgres, UPSERT, workers=1)
    for number in range(8):  # psycopg prepares a statement that it has seen five times.
        target.hand_over(a_pair(access_token=str(number)))
    with target._engine.connect() as connection:
        assert connection.exec_driver_sql("select count(*) from pg_prepared_statements").scalar() == 0
        assert connection.exec_driver_sql("show statement_timeout").scalar() == "0"
    target.close()


# -- a courier's work ------------------------------------------------------------------------------------------------


def test_a_ledger_is_handed_over_by_several_threads(store, tmp_path):
    with waiting(tmp_path / "ledger", 60) as waits:
        target = target_of(store, UPSERT)
        courier = PoolCourier(waits.store, target, FAST)
        played(courier)
        assert waits.count("delivered") == 60
    assert len(stored(store)) == 60
    assert (courier.report.target, courier.report.delivered) == ("sql", 60)


def test_no_more_connections_are_open_than_there_are_workers(postgres, tmp_path):
    most = []
    over = threading.Event()

    def count():
        while not over.is_set():
            ((found,),) = postgres.execute("select count(*) from pg_stat_activity where application_name = 'counted'")
            most.append(found)

    with waiting(tmp_path / "ledger", 40) as waits:
        thread = threading.Thread(target=count)
        thread.start()
        try:
            played(
                PoolCourier(waits.store, target_of(f"{postgres.url}&application_name=counted", UPSERT, workers=2), FAST)
            )
        finally:
            over.set()
            thread.join()
    assert 1 <= max(most) <= 2


# -- a test ----------------------------------------------------------------------------------------------------------


def test_a_test_shows_the_rows_that_would_have_changed_and_changes_none(store):
    store.execute("insert into pairs (id, token) values ('one', 'old'), ('two', 'old')")
    everything = "update pairs set token = :access_token"
    settings = DeliverSettings(database_url=DatabaseUrl(store.url), sql=Statements([everything, UPDATE, INSERT]))
    tested = opening.test_target(settings, (), {}, opening._PROJECT)
    assert tested.works
    assert [line.partition(": ")[2] for line in tested.lines[:3]] == [
        "statement 1 would have changed 2 rows",
        "statement 2 would have changed 0 rows",
        "statement 3 would have changed 1 row",
    ]
    assert "everything was rolled back" in tested.lines[3]
    assert stored(store) == [("one", "old"), ("two", "old")]
    assert PASSWORD not in " ".join(tested.lines)


def test_a_test_of_a_statement_that_fails_says_so(store):
    settings = DeliverSettings(database_url=DatabaseUrl(store.url), sql=Statements(["update nowhere set x = 1"]))
    tested = opening.test_target(settings, (), {}, opening._PROJECT)
    assert not tested.works
    assert "nowhere" in tested.lines[0]
