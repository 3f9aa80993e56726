"""failures.xlsx: what is in it, that a spreadsheet changes nothing of it, and what it never holds."""

from __future__ import annotations

import csv
import json
import re
import shutil
import stat
import subprocess
import tempfile

import pytest
from openpyxl import load_workbook

from jobs.core.formula_guard import unguard
from jobs.core.model import Broken, Cause
from jobs.ledger.support_queries import Tally
from jobs.manifest.reader import open_manifest
from jobs.report import CutShort, report_again
from jobs.reports.cards import SECTIONS
from jobs.reports.columns import FAILURES
from jobs.reports.files import SUMMARY, WORKBOOK
from jobs.reports.page import Worklist
from jobs.reports.workbook import MOST_COLUMNS, MOST_FAILURES, NO_FAILURES, why_left_out
from jobs.sandbox.world import Place
from jobs.start import PROJECT
from jobs.system.files import clear_left_behind, scratch_folder
from tests.helpers.lists import listing
from tests.helpers.made import CLIENT_ID, COLUMNS, all_causes, broken, make_run, place
from tests.helpers.workbook_parts import parts_of, sheets_of

HOSTILE = (
    '=HYPERLINK("https://evil.example","x")', "+1", "@SUM(A1)", "'=kept", "https://x.example", "mailto:a@x.example",
    "00123", "1e5", "1/2/20", "TRUE", "#N/A", "12345678901234567890", "<r>x</r>", "<r><t>x</t></r>", "<b>&amp;",
    "a\rb", "a\r\nb\n", "\ttab", " space ", "\x01\x1f\x7f", "_x0041_", "_x005F_", "é😀", "no " * 10_922 + "x", "😀" * 16_383,
)  # fmt: skip
UNFIT = ("no " * 10_923, "😀" * 16_384, f"<r>{'no ' * 10_922}</r>", "a\ufffeb", "\uffff")
FIRST = ["next_step", "reinstall_url"]
HEADER = [*FIRST, *(column.name for column in FAILURES if column.name not in FIRST)]


def made_of(*cells):
    return [(place(number, "", cell), Cause.NOT_INSTALLED) for number, cell in enumerate(cells)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a run that failed in every way."""
    folder = tmp_path_factory.mktemp("made") / "out"
    make_run(folder, COLUMNS, all_causes(), workbook=True)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The folder of a run on cells that a spreadsheet, or the library that writes it, could take for something else."""
    folder = tmp_path_factory.mktemp("hostile") / "out"
    make_run(folder, ("=own",), [*made_of(*HOSTILE, *UNFIT), (broken(90, "=x"), Cause.INVALID_ROW)], workbook=True)
    return folder


def failures_of(folder):
    """The rows of failures.csv under its columns, as they were before a formula was guarded."""
    csv.field_size_limit(1 << 20)
    with (folder / "failures.csv").open(encoding="utf-8-sig", newline="") as file:
        header, *rows = ([*map(unguard, line)] for line in csv.reader(file))
    return [dict(zip(header, row, strict=True)) for row in rows]


def rows_of(folder):
    sheets = sheets_of(folder / WORKBOOK)
    return {title: [dict(zip(rows[0], row, strict=True)) for row in rows[1:]] for title, rows in sheets.items()}


def by_id(rows):
    return sorted(rows, key=lambda row: (row["location_id"], row["message"]))


def test_it_has_the_columns_of_failures_csv_with_what_to_do_first(made):
    for rows in sheets_of(made / WORKBOOK).values():
        assert rows[0] == [*HEADER, *COLUMNS]


def test_it_has_every_failure_once_on_the_sheet_of_whoever_acts_in_the_order_of_the_page(made):
    sheets = rows_of(made)
    assert [*sheets] == [section.title for section in SECTIONS.values()]
    for owner, section in SECTIONS.items():
        assert {row["owner"] for row in sheets[section.title]} == {owner}
    assert by_id(row for rows in sheets.values() for row in rows) == by_id(failures_of(made))


def test_an_owner_without_failures_has_no_sheet_and_without_any_failure_there_is_a_header_alone(tmp_path):
    make_run(tmp_path / "one", ("name",), made_of("Acme"), workbook=True)
    assert [*sheets_of(tmp_path / "one" / WORKBOOK)] == ["Ask the customer"]
    make_run(tmp_path / "none", ("name",), [(place(1, "", "Acme"), None)], workbook=True)
    assert sheets_of(tmp_path / "none" / WORKBOOK) == {NO_FAILURES: [[*HEADER, "name"]]}


def test_a_cell_is_the_text_that_it_was_and_one_that_excel_cannot_hold_has_stars(hostile):
    sheets = rows_of(hostile)
    found = {row["location_id"]: row["=own"] for row in sheets["Ask the customer"]}
    assert [found[f"Loc{number:017}"] for number in range(len(HOSTILE))] == [*HOSTILE]
    assert [found[f"Loc{number + len(HOSTILE):017}"] for number in range(len(UNFIT))] == ["****"] * len(UNFIT)
    assert [row["=own"] for row in sheets["For the developer"]] == ["=x"]


def test_every_cell_is_text_and_stays_text_when_somebody_types_into_it(hostile):
    parts = parts_of(hostile / WORKBOOK)
    assert not [name for name in parts if re.search("rels/sheet|hyperlink|calcChain|comments|vba|external", name)]
    for name, text in parts.items():
        if name.startswith("xl/worksheets/"):
            assert set(re.findall(r"<(\w+)", text)).isdisjoint({"f", "v", "hyperlink", "hyperlinks"})
            assert text.count("<c ") == text.count(' t="inlineStr"') > 0
    for sheet in load_workbook(hostile / WORKBOOK):
        assert {cell.number_format for row in sheet for cell in row if cell.value} == {"@"}
        styles = re.findall(r'<col [^>]*style="(\d)"', parts["xl/worksheets/sheet1.xml"])
        assert styles
        assert {re.findall("<xf ", parts["xl/styles.xml"])[1] for _ in styles}


def test_a_person_can_filter_it_and_the_header_stays_in_view(made):
    for sheet in load_workbook(made / WORKBOOK):
        assert sheet.auto_filter.ref == sheet.dimensions
        assert sheet.freeze_panes == "A2"
        assert sheet["A1"].font.bold
        assert all(10 <= column.width < 62 for column in sheet.column_dimensions.values())
        wrapped = {cell.value for cell in sheet[1] if sheet.cell(2, cell.column).alignment.wrap_text}
        assert wrapped == {"next_step", "message"}
        assert all(
            sheet.row_dimensions[row.row].height >= len(row.value) / 4 for (row, *_) in sheet.iter_rows(min_row=2)
        )
    parts = parts_of(made / WORKBOOK)
    for number in range(1, 6):
        assert 'numberStoredAsText="1"' in parts[f"xl/worksheets/sheet{number}.xml"]  # No green corners.
    assert "<dc:creator></dc:creator><cp:lastModifiedBy></cp:lastModifiedBy>" in parts["docProps/core.xml"]


def test_its_date_is_that_of_the_run_so_that_it_is_the_same_when_it_is_made_again(made):
    began = json.loads((made / SUMMARY).read_text())["started_at"]
    assert f">{began[:19]}Z</dcterms:created>" in parts_of(made / WORKBOOK)["docProps/core.xml"]


def test_it_is_private_and_so_are_its_temporary_files_which_the_next_report_removes(made, tmp_path, monkeypatch):
    assert stat.S_IMODE((made / WORKBOOK).stat().st_mode) == 0o600
    assert {file.name for file in made.iterdir() if file.name.startswith(".")} <= {".lock"}
    with scratch_folder(tmp_path / WORKBOOK) as scratch:
        assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
        (scratch / "cells").write_text("LocA")
        clear_left_behind(tmp_path)
        assert [*tmp_path.iterdir()] == []
        scratch.mkdir()
        (scratch / "cells").write_text("LocA")
        held = (scratch / "cells").open()
    assert held.read() == ""
    held.close()
    folder = tmp_path / "out"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "of everybody"))  # There is no such folder.
    make_run(folder, ("name",), made_of("Acme"), workbook=True)
    (folder / ".new-failures.xlsx-killed").mkdir()
    (folder / ".new-failures.xlsx-killed" / "cells").touch()
    (folder / ".new-results.csv-killed").touch()
    (folder / ".new-opened.csv-under-way").touch()
    report_again(folder, PROJECT, {}, [].append)
    assert (folder / WORKBOOK).exists()
    assert [file.name for file in folder.glob(".new-*")] == [".new-opened.csv-under-way"]


def worklist(*counts):
    """So many failures, of one cause after the other."""
    tallies = [Tally(cause, CLIENT_ID, count, 0, 0) for cause, count in zip(Cause, counts, strict=False)]
    return Worklist(tallies, None, lambda cause: iter(()), lambda: iter(()), ())


def test_more_failures_or_columns_than_fit_leave_it_out():
    most = ("name",) * (MOST_COLUMNS - len(HEADER))
    assert why_left_out(most, worklist(MOST_FAILURES - 1, 1)) == ""
    assert why_left_out(most, worklist(MOST_FAILURES, 1)) == "it holds at most 100,000 failures"
    assert why_left_out((*most, "name"), worklist(1)) == "it holds at most 16,384 columns"


def test_where_it_is_left_out_an_older_one_is_removed_and_a_person_is_told(tmp_path):
    folder = tmp_path / "out"
    make_run(folder, ("name",), made_of("Acme"), workbook=True)
    assert (folder / WORKBOOK).exists()
    columns = tuple(f"c{number}" for number in range(MOST_COLUMNS))
    make_run(folder, columns, [(place(0, "", *columns), Cause.NOT_INSTALLED)], workbook=True)
    assert not (folder / WORKBOOK).exists()
    for cut_short in (None, CutShort(130, 0, 0, "")):
        told = []
        report_again(folder, PROJECT, {}, told.append, cut_short)
        assert told == ["failures.xlsx is left out: it holds at most 16,384 columns"]
        assert not (folder / WORKBOOK).exists()


def test_the_setting_leaves_it_out_and_takes_an_older_one_away(play):
    job = play(default="not_installed")
    manifest = job.manifest(listing(2))
    job.environment["RECOVERY_REPORTS__WORKBOOK"] = "false"
    done = job.run(manifest)
    assert "failures.xlsx" not in done.stdout + done.stderr
    assert not (job.output / WORKBOOK).exists()
    job.environment["RECOVERY_REPORTS__WORKBOOK"] = "true"
    assert "failures.xlsx  for support staff" in job.run(manifest).stdout
    assert len(sheets_of(job.output / WORKBOOK)["Ask the customer"]) == 3
    job.environment["RECOVERY_REPORTS__WORKBOOK"] = "false"
    assert job("report", job.output).returncode == 0
    assert not (job.output / WORKBOOK).exists()
    job.environment["RECOVERY_REPORTS__WORKBOOK"] = "perhaps"
    done = job.run(manifest)
    assert done.returncode == 2
    assert "error: RECOVERY_REPORTS__WORKBOOK: has an invalid value: give true or false" in done.stderr


def read(path):
    """The rows of a list, without their places in it."""
    return {
        (row.location_id if isinstance(row, Broken) else row.account_id, row.cells)
        for row in open_manifest(path).rows()
    }


def test_it_is_a_list_of_the_same_installs_as_failures_csv(made, tmp_path):
    assert read(made / WORKBOOK) == read(made / "failures.csv")
    make_run(tmp_path / "none", ("name",), [(place(1, "", "Acme"), None)], workbook=True)
    assert read(tmp_path / "none" / WORKBOOK) == read(tmp_path / "none" / "failures.csv") == set()


def test_libreoffice_changes_no_cell_when_a_person_saves_it(hostile, tmp_path):
    if not (office := shutil.which("soffice")):
        pytest.skip("LibreOffice is not installed (Debian: apt install libreoffice-calc)")
    where = f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}"
    words = [office, where, "--headless", "--convert-to", "xlsx:Calc MS Excel 2007 XML", "--outdir", tmp_path]
    subprocess.run([*words, hostile / WORKBOOK], check=True, capture_output=True, timeout=60)
    given = {(account, (cell.replace("\r\n", "\n"),)) for account, (cell,) in read(hostile / WORKBOOK)}
    assert read(tmp_path / WORKBOOK) == given


def test_what_a_person_sends_back_is_run_as_it_is_in_the_same_folder(play):
    job = play({"Loc1": Place("not_installed"), "Loc2": Place("not_installed"), "Loc3": Place("location_inactive")})
    job.run(job.manifest(listing(4)))
    book = load_workbook(job.output / WORKBOOK)
    customers = book["Ask the customer"]
    assert [row[2].value for row in customers.iter_rows(min_row=2)] == ["Loc1", "Loc2"]
    customers.delete_rows(3)
    customers.cell(1, customers.max_column + 1, "ticket")
    customers.cell(2, customers.max_column, "=T-1").data_type = "s"
    book.save(job.output / WORKBOOK)
    before = job.calls("reconnect")
    done = job("run", job.output / WORKBOOK)
    assert done.returncode == 1, done.stderr
    assert sorted(job.calls("reconnect")[len(before) :]) == ["Loc1", "Loc3"]
    assert {row["location_id"]: row["ticket"] for rows in rows_of(job.output).values() for row in rows} == {
        "Loc1": "=T-1", "Loc2": "", "Loc3": "",
    }  # fmt: skip
