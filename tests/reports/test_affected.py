"""The list that a check leaves."""

from __future__ import annotations

import csv
import io

from jobs.core.checks import Check
from jobs.core.model import Broken, Level, Row
from jobs.core.secret import Secret
from jobs.reports.affected import AffectedList, Shape

PAIR = (Secret("access-1"), Secret("refresh-1"))
LOCATION = Row(2, "app", Level.SUB_ACCOUNT, "LocA", "CoA", ("Harbor, Inc.", "=1+1"), *PAIR)
AGENCY = Row(3, "app", Level.AGENCY, "CoA", "CoA", ("Agency", ""))


def written(shape, *rows):
    file = io.BytesIO()
    affected = AffectedList(file, shape)
    for row in rows:
        affected.add(row, Check.REFUSED)
    affected.close()
    return [*csv.DictReader(io.StringIO(file.getvalue().decode(), newline=""))], affected.starred


def test_it_has_the_ids_the_result_and_the_users_columns_and_no_tokens():
    rows, starred = written(Shape(("name", "note")), LOCATION, AGENCY)
    assert rows == [
        {"location_id": "LocA", "company_id": "CoA", "client_id": "app", "check": "refused", "name": "Harbor, Inc.", "note": "=1+1"},
        {"location_id": "", "company_id": "CoA", "client_id": "app", "check": "refused", "name": "Agency", "note": ""},
    ]  # fmt: skip
    assert starred == ()


def test_it_keeps_the_tokens_where_that_is_asked_for():
    rows, _ = written(Shape(("name", "note"), with_tokens=True), LOCATION, AGENCY)
    assert [(row["access_token"], row["refresh_token"]) for row in rows] == [("access-1", "refresh-1"), ("", "")]


def test_a_secret_in_a_column_of_the_users_is_starred_and_said():
    row = Row(2, "app", Level.SUB_ACCOUNT, "LocA", "", ("hidden", "sk_live_1234567890"))
    rows, starred = written(Shape(("api key", "note")), row)
    assert (rows[0]["api key"], rows[0]["note"], starred) == ("****", "****", ("api key", "note"))
    rows, _ = written(Shape(("api key", "note"), with_tokens=True), row)
    assert (rows[0]["api key"], rows[0]["note"]) == ("hidden", "sk_live_1234567890")


def test_the_column_of_an_earlier_check_is_replaced():
    row = Row(2, "app", Level.SUB_ACCOUNT, "LocA", "", ("before", "works", "after"))
    rows, _ = written(Shape(("one", "check", "two")), row)
    assert rows == [
        {"location_id": "LocA", "company_id": "", "client_id": "app", "check": "refused", "one": "before", "two": "after"}
    ]  # fmt: skip


def test_a_line_that_cannot_be_used_keeps_its_cells_and_a_torn_one_its_text():
    token = "eyJhbGciOiJIUzI1NiJ9.eyJhdXRoQ2xhc3MiOiJMb2NhdGlvbiJ9.c2lnbmF0dXJl"
    broken = Broken(2, "bad id", "CoA", "", ("a name",), "why")
    shifted = Broken(3, token, "", "", ("a name",), "why")
    torn = Broken(4, "", "", "", ("", 'LocB,"torn'), "why")
    rows, _ = written(Shape(("name",), with_lines=True), broken, shifted, torn)
    assert [row["location_id"] for row in rows] == ["bad id", "****", ""]
    assert [row["row_as_read"] for row in rows] == ["", "", 'LocB,"torn']
    again, _ = written(Shape(("name", "row_as_read"), with_lines=True), Broken(2, "", "", "", ("", "LocB"), "why"))
    assert again[0]["row_as_read"] == "LocB"
