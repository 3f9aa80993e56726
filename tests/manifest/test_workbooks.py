"""A workbook is a list like the CSV of the same table. What is not text in a cell of an id never becomes another id."""

from __future__ import annotations

import csv
import datetime as dt
import gc
import io
import os
import random
import weakref
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import openpyxl
import pytest
import xlsxwriter
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from xlsxwriter.utility import xl_col_to_name

from jobs.core.errors import UserError
from jobs.core.model import Broken, Level, Row
from jobs.manifest.raw_sheets import Kind
from jobs.manifest.reader import open_manifest
from jobs.manifest.sheet_choice import open_workbook
from jobs.manifest.warnings import ListWarnings
from jobs.reports import columns as reports
from jobs.reports import workbook as reports_workbook
from tests.helpers.raw_workbooks import ods, zipped
from tests.helpers.workbooks import Formula, workbook

SAMPLES = Path(__file__).parent.parent / "samples"
FAILURES = ["next_step", "reinstall_url", "location_id", "company_id", "client_id", "cause", "owner", "message", "note"]


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """`read(rows)` or `read(sheets)` is what a workbook says. `read.by(path)` is what the list at `path` says."""
    path = tmp_path_factory.mktemp("workbooks") / "list.xlsx"

    def of(sheets, chosen=None, sheet=None, hidden=()):
        if not isinstance(sheets, bytes):
            sheets = workbook(sheets if isinstance(sheets, dict) else {"Sheet1": sheets}, hidden)
        path.write_bytes(sheets)
        return what_it_says(path, chosen, sheet)

    return of


def what_it_says(path, chosen=None, sheet=None):
    manifest, noticed = open_manifest(path, chosen or {}, sheet=sheet), ListWarnings()
    rows = list(manifest.rows(noticed))
    return manifest.columns, rows, list(noticed.warnings())


def refused(read, sheets, **more):
    with pytest.raises(UserError) as why:
        read(sheets, **more)
    return str(why.value).partition("list.xlsx: ")[2]


TRICKY = [
    "NA", "null", "nan", "None", r"\N", "00123", "1e5", "1.0", "TRUE", "#N/A", '="LocA"', "'=x", "=1+1", "@x", "+49 170", "-",
    "https://example.com/?a=b", "LocA", "loc b", "Käse", "😀", "_x000D_", "_x0041_", "2026-01-02", "a,b", 'a "b"',
    "a;b\tc", "\u200bLocA", "\u00a0", " x ", "location_id", "company_id", "<b>&amp;</b>", "x" * 40,
]  # fmt: skip
CELLS = st.sampled_from(["", *TRICKY]) | st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=5
)
NA = Formula("=NA()", "#N/A")
HEADERS = [
    ["location_id", "company_id", "client_id", "access_token", "note"],
    ["Name", "Company ID", "note", "LocationId"],
    ["location_id", "company_id", "cause", "owner", "next_step", "reinstall_url", "note"],
    FAILURES,
]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(HEADERS[0], [[cell, "CoA", "", cell, cell] for cell in TRICKY])
@example(HEADERS[3], [[cell] * len(FAILURES) for cell in TRICKY])
@given(st.sampled_from(HEADERS), st.lists(st.lists(CELLS, min_size=9, max_size=9), max_size=6))
def test_a_workbook_says_what_the_csv_of_the_same_table_says(read, tmp_path_factory, header, rows):
    table = [header, *(row[: len(header)] for row in rows)]
    text = io.StringIO()
    csv.writer(text).writerows(table)
    path = tmp_path_factory.getbasetemp() / "same.csv"
    path.write_bytes(text.getvalue().encode())
    assert read(table, {"location_id": header[-1]} if "Name" in header else None) == what_it_says(
        path, {"location_id": header[-1]} if "Name" in header else None
    )


def test_a_cell_of_several_lines_is_one_cell_of_one_row(read):
    assert read([["location_id", "note"], ["LocA", "LocX\nLocY\r\nLocZ"], ["LocB", ""]])[1] == [
        Row(2, "", Level.SUB_ACCOUNT, "LocA", "", ("LocX\nLocY\r\nLocZ",)),
        Row(3, "", Level.SUB_ACCOUNT, "LocB", "", ("",)),
    ]


@pytest.mark.parametrize("kind", ["ods", "xls"])
def test_a_sheet_of_another_program_says_the_same(kind):
    """The samples were saved by LibreOffice. The cell with TRUE is a number there in one of them."""
    columns, rows, told = what_it_says(SAMPLES / f"installs.{kind}")
    assert columns == ("name", "seats", "since", "note")
    rows = [row for row in rows if row.cells[0] != "a boolean"]
    assert [(row.line, row.account_id, row.company_id) for row in rows if isinstance(row, Row)] == [
        (2, "LocA", "CoA"), (3, "CoB", "CoB"), (4, "1234567", "CoA"), (10, "LocB", "CoA")
    ]  # fmt: skip
    assert [row.cells[0] for row in rows if isinstance(row, Broken)] == ["a date", "an error", "a number"]
    assert [row.cells[1:3] for row in rows][:2] == [("12", "2026-01-02"), ("1.5", "2026-01-02T03:04:05")]
    assert [row.cells[3] for row in rows] == ["NA", '="x"', "two\nlines", "null", "#DIV/0!", "\r", ""]
    assert "cannot be used: A5 holds a date" in told[1]


SHOWN = [
    (1234567, "1234567"),
    (2**53 - 1, "9007199254740991"),
    (-0.0, "0"),
    (12.5, "12.5"),
    (1e20, "1e+20"),
    (0.1 + 0.2, "0.3"),
    (True, "TRUE"),
    (False, "FALSE"),
    (dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC), "2026-01-02T03:04:00"),
    (dt.date(2026, 1, 2), "2026-01-02"),
    (dt.time(8, 30), "08:30:00"),
    (Formula("=NA()", "#N/A"), "#N/A"),
    (Formula("=1/0", "#DIV/0!"), "#DIV/0!"),
    (Formula("=A1", "text"), "text"),
    (Formula("=A1", 7), "7"),
    (Formula('=""', ""), ""),
]


def test_a_cell_of_the_users_own_columns_is_its_text_as_shown(read):
    _, rows, _ = read([["location_id", "own"], *([f"Loc{n}", value] for n, (value, _) in enumerate(SHOWN))])
    assert [row.cells[0] for row in rows] == [shown for _, shown in SHOWN]


def test_a_whole_number_is_an_id_of_its_digits(read):
    _, rows, _ = read([["location_id", "company_id"], [1234567, 2**53 - 1], [Formula("=A2", 42), "CoA"]])
    assert [(row.account_id, row.company_id) for row in rows] == [("1234567", str(2**53 - 1)), ("42", "CoA")]


NO_IDS = {
    "a date": [dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC), dt.date(2026, 1, 2)],
    "a time": [dt.time(8, 30)],
    "TRUE or FALSE": [True, False],
    "a number that is not whole or has too many digits": [12.5, 1e20, 2**53, -(2.0**60)],
    "an error": [Formula("=NA()", "#N/A"), Formula("=1/0", "#DIV/0!"), Formula("=x", "#NAME?")],
    "a formula without a value": [Formula("=A1", "")],
}


@pytest.mark.parametrize("what", NO_IDS)
@pytest.mark.parametrize("place", range(5))
def test_what_is_not_text_in_a_cell_of_an_id_or_token_makes_an_invalid_row_that_names_the_cell(read, what, place):
    header = ["location_id", "company_id", "client_id", "access_token", "refresh_token", "own"]
    good = ["LocA", "CoA", "client", "old", "older", "mine"]
    values = NO_IDS[what]
    _, rows, told = read([header, *([*good[:place], value, *good[place + 1 :]] for value in values), good])
    assert [type(row) for row in rows] == [Broken] * len(values) + [Row]
    assert f"{'ABCDE'[place]}2 holds {what}: " in rows[0].why
    assert f"{'ABCDE'[place]}2 holds {what}" in told[0]
    assert all(row.cells == ("mine",) for row in rows)


@pytest.mark.parametrize("what", NO_IDS)
def test_a_location_that_is_not_text_never_makes_an_agency_not_even_in_the_next_round(read, what):
    _, rows, _ = read([["location_id", "company_id"], *([value, "CoA"] for value in NO_IDS[what])])
    again = read([["location_id", "company_id"], *([row.location_id, row.company_id] for row in rows)])[1]
    assert {type(row) for row in (*rows, *again)} == {Broken}
    assert all(": the location id could not be read from an earlier workbook: enter it" in row.why for row in again)


def test_what_an_ods_keeps_as_a_number_is_an_id_only_if_it_is_shown_as_digits(read):
    def cell(shown, kind="float", **attributes):
        said = " ".join(f'office:{name.replace("_", "-")}="{value}"' for name, value in attributes.items())
        return f'<table:table-cell office:value-type="{kind}" {said}><text:p>{shown}</text:p></table:table-cell>'

    cells = [
        cell("location_id", "string"),
        cell("00123", value="123"),
        cell("7", value="7"),
        cell("TRUE", value="1"),
        cell("01/01/26", value="46023"),
        cell("30:00:00", "time", time_value="PT30H00M00S"),
        cell("Fehler:502", value="0"),
    ]
    rows = read(zipped(ods("".join(f"<table:table-row>{one}</table:table-row>" for one in cells))))[1]
    assert [row.account_id for row in rows[:2]] == ["00123", "7"]
    assert [row.why.partition(":")[0] for row in rows[2:]] == [
        f"A{number} holds a number, a date or a duration" for number in range(4, 8)
    ]


def test_a_row_of_nothing_but_formulas_without_a_value_is_blank_and_told(read):
    empty = Formula('=IF(X2="","",X2)', "")
    _, rows, told = read([["location_id", "company_id", "n"], ["LocA", "CoA", 1], *[[empty, empty, empty]] * 3])
    assert [row.account_id for row in rows] == ["LocA"]
    assert told == ["3 lines (3, 4, 5) hold only formulas and are skipped: none of them has a value"]


def test_formulas_that_no_program_has_calculated_are_not_lost(read):
    """openpyxl writes a formula without its value, so that calamine's sheet ends before it."""
    book, file = openpyxl.Workbook(), io.BytesIO()
    for row in (["location_id", "company_id"], ["LocA", "CoA"], ["=A2", None], [None, None], ["=A2", "=B2"]):
        book.active.append(row)
    book.save(file)
    _, rows, told = read(file.getvalue())
    assert [(row.line, type(row)) for row in rows] == [(2, Row)]
    assert told == ["2 lines (3, 5) hold only formulas and are skipped: none of them has a value"]


def test_row_numbers_and_cells_are_those_of_the_sheet(read):
    pad = [None, None]
    table = [
        [],
        [],
        [*pad, "note", "location_id"],
        [],
        [*pad, "x", "LocA"],
        [*pad, "y", True],
        [],
        [*pad, NA, "LocB"],
        [*pad, "z", NA],
    ]
    columns, rows, _ = read(table)
    assert columns == ("note",)
    assert [row.line for row in rows] == [5, 6, 8, 9]
    assert [row.cells for row in rows] == [("x",), ("y",), ("#N/A",), ("z",)]
    assert [row.why.partition(":")[0] for row in (rows[1], rows[3])] == ["D6 holds TRUE or FALSE", "D9 holds an error"]


def test_merged_cells_and_hidden_rows_are_read(read):
    file = io.BytesIO()
    with xlsxwriter.Workbook(file) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["location_id", "company_id"])
        sheet.write_row(1, 0, ["LocA", "CoA"])
        sheet.merge_range(2, 0, 2, 1, "LocB")
        sheet.write_row(3, 0, ["LocC", "CoA"])
        sheet.set_row(3, None, None, {"hidden": True})
        chart = book.add_chart({"type": "line"})
        chart.add_series({"values": "=Sheet1!$A$1:$A$2"})
        book.add_chartsheet("Chart").set_chart(chart)
    assert [row.account_id for row in read(file.getvalue())[1]] == ["LocA", "LocB", "LocC"]


def test_a_workbook_with_macros_is_a_list_too(read):
    file = io.BytesIO()
    with xlsxwriter.Workbook(file) as book:
        book.add_vba_project(io.BytesIO(b"macros"), is_stream=True)
        book.add_worksheet().write_column(0, 0, ["location_id", "LocA"])
    assert b"vbaProject.bin" in file.getvalue()
    assert [row.account_id for row in read(file.getvalue())[1]] == ["LocA"]


@pytest.mark.parametrize("column", [0, 25, 26, 51, 52, 701, 702, 16383])
def test_a_cell_is_named_as_in_a_spreadsheet(read, column):
    _, (row,), _ = read([[*[None] * column, "location_id"], [*[None] * column, True]])
    assert row.why.startswith(f"{xl_col_to_name(column)}2 holds TRUE or FALSE")


LISTS = {"Notes": [["hello"]], "Affected": [["location_id"], ["LocA"]], "Old": [["location_id"], ["LocOld"]]}


def test_the_one_visible_sheet_with_an_id_is_the_list(read):
    assert [row.account_id for row in read(LISTS, hidden=["Old"])[1]] == ["LocA"]


def test_a_sheet_is_chosen_by_the_name_that_the_error_shows(read):
    sheets = {"Two\nlines": [["location_id"], ["LocA"]], "B": [["location_id"], ["LocB"]]}
    assert "'Two lines', B" in refused(read, sheets)
    assert [row.account_id for row in read(sheets, sheet="Two lines")[1]] == ["LocA"]


def test_the_name_of_a_column_is_on_one_line_in_errors(read):
    header = ["Two\nlines", "company_id", *map(str, range(20))]
    says = refused(read, [header, ["x"]], chosen={"location_id": "Sub"})
    assert (
        says
        == "has no column 'Sub', which --column names: choose one of its columns: Two lines, company_id, 0, 1, 2, 3, 4, 5, 6, 7, ..."
    )
    says = refused(read, [["sub-account\nid", "note"], ["LocA", "x"]])
    assert "--column 'location_id=sub-account id'" in says
    assert "\n" not in says


def test_a_sheet_may_be_named_also_a_hidden_one(read):
    assert [row.account_id for row in read(LISTS, sheet="Old", hidden=["Old"])[1]] == ["LocOld"]
    assert [row.account_id for row in read(LISTS, sheet="affected ")[1]] == ["LocA"]


def test_a_column_that_is_chosen_chooses_its_sheet(read):
    sheets = {"Notes": [["hello"], ["x"]], "Affected": [["Sub"], ["LocA"]]}
    assert [row.account_id for row in read(sheets, {"location_id": "Sub"})[1]] == ["LocA"]


@pytest.mark.parametrize(
    ("sheets", "more", "says"),
    [
        (LISTS, {}, "has several sheets with installs: choose one with --sheet: Affected, Old"),
        (LISTS, {"sheet": "Afected"}, "has no sheet 'Afected': choose one with --sheet: Notes, Affected, Old"),
        ({"My list": [["a"]], "B": [["b"]]}, {}, "has no sheet with a column location_id or company_id: rename a column in one, or choose one with --sheet: 'My list', B"),
        ({"A": [["a"], ["b"]]}, {}, "has no column location_id or company_id: give one of its columns that name, or"),
        ({"A": [["LocAbcdefghijklmnop12"]]}, {}, "has no header: its first line holds ids"),
        ({"A": [["Affected"], [], ["Location ID", "x"], ["LocA"]]}, {}, "has its header in line 3, below other lines: delete the lines above it"),
        ({"A\nB": [["a"]], **{f"{n}": [["x"]] for n in range(10)}}, {}, "has no sheet with a column location_id or company_id: rename a column in one, or choose one with --sheet: 'A B', 0, 1, 2, 3, 4, 5, 6, 7, 8, ..."),
        ({"A": [], "B": []}, {}, "is empty: use a list with a header"),
        ({"A": LISTS["Old"], "B": [["x"]]}, {"hidden": ["B"], "sheet": "B"}, "has no column location_id or company_id"),
        ({"A": [["location_id", "Location ID"]]}, {}, "has two columns for location_id: remove or rename one"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_sheets_is_told_with_what_to_do(read, sheets, more, says):
    assert refused(read, sheets, **more).startswith(says)


def test_a_duration_that_nothing_can_hold_is_told(read):
    file = io.BytesIO()
    with xlsxwriter.Workbook(file) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["location_id", "seconds"])
        sheet.write(1, 0, "LocA")
        sheet.write_number(1, 1, 1.7e12, book.add_format({"num_format": "[h]:mm"}))
    assert refused(read, file.getvalue()).startswith("holds a duration that is longer than two million years: format")


def test_a_csv_has_no_sheets(read, tmp_path):
    path = tmp_path / "list.xlsx"
    path.write_text("location_id\nLocA\n")
    assert [row.account_id for row in what_it_says(path)[1]] == ["LocA"]
    with pytest.raises(UserError, match="is a CSV, which has no sheets: leave out --sheet"):
        what_it_says(path, sheet="Sheet1")


def failure(location, note="", **more):
    cells = {"location_id": location, "company_id": "CoA", "note": note, "cause": "not_installed", **more}
    return [cells.get(name, "") for name in FAILURES]


def test_all_sheets_of_a_report_of_failures_are_one_list(read):
    sheets = {
        "Ask the customer": [FAILURES, failure("LocA", "=x"), failure("loc b"), failure("LocC", "'=y")],
        "For a developer": [FAILURES, failure("", company_id=""), failure("LocD"), failure("LocD")],
        "My notes": [["call them"], ["tomorrow"]],
    }
    columns, rows, told = read(sheets)
    assert columns == ("note",)
    assert [(row.account_id, row.cells) for row in rows if isinstance(row, Row)] == [
        ("LocA", ("=x",)), ("LocC", ("'=y",)), ("LocD", ("",)), ("LocD", ("",))
    ]  # fmt: skip
    numbers = [int(row.line) for row in rows]
    assert numbers == sorted(set(numbers))
    assert [row.why for row in rows if isinstance(row, Broken)] == [
        "line 3 [row 3 of the sheet 'Ask the customer']: the location id holds a space or an invisible character",
        "line 6 [row 2 of the sheet 'For a developer'] has no location id and no company id",
    ]
    assert told[0] == "INPUT has several sheets. Read: Ask the customer, For a developer. Not read: My notes"
    assert told[1].startswith(
        "2 lines (3 [row 3 of the sheet 'Ask the customer'], 6 [row 2 of the sheet 'For a developer']) cannot be used"
    )


def test_rows_below_the_last_that_calamine_shows_are_numbered_too(read):
    """openpyxl writes a formula without its value, so that calamine's sheet ends before it."""
    book, file = openpyxl.Workbook(), io.BytesIO()
    book.active.title = "A"
    for sheet, location in ((book.active, "LocA"), (book.create_sheet("B"), "LocB")):
        for row in (FAILURES, failure(location), [None, None, "=A2"]):
            sheet.append(row)
    book.save(file)
    _, rows, told = read(file.getvalue())
    assert [(int(row.line), row.account_id) for row in rows] == [(2, "LocA"), (5, "LocB")]
    assert told[0].startswith("2 lines (3 [row 3 of the sheet 'A'], 6 [row 3 of the sheet 'B']) hold only formulas")


LOCATIONS = [f"Loc{n:017}" for n in range(3)]
ASKED = [FAILURES, *map(failure, LOCATIONS)]
OTHER = [FAILURES, failure("LocB")]
NO_HEADER = (
    "is a report of the job, but its header is not in the first row of the sheet 'Ask the customer': put it back"
)
NO_LOCATION = "is a report of the job, but has no column location_id on the sheet 'Ask the customer': give the column"


def renamed(sheet, name):
    return [[name if cell == "location_id" else cell for cell in sheet[0]], *sheet[1:]]


def without(sheet, *names):
    kept = [place for place, name in enumerate(sheet[0]) if name not in names]
    return [[row[place] for place in kept] for row in sheet]


@pytest.mark.parametrize(
    ("sheet", "says"),
    [
        ([["Customers"], [], *ASKED], NO_HEADER),
        (ASKED[1:], NO_HEADER),
        (renamed(ASKED, "Location"), NO_LOCATION),
        (renamed(ASKED, ""), NO_LOCATION),
        (without(ASKED, "location_id"), NO_LOCATION),
        (without(ASKED, "location_id", "company_id", "client_id"), NO_LOCATION),
    ],
    ids=["title", "no header", "renamed", "cleared", "deleted", "no id"],
)
def test_a_report_with_a_sheet_whose_installs_would_be_lost_or_become_agencies_is_refused(read, sheet, says):
    assert refused(read, {"Ask the customer": sheet, "For a developer": OTHER}).startswith(says)
    for alone in ({"sheet": "Ask the customer"}, {"chosen": {"location_id": ""}, "sheet": "Ask the customer"}):
        refused(read, {"Ask the customer": sheet, "For a developer": OTHER}, **alone)
    refused(read, {"Ask the customer": sheet})


AGENCIES = [["company_id"], ["CoA"]]


@pytest.mark.parametrize("installs", [[["Our list"], [], ["location_id"], ["LocA"]], [[LOCATIONS[0], "x"]]])
def test_a_sheet_that_seems_to_hold_installs_is_not_passed_over(read, installs):
    says = refused(read, {"Installs": installs, "Agencies": AGENCIES})
    assert says == "has several sheets with installs: choose one with --sheet: Installs, Agencies"
    assert [row.account_id for row in read({"Installs": installs, "Agencies": AGENCIES}, sheet="Agencies")[1]] == [
        "CoA"
    ]


def test_sheets_that_are_not_read_are_told_unless_one_was_named_or_they_are_empty(read):
    sheets = {"Notes\n": [["x"]], "Agencies": AGENCIES, "Empty": [], "Old": AGENCIES}
    told = "INPUT has several sheets. Read: Agencies. Not read: Notes, Old (hidden)"
    assert told in read(sheets, hidden=["Old"])[2]
    assert "INPUT has several" not in str(read(sheets, hidden=["Old"], sheet="agencies")[2])
    assert "INPUT has several" not in str(read({"Agencies": AGENCIES, "Empty": []})[2])


@pytest.mark.parametrize("cell", [NA, Formula('=""', "")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_header_with_an_error_or_a_formula_without_a_value_is_refused(read, cell, place):
    header = ["company_id", "name"]
    header.insert(place, cell)
    name = f"{'ABC'[place]}2 of the sheet 'Sheet1'"
    says = refused(read, [[], header, ["CoA", "CoA", "CoA"]], chosen={"location_id": ""})
    assert says == f"has a header with a cell that cannot be read: {name}: enter the name of the column as text"


def test_a_header_that_calamine_does_not_show_is_read(read):
    """A text without a type is seen by a person, but not by calamine."""

    typed, untyped = '<table:table-cell office:value-type="string">', "<table:table-cell>"

    def book(*types):
        rows = [("location_id", "company_id", "name"), ("LocA", "CoA", "x")]
        cells = [
            "".join(f"{kind}<text:p>{text}</text:p></table:table-cell>" for kind, text in zip(types, row, strict=True))
            for row in rows
        ]
        return zipped(ods("".join(f"<table:table-row>{row}</table:table-row>" for row in cells)))

    columns, (row,), _ = read(book(typed, untyped, typed))
    assert (columns, row.account_id, row.company_id) == (("name",), "LocA", "CoA")
    assert "cell that cannot be read: A1 of" in refused(read, book(untyped, typed, typed))
    assert "cell that cannot be read: C1 of" in refused(read, book(typed, typed, untyped))


def test_no_name_of_a_column_is_not_the_name_of_nameless_ones(read):
    sheets = {"Notes": [["a", None, "b"], ["x"]], "Agencies": AGENCIES}
    assert [row.account_id for row in read(sheets, {"location_id": ""})[1]] == ["CoA"]


def test_sheets_of_a_report_whose_columns_were_moved_are_one_list(read):
    other = [name for name in reversed(FAILURES) if name != "message"]
    sheets = {
        "A": [[*FAILURES, "mine"], [*failure("LocA", "a"), "m"]],
        "B": [[*other, "yours"], [*({"location_id": "LocB", "note": "b"}.get(name, "") for name in other), "y"]],
        "C": [other, [True if name == "location_id" else "CoC" if name == "company_id" else "" for name in other]],
    }
    columns, rows, _ = read(sheets)
    assert columns == ("note", "mine", "yours")
    assert [row.cells for row in rows] == [("a", "m", ""), ("b", "", "y"), ("", "", "")]
    assert rows[2].why == "F2 of the sheet 'C' holds TRUE or FALSE: format the column as text, and enter it again"


IN_CSV = ["location_id", "company_id", "client_id", "cause", "owner", "next_step", "reinstall_url", "note"]
MOVED = ["reinstall_url", "location_id", "company_id", "next_step", "cause", "owner", "note"]


@pytest.mark.parametrize(
    ("header", "in_workbook", "in_csv"),
    [(IN_CSV, "=x", "=x"), (FAILURES, "'=x", "'=x"), (MOVED, "'=x", "=x"), (["note", *IN_CSV[:-1]], "=x", "=x")],
)
def test_cells_of_a_report_are_as_they_were_whatever_a_person_did_with_its_columns(
    read, tmp_path, header, in_workbook, in_csv
):
    """The cells of a failures.csv are guarded, also in a workbook. Those of a failures.xlsx are not, also in a CSV."""
    table = [header, [{"location_id": "LocA", "note": "'=x"}.get(name, "") for name in header]]
    assert read(table)[1][0].cells == (in_workbook,)
    path = tmp_path / "list.csv"
    path.write_text("\n".join(",".join(row) for row in table))
    assert what_it_says(path)[1][0].cells == (in_csv,)


def test_the_orders_of_columns_are_those_of_the_reports():
    for columns, header in ((reports.FAILURES, IN_CSV), (reports_workbook.COLUMNS, FAILURES)):
        assert [column.name for column in columns if column.name in IN_CSV] == [
            name for name in header if name in IN_CSV[:-1]
        ]


def test_a_workbook_by_a_pipe_is_read_as_often_as_needed():
    data = workbook({"A": [["location_id"], ["LocA"], [True]]})
    manifest = open_manifest(Path("pipe"), {}, data)
    for _ in range(2):
        assert [row.line for row in manifest.rows()] == [2, 3]


def test_a_workbook_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "list.xlsx"
    path.write_bytes(workbook(LISTS | {"Old": []}))
    manifest = open_manifest(path, {})
    path.write_bytes(workbook({"Affected": [["company_id", "location_id"], ["CoA", NA]]}))
    with pytest.raises(UserError, match="was changed while it was read: run the command again"):
        list(manifest.rows())


def test_nothing_of_the_sheet_is_kept_after_a_pass(read, tmp_path):
    path = tmp_path / "list.xlsx"
    path.write_bytes(workbook(LISTS | {"Old": []}))
    manifest = open_manifest(path, {})
    rows = manifest.rows()
    next(rows)
    kept = [weakref.ref(one) for one in gc.get_objects() if type(one).__name__ in {"ExcelFile", "CalamineReader"}]
    assert kept
    rows.close()
    del rows
    gc.collect()
    assert not any(one() for one in kept)
    open_files = [fd.resolve() for fd in Path("/proc/self/fd").iterdir()]
    assert path.resolve() not in open_files


class Talkative(io.BytesIO):
    """A file during whose reading something else writes to standard error."""

    lines = 0

    def read(self, size=-1):
        Talkative.lines += 1
        os.write(2, b"the lease is kept\n")
        return super().read(size)


@dataclass
class Talked:
    """A list in such a file."""

    data: bytes
    path: Path = Path("list")

    def open(self):
        return Talkative(self.data)


@pytest.mark.parametrize("fails", [False, True])
def test_only_the_backtrace_of_calamine_is_kept_from_standard_error(capfd, fails):
    data = bytearray((SAMPLES / "installs.xls").read_bytes())
    data[4340] = 25 if fails else data[4340]
    Talkative.lines = 0
    with pytest.raises(UserError, match="is a damaged workbook") if fails else nullcontext():
        open_workbook(Talked(bytes(data)), Kind.XLS, bool, None)
    assert Talkative.lines > 2
    assert capfd.readouterr().err == "the lease is kept\n" * Talkative.lines


def test_a_bug_in_the_job_is_not_a_damaged_workbook():
    manifest = open_manifest(Path("pipe"), {}, workbook({"A": [["location_id"], ["LocA"]]}))
    with pytest.raises(ValueError, match="invalid literal"):
        next(manifest.table.records(map(int, "x")))


@pytest.mark.parametrize("kind", ["xlsx", "ods", "xls"])
def test_a_damaged_workbook_is_one_line_or_a_right_list(read, kind):
    whole = workbook({"A": [["location_id", "n"], *([f"Loc{n}", n] for n in range(20))]})
    data = whole if kind == "xlsx" else (SAMPLES / f"installs.{kind}").read_bytes()
    ids = {row.account_id for row in read(data)[1] if isinstance(row, Row)}
    chance = random.Random(kind)
    for turn in range(40):
        damaged = bytearray(data[: chance.randrange(8, len(data))] if turn % 4 == 0 else data)
        for _ in range(chance.choice([1, 8])):
            damaged[chance.randrange(8, len(damaged))] ^= 1 << chance.randrange(8)
        try:
            found = {row.account_id for row in read(bytes(damaged))[1] if isinstance(row, Row)}
        except UserError:
            continue
        assert kind == "xls" or found <= ids  # An xls has no checksum.
