"""results.csv, failures.csv and failures.xlsx: what they hold, and that each is a list of installs again."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.core.clock import utc_now
from jobs.core.model import App, Broken, Cause, Level, Record, Row, Run, Stage, Status
from jobs.core.secret import Secret
from jobs.ledger.support_queries import Listed, Tally
from jobs.manifest.reader import open_manifest
from jobs.reports.columns import FAILURES, RESULTS
from jobs.reports.page import Worklist
from jobs.reports.tables import own_cells, write_failures, write_results
from jobs.reports.workbook import write as write_workbook

TRICKY = st.text(alphabet=" \t\r\n'\"=+-@,;＝xé\x00\ufeff", max_size=6)
TAKEN = {column.name for column in (*RESULTS, *FAILURES)}
APPS = {"app-1": App("app-1", Secret("s"), redirect_uri="https://me.example/?a=1&b", scopes="a.readonly b.write")}
FAILED = Record(
    Status.FAILED, "LocA", "CoA", "app-1", Level.SUB_ACCOUNT, 2, True, cause=Cause.NOT_INSTALLED,
    stage=Stage.RECONNECT, message="=cmd()", http_status=400, attempts=3,
)  # fmt: skip


def is_the_users(name):
    plain = "".join(name.split()).replace("_", "").replace("-", "").casefold()
    return name.strip() not in TAKEN and plain not in {"locationid", "companyid", "clientid", "clientkey"}


def worklist(records):
    """What the failures of one cause are to the page and the workbook."""
    tallies = [Tally(Cause.NOT_INSTALLED, "app-1", len(records), 0, 0)]
    listed = [Listed(record, record.company_id, len(records), is_new=False) for record in records]
    return Worklist(tallies, None, lambda _: iter(listed), lambda: iter(()), ())


@pytest.fixture
def write(tmp_path):
    def to_file(name, columns, records):
        path = tmp_path / name
        with path.open("wb") as file:
            if name == "failures.csv":
                write_failures(file, columns, records, APPS)
            elif name == "failures.xlsx":
                write_workbook(file, Run("", "", "", utc_now()), columns, worklist(records), APPS, tmp_path)
            else:
                write_results(file, columns, records)
        return path

    return to_file


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(TRICKY.filter(is_the_users), TRICKY), max_size=4),
    st.lists(st.sampled_from(["failures.csv", "results.csv", "failures.xlsx"]), min_size=2, max_size=4),
)
def test_a_cell_survives_any_number_of_rounds_unchanged(write, own, rounds):
    for name in rounds:
        manifest = open_manifest(write(name, [column for column, _ in own], [replace(FAILED, cells=tuple(own))]))
        found = zip(manifest.columns, *(row.cells for row in manifest.rows()), strict=True)
        # A workbook does not show that it has a column without a name and without cells.
        assert [one for one in found if any(one)] == [one for one in own if any(one)]
        assert [(row.account_id, row.company_id, row.client_id) for row in manifest.rows()] == [
            ("LocA", "CoA", "app-1")
        ]


def test_a_broken_line_stays_broken_through_rounds_until_it_is_fixed(write, tmp_path):
    path = tmp_path / "installs.csv"
    path.write_text("location_id,name\nLocA,x,y\n", encoding="utf-8")
    for _ in range(3):
        manifest = open_manifest(path)
        (line,) = manifest.rows()
        assert isinstance(line, Broken)
        columns = [*manifest.columns, *(["row_as_read"] if "row_as_read" not in manifest.columns else [])]
        torn = Record(
            Status.FAILED, "", "", "", None, line.line, True, tuple(zip(columns, line.cells, strict=True)),
            cause=Cause.INVALID_ROW, stage=Stage.MANIFEST, message=line.why,
        )  # fmt: skip
        path = write("failures.csv", columns, [torn])
        with path.open(encoding="utf-8-sig", newline="") as file:
            assert [row["row_as_read"] for row in csv.DictReader(file)] == ["LocA,x,y"]
    path.write_text(path.read_text(encoding="utf-8").replace("\n,", "\nLocA,", 1), encoding="utf-8")
    assert [type(row) for row in open_manifest(path).rows()] == [Row]


def test_a_cell_that_a_spreadsheet_would_run_is_harmless_in_failures_and_as_it_was_in_results(write):
    record = replace(FAILED, cells=(("=head", "+1"),))
    with write("failures.csv", ["=head"], [record]).open(encoding="utf-8", newline="") as file:
        assert file.read(1) == "\ufeff"
        (row,) = csv.DictReader(file)
    assert (row["message"], row["'=head"], row["owner"]) == ("'=cmd()", "'+1", "customer")
    assert row["reinstall_url"].endswith(
        "?response_type=code&client_id=app-1&redirect_uri=https%3A%2F%2Fme.example%2F%3Fa%3D1%26b"
        "&scope=a.readonly+b.write&version_id=app"
    )
    with write("results.csv", ["=head"], [record]).open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["message"], row["=head"], row["access_token"]) == ("=cmd()", "+1", "")


def test_of_two_columns_with_one_name_each_keeps_its_own_and_an_absent_one_is_empty():
    record = replace(FAILED, cells=(("note", "a"), ("note", "b"), ("x", "c")))
    assert own_cells(record, ["note", "x", "note", "y", "note"]) == ["a", "c", "b", "", ""]


def test_a_column_that_an_older_list_had_hides_no_column_of_the_reports(tmp_path):
    record = replace(FAILED, cells=(("sealed", "yes, 2024"), ("name", "Harbor")))
    with (tmp_path / "results.csv").open("wb") as file:
        write_results(file, ["sealed", "name"], [record], sealed=True)
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        header, row = csv.reader(file)
    assert header == [*(column.name for column in RESULTS), "name"]
    assert row[-1] == "Harbor"
