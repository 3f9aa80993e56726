"""Bad manifests, made by hypothesis: a clear line, or every row accounted for; and a cell survives any number of rounds.

The runs are the job's own from the manifest to the reports; only the two calls are left out, for outcomes that are given.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections import Counter
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from jobs.config.apps import Apps
from jobs.core.errors import UserError
from jobs.core.formula_guard import guard
from jobs.core.model import App, Broken, Cause, Failed, Recovered, Route, Run, Stage, Tokens, Unfinished
from jobs.core.secret import Secret
from jobs.ledger.counts import as_it_stands
from jobs.ledger.opening import open_ledger
from jobs.ledger.reads import failures, records, user_columns
from jobs.manifest.reader import ROW_AS_READ, open_manifest
from jobs.manifest.redaction import Redactor, holds_secret, names_secret
from jobs.reports.columns import FAILURES, RESULTS
from jobs.reports.tables import write_failures, write_results
from jobs.start import with_apps
from jobs.system.files import replacing

AT = "2026-11-24T00:00:00.000Z"
APPS = Apps({"app-1": App("app-1", Secret("secret-of-the-app"))})
EASY = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=25, deadline=None
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NASTY = st.sampled_from(
    [
        "=1+1",
        "'=1",
        "''-x",
        "@a",
        "\t",
        "\r",
        "\n",
        "\r\n",
        '"',
        '""',
        ",",
        ";",
        "NA",
        "1e5",
        "＝x",
        "\x00",
        " ",
        "﻿",
        "'",
        "sep=;",
    ]
)
CELL = TEXT | NASTY | st.tuples(NASTY, TEXT).map("".join)
ACCOUNT = st.sampled_from(["LocA", "LocB", "LocC", "", "bad id", "=LocD", "x" * 65, "LocA "])


@contextmanager
def folder_of(tmp_path):
    folder = tmp_path / "out"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    yield folder


def outcome_of(install):
    """An outcome that the account's name decides: back, failed, or not finished."""
    name = install.key.account_id
    if name.endswith("A"):
        secrets = Secret(f"access-{name}"), Secret(f"refresh-{name}")
        return Recovered(
            Tokens(*secrets, "Bearer", "", "", install.key.level.value, "u", "Co", name, ""), Route.RECONNECT, 1, AT
        )
    return Failed(Cause.NOT_INSTALLED, Stage.RECONNECT, "=no", 400, "", 1, AT) if name.endswith("B") else Unfinished(1)


def night(folder, content, name="installs.csv"):
    """One run on a manifest of these bytes. Returns its rows as read, and the counts of the run."""
    path = folder.parent / name if name == "installs.csv" else folder / name
    if content is not None:
        path.write_bytes(content)
    manifest = open_manifest(path)
    rows = list(with_apps(manifest.rows(), APPS))
    ledger = open_ledger(folder, "https://api.example.test")
    try:
        with ledger.enrolling() as enrolment:
            read = enrolment.stage(rows)
            enrolment.enrol(manifest.columns, AT, with_companies=manifest.with_companies)
            enrolment.refuse_unknown_apps(APPS.known, AT, "")
            apps = enrolment.line_up(APPS.known, before="", causes=())
        for client_id in apps:
            ledger.record([(install, outcome_of(install)) for install in ledger.todo(client_id)])
        with ledger.engine.connect() as connection:
            run = as_it_stands(connection, Run("run", str(path), "https://api.example.test", AT), read)
        with ledger.engine.connect() as connection:
            columns = user_columns(connection)
            with replacing(folder / "results.csv") as file:
                write_results(file, columns, records(connection))
            with replacing(folder / "failures.csv") as file:
                write_failures(file, columns, map(Redactor(), failures(connection)), APPS.known)
    finally:
        ledger.close()
    return rows, run.counts


def table(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def as_csv(rows, separator=","):
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows(rows)
    return text.getvalue().encode()


def key(row):
    return (row.client_id, row.level, row.account_id)


def accounted(folder, rows, counts):
    """Every row of the manifest is in the reports, in exactly one of recovered, failed and pending."""
    installs = {key(row) for row in rows if not isinstance(row, Broken)}
    broken = [row for row in rows if isinstance(row, Broken)]
    assert counts.rows == len(rows)
    assert counts.installs == len(installs) + len(broken)
    assert counts.recovered + counts.failed + counts.pending == counts.installs
    assert counts.duplicates == len(rows) - counts.installs
    header, *lines = table(folder / "results.csv")
    assert {len(line) for line in lines} <= {len(header)}
    statuses = Counter(line[header.index("status")] for line in lines)
    assert statuses == +Counter(recovered=counts.recovered, failed=counts.failed, pending=counts.pending)
    where = [header.index(name) for name in ("client_id", "location_id", "company_id")]
    listed = Counter(
        tuple(line[index] for index in where) for line in lines if line[header.index("cause")] != "invalid_row"
    )
    assert set(listed.values()) <= {1}
    assert len(listed) == len(installs)
    assert len(table(folder / "failures.csv")) - 1 == counts.failed


TAKEN = {"failures.csv": FAILURES, "results.csv": RESULTS}
BYTES = st.binary(max_size=200)
BEGINS = [
    b"location_id,name\n",
    b"\xef\xbb\xbfLocation ID;company_id;x\r\n",
    b'"location_id"\tx\r',
    b"company_id,client_id\n",
    b"",
]


@EASY
@given(st.sampled_from(BEGINS), BYTES)
@example(b"location_id,name\n", b'LocA,"x\n')
@example(b"location_id,name\n", b"LocA,\x00\nLocB\n\nLocA,y,z\n")
@example(b"location_id,name\n", b"LocA,\xf0\x9f\x98")
def test_any_bytes_give_one_clear_line_or_a_run_that_accounts_for_every_row(tmp_path, begin, content):
    with folder_of(tmp_path) as folder:
        refused = ""
        try:
            rows, counts = night(folder, begin + content)
        except UserError as error:
            refused = str(error)
        if refused:
            assert len(refused.splitlines()) == 1
            assert "installs.csv" in refused
        else:
            accounted(folder, rows, counts)


@EASY
@given(
    st.lists(st.tuples(ACCOUNT, ACCOUNT, st.sampled_from(["app-1", "", "other", "é"]), CELL), max_size=8),
    st.sampled_from(",;\t"),
)
def test_any_rows_are_accounted_for_also_over_rounds(tmp_path, lines, separator):
    with folder_of(tmp_path) as folder:
        header = ("location_id", "companyId", "client key", "note")
        rows, counts = night(folder, as_csv([header, *lines], separator))
        accounted(folder, rows, counts)
        failed = counts.failed
        for _ in range(2):
            rows, counts = night(folder, None, "failures.csv")
            assert len(rows) == failed
            assert (counts.recovered, counts.pending) == (0, 0)
            assert counts.failed == failed


def is_the_users(name):
    normal = "".join(name.split()).replace("_", "").replace("-", "").casefold()
    known = {"locationid", "companyid", "clientid", "clientkey", "accesstoken", "refreshtoken"}
    return normal not in known and name != ROW_AS_READ


@EASY
@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=4), st.tuples(CELL, CELL, CELL), st.integers(1, 3))
@example([("'=1", "''=1", "\r")], ("=x", "'=x", "''=x"), 3)
def test_any_cell_and_any_column_of_the_users_survives_any_number_of_rounds(tmp_path, cells, names, rounds):
    assume(all(is_the_users(name) and not names_secret(name) for name in names))
    assume(not any(holds_secret(cell) for row in cells for cell in row))
    content = as_csv([("location_id", *names), *((f"Loc{n}B", *row) for n, row in enumerate(cells))])
    with folder_of(tmp_path) as folder:
        try:
            manifest = open_manifest(_written(tmp_path, content))
        except UserError:
            assume(False)
        assume(manifest.columns == names)
        night(folder, content)
        for _ in range(rounds):
            header, *lines = table(folder / "failures.csv")
            assert header[-3:] == [guard(name) for name in names]
            assert [line[-3:] for line in lines] == [[guard(cell) for cell in row] for row in cells]
            night(folder, None, "failures.csv")
        header, *lines = table(folder / "results.csv")
        assert header[-3:] == list(names)
        assert [tuple(line[-3:]) for line in lines] == cells


PIECE = st.sampled_from(
    ["LocA", "LocB", "LocC", "x", '"', '""', '\\"', ",", ",", ";", " ", "=1", "'", "****", "a" * 40]
)


@EASY
@given(
    st.lists(st.lists(PIECE, max_size=7).map("".join), min_size=1, max_size=6),
    st.sampled_from(["failures.csv", "results.csv"]),
)
@example(["****", '\\"' + "a" * 40], "failures.csv")
@example(['\\"' + "a" * 40, "****"], "failures.csv")
@example(['\\"' + "a" * 40, "****"], "results.csv")
@example(['LocA,"x', "LocB,y", 'LocC,"z",w', "LocB,=1,x"], "failures.csv")
def test_what_cannot_be_told_apart_survives_any_number_of_rounds_unchanged(tmp_path, lines, name):
    def said(file):
        header, *rows = table(file)
        shown = [header.index(one) for one in ("location_id", "company_id", "client_id")] + list(
            range(len(TAKEN[name]), len(header))
        )
        return sorted(tuple(row[index] for index in shown) for row in rows)

    with folder_of(tmp_path) as folder:
        night(folder, "\n".join(["location_id,note", *lines]).encode())
        before = said(folder / name)
        for _ in range(3):
            night(folder, None, name)
            now = said(folder / name)
            assert [row[: len(before[0])] for row in now] == before if before else not now
            before = now


def _written(tmp_path, content):
    path = tmp_path / "look.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"), (b"\n\n ,\n", "installs.csv"), (b"l\x00o\x00", "UTF-16"), (b"name\nx\n", "no column"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00", "installs.csv"), (b"location_id\nLocA\n\xc3", "not UTF-8"),
        (b"location_id,Location-ID\nA,B\n", "two columns"),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_used_is_one_line_and_exit_2_and_leaves_nothing(stage, content, says):
    job = stage.job
    assert stage.run(job.manifest(content), job.output)["code"] == 2
    error, last = stage.said().splitlines()
    assert says in error
    assert last.startswith("exit 2")
    assert not job.output.exists()
    assert job.sandbox.seen == []
