"""Which addresses of a database are taken, and how it is connected to."""

from __future__ import annotations

import re

import psycopg
import pytest

from jobs.core.errors import UserError
from jobs.core.secret import Secret
from jobs.ledger.postgres import Database, check_url, problem_of

REMOTE = "[prod]\nhost=db.example.com\nsslmode=disable\n"


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A service file of libpq that names a remote host."""
    (tmp_path / "services").write_text(REMOTE)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PGSSLMODE", "require")


def test_a_host_from_a_service_file_needs_encryption_in_the_address_itself(service, monkeypatch):
    with pytest.raises(UserError, match="from a service file, so it may send live tokens unencrypted"):
        check_url(Secret("postgresql:///?service=prod"))
    check_url(Secret("postgresql:///?service=prod&sslmode=require"))
    monkeypatch.setenv("PGSERVICE", "prod")
    with pytest.raises(UserError, match="would send live tokens unencrypted over the network"):
        check_url(Secret("postgresql:///"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db.example.com/main?",
        "postgresql://localhost,db.example.com/main?",
        "postgresql://localhost/main?hostaddr=192.0.2.7&",
        "postgresql+psycopg://app:secret@192.0.2.7/main?",
    ],
)
def test_pairs_go_to_another_machine_only_encrypted(url):
    for mode in ("", "sslmode=disable", "sslmode=allow", "sslmode=prefer"):
        with pytest.raises(UserError, match="would send live tokens unencrypted over the network: add") as refused:
            check_url(Secret(url + mode))
        assert "secret" not in str(refused.value)
    for mode in ("require", "verify-ca", "verify-full"):
        check_url(Secret(f"{url}sslmode={mode}"))


@pytest.mark.parametrize("host", ["", "localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpg"])
def test_pairs_that_stay_on_this_machine_need_no_encryption(host):
    check_url(Secret(f"postgresql://{host}/main"))


@pytest.mark.parametrize("password", ["first@last", "first/last", "first@mid@last", "first/mid@last"])
def test_a_password_that_is_not_encoded_is_refused_and_no_part_of_it_is_shown(password):
    with pytest.raises(
        UserError, match="RECOVERY_LEDGER__URL: has a sign in its password that must be escaped"
    ) as refused:
        check_url(Secret(f"postgresql://app:{password}@db.example.com/main?sslmode=require"))
    assert not {"first", "mid", "last"} & set(re.findall(r"[a-z]+", str(refused.value)))


def told(url, seconds=None):
    """What libpq is told about a connection that waits ten seconds for an answer."""
    with Database(Secret(url), "ledgers", 10).connect(seconds) as connection:
        return connection.info.get_parameters()


def test_a_way_to_the_server_that_is_gone_is_noticed_within_its_answer(postgres):
    known = told(postgres.url)
    assert known["tcp_user_timeout"] == "10000"
    assert (known["keepalives_idle"], known["keepalives_interval"], known["keepalives_count"]) == ("5", "2", "3")
    assert (known["application_name"], known["connect_timeout"]) == ("highlevel-recovery", "10")


def test_what_the_address_or_the_environment_says_about_a_connection_counts(postgres, monkeypatch):
    monkeypatch.setenv("PGAPPNAME", "mine")
    url = f"{postgres.url}&connect_timeout=30&tcp_user_timeout=7000&keepalives_idle=60"
    known = told(url)
    assert (known["connect_timeout"], known["tcp_user_timeout"], known["keepalives_idle"]) == ("30", "7000", "60")
    assert "application_name" not in known or known["application_name"] == "mine"
    assert told(url, 2.0)["connect_timeout"] == "2"


def test_an_error_that_repeats_a_password_is_shown_without_it():
    url = Secret("postgresql://app:first%2Fword@db/main?sslpassword=second-word")
    problem = problem_of(Database(url, "ledgers", 10), psycopg.OperationalError("first/word, second-word: no"))
    assert not {"first", "second", "word"} & set(re.findall(r"[a-z]+", str(problem)))
    assert ": no)" in str(problem)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://app:secret@db/main", "postgresql://db/main"),
        ("postgresql:///main?host=/run/pg", "postgresql, socket /run/pg, database main"),
    ],
)
def test_an_error_names_the_host_or_the_socket(url, shown):
    problem = problem_of(Database(Secret(url), "ledgers", 10), psycopg.OperationalError("connection refused"))
    assert (problem.where, problem.what) == (shown, "does not accept the job's data (connection refused)")
