"""The manifest, and what spreadsheets do to one."""

from __future__ import annotations

import codecs
import csv
import io
import re
import tracemalloc
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.core.errors import UserError
from jobs.core.formula_guard import guard, unguard
from jobs.core.model import Broken, Level, Row
from jobs.manifest.reader import open_manifest
from jobs.manifest.warnings import ListWarnings


def utf16(text):
    """`text` as a spreadsheet's "Unicode text". Half of a surrogate pair stays half."""
    return codecs.BOM_UTF16_LE + text.encode("utf-16-le", "surrogatepass")


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


def test_a_line_of_too_many_cells_fails_by_itself_with_its_line_and_keeps_its_text(read):
    _, rows = read('location_id,name\nLocA,"two\nlines"\nLocC,x,y\nLocD,z,\n')
    assert [type(row) for row in rows] == [Row, Broken, Row]
    assert rows[1].why == "line 4 has 3 cells, but the header has 2"
    assert rows[1].cells == ("", "LocC,x,y")


def test_of_a_line_that_cannot_be_told_apart_in_a_list_of_old_tokens_nothing_is_kept_but_its_shape(read):
    header = "location_id,access_token,refresh_token,name\n"
    _, rows = read(header + 'LocA,5f3a9c1e7b2d4860,7f3a,Smith, Inc.\nLocB,"7f3b\nLocC,7f3c,7f3d,"x"\n')
    assert [row.cells for row in rows[:2]] == [("", "****,****,****,****,****"), ("", "****,****")]
    assert rows[0].why == "line 2 has 5 cells, but the header has 4"


def test_a_line_that_lacks_cells_at_its_end_is_filled_up(read):
    _, rows = read("location_id,company_id,name,note\nLocA,CoA,Customer\nLocB\nLocC,CoC,x,call first\n")
    assert [(row.account_id, row.company_id, row.cells) for row in rows] == [
        ("LocA", "CoA", ("Customer", "")), ("LocB", "", ("", "")), ("LocC", "CoC", ("x", "call first"))
    ]  # fmt: skip


def test_words_for_nothing_are_empty_cells_of_ids_and_tokens_and_text_elsewhere(read):
    words = ["NULL", "null", "None", "nan", "NaN", "undefined", r"\N"]
    header = "location_id,company_id,client_id,access_token,refresh_token,note\n"
    _, rows = read(header + "".join(f"{word},Co{n},{word},{word},{word},{word}\n" for n, word in enumerate(words)))
    agencies = [Row(n + 2, "", Level.AGENCY, f"Co{n}", f"Co{n}", (word,)) for n, word in enumerate(words)]
    assert rows == agencies
    _, (near_miss,) = read("location_id,company_id\nN/A,CoA\n")
    assert isinstance(near_miss, Broken)


def test_that_words_for_nothing_make_agencies_is_told(read):
    assert told(read, "location_id,company_id\nnull,CoA\n,CoB\nnan,CoC\n") == [
        "2 lines (2, 4) are treated as agencies: the location id is a word such as null or nan"
    ]


def test_lines_that_cannot_be_used_are_told_with_the_reason_of_the_first(read):
    text = 'location_id,company_id,name\nLocA, CoA, "Smith, Bob"\nLocB,CoB,x\n,,y\n'
    assert told(read, text) == ["2 lines (2, 4) cannot be used: line 2 has 4 cells, but the header has 3"]


def test_that_an_emptied_column_of_location_ids_makes_agencies_is_told(read):
    said = ["no line has a location id: 3 lines (2, 3, 4) are treated as agencies"]
    assert told(read, "location_id,company_id\n,CoA\n,CoA\n,CoB\n") == said
    assert told(read, "location_id,company_id\nLocA,CoA\n,CoA\n") == []
    assert told(read, "company_id\nCoA\nCoB\n") == []
    of_a_report = "location_id,company_id,cause,owner,next_step,reinstall_url\n,CoA,not_installed,customer,x,\n"
    assert told(read, of_a_report) == []


def test_an_id_that_a_spreadsheet_was_to_take_for_text_is_what_stands_within(read):
    _, rows = read('location_id;refresh_token;note\n="LocA";"=""old""";="x"\n')
    assert (rows[0].account_id, rows[0].refresh_token.reveal(), rows[0].cells) == ("LocA", "old", ('="x"',))


@pytest.mark.parametrize("unseen", ["\u200b", "\u00a0", "\ufeff", "\u2060", "\u00ad", "\u202f", "\t "])
def test_characters_that_are_not_seen_count_as_spaces_in_headers_and_ids(read, unseen):
    _, rows = read(
        f"{unseen}location{unseen}_id{unseen};note\n{unseen}LocA{unseen};a{unseen}\nLoc{unseen}B;b\n{unseen};\n"
    )
    assert rows[0] == Row(2, "", Level.SUB_ACCOUNT, "LocA", "", (f"a{unseen}",))
    assert [(row.line, row.why) for row in rows[1:]] == [
        (3, "line 3: the location id holds a space or an invisible character")
    ]


def test_a_line_equal_to_the_header_is_skipped_and_counted_and_another_header_is_broken(read):
    text = "location_id,company_id,name\nLocA,CoA,x\n\ufefflocation_id,company_id,name\nLocB,CoB,y\n"
    text += "location_id,company_id,name\nlocation_id,name,company_id\n"
    _, rows = read(text)
    assert [row.line for row in rows] == [2, 4, 6]
    assert rows[2].why == "line 6 looks like the header of another list: move that list into its own file"
    assert told(read, text) == ["2 lines (3, 5) equal the header and are skipped", rows[2].why]


@pytest.mark.parametrize(
    "other", ["company_id,location_id,name", "name,location_id,company_id", "x,Location ID,CompanyId,more"]
)
def test_lines_behind_the_header_of_another_list_are_not_read_by_the_columns_of_this_one(read, other):
    text = f"location_id,company_id,name\nLocA,CoA,x\n{other}\nCoB,LocB,y\nLocC,x,CoC\n\n"
    _, rows = read(text + "location_id,company_id,name\nLocD,CoD,z\n")
    assert [(row.line, type(row)) for row in rows] == [(2, Row), (3, Broken), (4, Broken), (5, Broken), (8, Row)]
    assert [row.cells[-1] for row in rows[1:4]] == [other, "CoB,LocB,y", "LocC,x,CoC"]
    assert rows[2].why == "line 4 comes after the header of another list in line 3"
    told_of = (
        "2 lines (4, 5) come after the header of another list and cannot be used: move that list into its own file"
    )
    assert told_of in told(read, text)


@pytest.mark.parametrize("other", ["Location Id,Company Id,customer", "location_id,,"])
def test_a_header_that_has_the_ids_where_this_list_has_them_costs_its_own_line_alone(read, other):
    _, rows = read(f"location_id,company_id,name\nLocA,CoA,x\n{other}\nLocB,CoB,y\n")
    assert [type(row) for row in rows] == [Row, Broken, Row]


def test_a_cell_of_the_users_that_names_an_id_makes_no_header(read):
    _, rows = read(
        "location_id,company_id,asked for,\nLocA,CoA,location_id,\n,CoB,client id,\n,,Company ID,\nLocB,CoB,x,\n"
    )
    assert [type(row) for row in rows] == [Row, Row, Broken, Row]


def test_a_line_that_was_kept_as_text_keeps_saying_so_when_it_is_fed_back(read):
    _, rows = read('location_id,company_id,row_as_read\n,,"LocA,CoA,""open"\n,,\n')
    why = "line 2 holds a line that could not be read (row_as_read): move its cells into their columns"
    assert [row.why for row in rows] == [why]


def test_a_header_alone_is_a_list_without_installs(read):
    for text in ("location_id,name\n", "location_id", "location_id,name\n\n,\n\u00a0,\n"):
        assert read(text)[1] == []


def told(read, content):
    """What is noticed of a list."""
    noticed = ListWarnings()
    list(read(content)[0].rows(noticed))
    return list(noticed.warnings())


ODD_QUOTE = """location_id,company_id,note
LocA,CoA,"called, wants a reply
LocB,CoA,ok
LocC,CoA,ok
LocD,CoA,"fine, thanks"
LocE,CoA,ok
"""


def test_the_lines_that_a_stray_quote_tears_apart_are_named_and_their_text_is_kept(read):
    _, rows = read(ODD_QUOTE)
    assert [(row.line, row.cells[-1]) for row in rows[:3]] == list(enumerate(ODD_QUOTE.splitlines()[1:4], start=2))
    assert {row.why.partition(";")[0] for row in rows[:3]} == {
        "lines 2 to 4 are torn apart by a quote that does not close at the end of a cell"
    }
    assert [row.why.rpartition(" ")[2] for row in rows[:3]] == ["2", "3", "4"]
    assert [row.account_id for row in rows[3:]] == ["LocD", "LocE"]
    assert told(read, ODD_QUOTE) == [
        "3 lines (2, 3, 4) are torn by a quote: close or remove the quote (failures.csv says where)"
    ]


def test_behind_a_quote_that_never_closes_what_is_surely_a_row_runs_and_the_rest_is_kept_as_text(read):
    text = 'location_id,name\nLocA,x\nLocB,"open\ndone\nthe rest of a note, perhaps\nLocC,y\nLocD\n'
    _, rows = read(text)
    assert [(row.line, type(row)) for row in rows] == [
        (2, Row), (3, Broken), (4, Row), (5, Broken), (6, Row), (7, Row)
    ]  # fmt: skip
    assert rows[1].cells[-1] == 'LocB,"open'


@pytest.mark.parametrize("lines", [10, 2_500])
def test_a_quote_that_never_closes_costs_its_own_line_alone_however_long_the_list(read, lines):
    many = "".join(f"Loc{n:06},ok\n" for n in range(lines))
    _, rows = read(f'location_id,name\nLoc000000x,"open\n{many}')
    assert [row.line for row in rows] == list(range(2, lines + 3))
    assert [row.line for row in rows if isinstance(row, Broken)] == [2]


def test_a_quote_that_never_closes_holds_no_long_list_in_memory(read, tmp_path):
    manifest, _ = read("location_id,name\n")
    with manifest.path.open("a", encoding="utf-8") as file:
        file.write('Loc000000x,"open\n')
        file.writelines(f"Loc{n:06},{'x' * 100}\n" for n in range(50_000))
    tracemalloc.start()
    assert sum(1 for _ in manifest.rows()) == 50_001
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_the_header_once_more_in_a_report_of_the_job_is_skipped_too(read):
    header = "location_id,cause,owner,next_step,reinstall_url,'=x\n"
    assert [row.line for row in read(header + "LocA,,,,,'=1\n" + header + "LocB,,,,,y\n")[1]] == [2, 4]


def test_quotes_escaped_by_a_backslash_cost_their_line_alone_whose_text_is_kept(read):
    line = r'LocA,"The \"Best\" Gym"'
    _, rows = read(f"location_id,name\n{line}\nLocB,Plain\n")
    assert (rows[0].cells[-1], rows[1].account_id) == (line, "LocB")


def test_a_cell_that_spans_lines_which_look_like_rows_is_told_with_its_lines(read):
    text = 'location_id,company_id,note\nLocA,CoA,"called\nLocB,CoA,ok\nLocC,CoA,back"\nLocD,CoA,"two\nlines, so"\n'
    _, rows = read(text)
    assert [row.account_id for row in rows] == ["LocA", "LocD"]
    assert told(read, text) == [
        "a cell spans lines that look like rows (lines 2 to 4): check whether a quote is missing there"
    ]


def test_ids_unlike_all_the_others_are_told_with_their_lines(read):
    ids = [f"Loc{n:017}" for n in range(20)]
    ids[3], ids[7] = "LocShort", "1234567890"
    text = "location_id,company_id\n" + "".join(f"{one},Co{n % 3}\n" for n, one in enumerate(ids))
    assert told(read, text) == [
        "2 lines (5, 9) have a location id unlike all the others (20 letters and digits): please check"
    ]
    assert told(read, "location_id\nLocA\nLocBB\nLocCCC\n") == []


@pytest.mark.parametrize("bad", ["1.23E+19", "a b", "-x", "é", "x" * 65, "a/b"])
def test_an_id_must_look_like_one(read, bad):
    _, rows = read(f"location_id\n{bad}\n")
    assert isinstance(rows[0], Broken)


def test_blank_lines_and_the_separator_line_of_a_spreadsheet_are_not_rows(read):
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
        (b'"location_id"x,name\na,b\n', "not valid CSV"),
        ("location_id\nLocA\n".encode("utf-16-le"), "is UTF-16 without a byte order mark: save it as CSV UTF-8"),
        ("location_id\nLocA\n".encode("utf-16-be"), "is UTF-16 without a byte order mark: save it as CSV UTF-8"),
        ("location_id\nLocA\n".encode("utf-32"), "is UTF-32: save it as CSV UTF-8"),
        (codecs.BOM_UTF16_BE, "is empty"),
        (utf16("location_id\nLocA\nLocB") + b"x", "is not UTF-16 (line 3): save it as CSV UTF-8"),
        (utf16("location_id\tname\nLocA\t\ud800\nLocB\tx\n"), "is not UTF-16 (line 2): save it as CSV UTF-8"),
        (utf16("location_id\n" + "LocA\n" * 40_000 + "\udc00"), "is not UTF-16 (line 40002)"),
        (b"PK\x03\x04\x14\x00", "is a damaged workbook"),
        (b"location_id,name\nLocA,caf\xe9\n", "is not UTF-8 (line 2)"),
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


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE], ids=["little-endian", "big-endian"])
def test_a_list_in_utf_16_with_a_mark_has_the_same_rows_as_in_utf_8(read, mark):
    text = 'location_id\tcompany_id\tname\r\nLocA\tCoA\t"Café\t🍰\u0a0d"\r\n\tCoB\t=1\r\n-bad\t\t\r\n'
    text += "".join(f"Loc{number}\tCo{number}\t{'🍰' * 9}\r\n" for number in range(2_000))  # Pairs across all chunks.
    expected, rows = read(text)
    manifest, found = read(mark + text.encode("utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"))
    assert (manifest.layout, found) == (expected.layout, rows)
    assert len(found) == 2_003


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_in_utf_16_reads_as_the_same_text_in_utf_8(read, text):
    def outcome(content):
        try:
            return read(content)[1]
        except UserError as error:
            return str(error)

    text = f"location_id\tname\nLocA\t{text}"
    assert outcome(utf16(text)) == outcome(text)


def test_a_long_list_in_utf_16_is_not_held_in_memory(tmp_path):
    path = tmp_path / "long.txt"
    path.write_bytes(utf16("location_id\tname\n" + f"LocA\t{'x' * 100}\n" * 20_000))
    tracemalloc.start()
    assert sum(1 for _ in open_manifest(path).rows()) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.sampled_from([b"", b"location_id,name\n", utf16("location_id,name\n")]), st.binary(max_size=300))
def test_any_bytes_give_rows_or_a_clear_line(read, head, tail):
    try:
        _, rows = read(head + tail)
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


WORDS = re.compile(r"[A-Za-z0-9]+")
LINE = st.lists(
    st.sampled_from(
        ["LocA1", "LocB2", "CoA", "x", '"', '""', '"x', 'x"', '\\"', ",", ",", ",", ";", " ", "\ufeff", '="q"']
    ),
    max_size=9,
).map("".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=500, deadline=None)
@given(st.lists(LINE, max_size=12), st.sampled_from(["\n", "\r\n", "\r"]))
def test_no_line_of_any_list_is_ever_lost(read, lines, end):
    header = "location_id,company_id,name"
    _, rows = read(end.join([header, *lines]))
    said = []
    for row in rows:
        ids = [row.account_id, row.company_id] if isinstance(row, Row) else [row.location_id, row.company_id]
        agency = isinstance(row, Row) and row.level is Level.AGENCY
        said += [*ids[agency:], *row.cells]
    assert Counter(WORDS.findall("\n".join(said))) == Counter(WORDS.findall("\n".join(lines)))
    assert [row.line for row in rows] == sorted({row.line for row in rows})
