"""The manifest, and what spreadsheets do to one."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.cells import guard, unguard
from jobs.errors import UserError
from jobs.manifest import open_manifest
from jobs.model import Broken, Level, Row


@pytest.fixture
def read(tmp_path):
    def from_bytes(content):
        path = tmp_path / "installs.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        manifest = open_manifest(path)
        return manifest, list(manifest.rows())

    return from_bytes


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["location_id", "locationId", "Location ID", "LOCATION-ID"])
def test_separators_line_ends_and_header_spellings(read, separator, end, name):
    manifest, rows = read("﻿" + end.join([f"{name}{separator}plan", f"LocA{separator}gold", ""]))
    assert manifest.columns == ("plan",)
    assert rows == [Row(2, "", Level.SUB_ACCOUNT, "LocA", "", ("gold",))]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_header_in_quotes_is_a_header(read, separator):
    text = io.StringIO()
    csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([["location_id", "a,b;c"], ["LocA", "x"]])
    manifest, rows = read(text.getvalue())
    assert manifest.columns == ("a,b;c",)
    assert rows == [Row(2, "", Level.SUB_ACCOUNT, "LocA", "", ("x",))]


def test_a_company_id_alone_is_an_agency_and_neither_is_broken(read):
    _, rows = read("location_id,company_id,n\nLocA,CoA,1\n,CoB,2\n,,3\n")
    assert [(type(row), getattr(row, "level", None)) for row in rows] == [
        (Row, Level.SUB_ACCOUNT), (Row, Level.AGENCY), (Broken, None)
    ]  # fmt: skip
    assert "line 4" in rows[2].why


def test_words_that_mean_something_elsewhere_are_just_text(read):
    _, rows = read("location_id,a,b,c,d\nLocA,NA,null,1e5,007\n")
    assert rows[0].cells == ("NA", "null", "1e5", "007")


def test_ragged_rows_fail_by_themselves_with_their_line_and_keep_their_text(read):
    _, rows = read('location_id,name\nLocA,"two\nlines"\nLocB\nLocC,x,y\nLocD,z,\n')
    assert [type(row) for row in rows] == [Row, Broken, Broken, Row]
    assert rows[1].why == "line 4 has 1 cells where the header has 2"
    assert rows[2].cells == ("", "LocC,x,y")


def test_of_a_ragged_row_in_a_list_of_old_tokens_nothing_is_kept_but_its_shape(read):
    _, rows = read("location_id,access_token,refresh_token,name\nLocA,5f3a9c1e7b2d4860,7f3a,Smith, Inc.\nLocB,7f3b\n")
    assert [row.cells for row in rows] == [("", "****,****,****,****,****"), ("", "****,****")]
    assert rows[0].why == "line 2 has 5 cells where the header has 4"


@pytest.mark.parametrize("bad", ["1.23E+19", "a b", "-x", "é", "x" * 65, "a/b"])
def test_an_id_must_look_like_one(read, bad):
    _, rows = read(f"location_id\n{bad}\n")
    assert isinstance(rows[0], Broken)


def test_blank_lines_and_the_separator_line_of_a_spreadsheet_are_no_rows(read):
    _, rows = read("sep=;\r\nlocation_id;name\r\nLocA;x\r\n;\r\n\r\n")
    assert len(rows) == 1


def test_two_columns_of_the_users_with_one_name_are_kept_and_report_columns_left_out(read):
    manifest, rows = read("location_id,note,note,status,access_token\nLocA,a,b,c,secret\n")
    assert manifest.columns == ("note", "note")
    assert manifest.left_out == ("status",)
    ours, _ = read("location_id,status,access_token,refresh_token,route,recovered_at,note\n")
    assert (ours.columns, ours.left_out) == (("note",), ())
    assert rows[0].cells == ("a", "b")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"name\nx\n", "no column location_id"),
        (b"location_id,locationId\na,b\n", "two columns"),
        (b'"location_id"x,name\na,b\n', "no CSV"),
        ("location_id\nLocA\n".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04\x14\x00", "is a workbook"),
        (b"location_id,name\nLocA,caf\xe9\n", "is not UTF-8 (line 2)"),
        (b'location_id,name\nLocA,x\nLocB,"open\nLocC,y\n', "line 3"),
    ],
)
def test_what_cannot_be_used_at_all_is_one_clear_line(read, content, says):
    with pytest.raises(UserError) as error:
        read(content)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_one_clear_line(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(UserError):
            open_manifest(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b"location_id,name\n" + tail))
def test_any_bytes_give_rows_or_a_clear_line(read, content):
    try:
        _, rows = read(content)
    except UserError:
        return
    assert all(isinstance(row, Row | Broken) for row in rows)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2), st.sampled_from(",;\t"))
def test_any_cell_comes_back_as_it_was(read, cells, separator):
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows([["location_id", "a", "b"], ["LocA", *cells]])
    assert read(text.getvalue())[1][0].cells == tuple(cells)


@given(st.text() | st.from_regex(r"'*[=+\-@\t\r\n＝＋－＠].*"))
def test_a_guarded_cell_is_harmless_and_comes_back(cell):
    assert not guard(cell) or guard(cell)[0] not in "=+-@\t\r\n＝＋－＠"
    assert unguard(guard(cell)) == cell
