"""Whole runs on workbooks."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.helpers.job import PROJECT
from tests.helpers.lists import of
from tests.helpers.workbooks import Formula, workbook

ROWS = [
    ["location_id", "company_id", "name"],
    ["LocA", "CoA", "Näme"],
    ["LocB", "CoA", "=x"],
    ["LocGone", "CoA", "00123"],
]
CSV = "location_id,company_id,name\nLocA,CoA,Näme\nLocB,CoA,=x\nLocGone,CoA,00123\n"
NA = Formula("=NA()", "#N/A")
WORLD = of("LocA", "LocB") | of("LocGone", behaviour="not_installed")
GIVEN = {"access_token", "refresh_token", "expires_at", "trace_id", "recovered_at", "first_failed_at", "last_tried_at"}


def told(table):
    return [{name: cell for name, cell in row.items() if name not in GIVEN} for row in table]


def test_a_run_on_a_workbook_ends_like_one_on_its_csv(play):
    job = play(WORLD)
    path = job.manifest(workbook({"Affected": ROWS, "Old": [["location_id"], ["LocOld"]]}), "installs.xlsx")
    done = job.run(path, "--sheet", "Affected")
    assert done.returncode == 1, done.stderr
    assert f"{path} --output {job.output} --sheet Affected" in done.stdout
    by_workbook = told(job.table("results.csv")), told(job.table("failures.csv"))
    assert job("run", job.manifest(CSV), "--output", job.folder / "other").returncode == 1
    job.output.rename(job.folder / "first")
    (job.folder / "other").rename(job.output)
    assert by_workbook == (told(job.table("results.csv")), told(job.table("failures.csv")))


def test_a_location_that_is_an_error_is_not_asked_for_as_an_agency(play):
    job = play(WORLD)
    rows = [ROWS[0], [Formula("=VLOOKUP(1,X:Y,2)", "#N/A"), "CoA", "Customer"], ROWS[1]]
    done = job.run(job.manifest(workbook({"Sheet1": rows}), "installs.xlsx"))
    assert done.returncode == 1
    assert {seen.account_id for seen in job.sandbox.seen} == {"LocA"}
    (failed,) = job.table("failures.csv")
    assert (failed["cause"], failed["name"]) == ("invalid_row", "Customer")
    assert failed["message"] == "A2 holds an error: correct it"


def test_the_failures_of_a_run_as_a_workbook_are_a_list_for_the_next_one(play):
    job = play(WORLD | of("LocIn", behaviour="location_inactive"))
    more = 'LocIn,CoA,"two\nlines"\n,,+49 170\nloc b,CoA,\'=x\n'
    job.run(job.manifest(CSV + more))
    before = told(job.table("failures.csv"))
    job.sandbox.world.installs["LocIn"] = job.sandbox.world.installs["LocA"]
    done = job("run", job.output / "failures.xlsx")
    assert done.returncode == 1, done.stderr
    assert job.results()["LocIn"]["status"] == "recovered"
    after = told(job.table("failures.csv"))
    of_both = ("location_id", "company_id", "cause", "name")
    left = sorted(tuple(row[name] for name in of_both) for row in before if row["location_id"] != "LocIn")
    assert sorted(tuple(row[name] for name in of_both) for row in after) == left
    assert "[row 2 of the sheet 'For the developer']" in done.stderr


def test_a_repeated_install_in_several_sheets_is_told_by_the_row_of_its_sheet(play):
    header = ["next_step", "reinstall_url", "location_id", "company_id", "client_id", "cause", "owner"]
    sheets = {name: [header, ["", "", "LocA", "CoA", "", "", ""]] for name in ("Ann", "Ben")}
    sheets["Ann"].append([NA] * 7)
    job = play(WORLD)
    path = job.manifest(workbook(sheets), "installs.xlsx")
    assert "1 line repeats an install: 5 [row 2 of the sheet 'Ben']\n" in job("plan", path).stdout
    assert json.loads(job("plan", path, "--json").stdout)["duplicate_lines"] == [5]


def test_a_workbook_that_cannot_be_a_list_ends_every_command_with_one_line(play):
    job = play(WORLD)
    path = job.manifest(workbook({"A": [["x"]], "B": [["y"]]}), "installs.xlsx")
    for command in (["run", path, "--output", job.output], ["plan", path], ["check", path]):
        done = job(*command)
        assert done.returncode == 2
        assert f"{path}: has no sheet with a column location_id or company_id" in done.stderr
        assert "Traceback" not in done.stderr
    assert not job.output.exists()


def test_a_workbook_on_which_its_reader_fails_is_one_line_too(play):
    """With this byte calamine fails in a way of its own, and writes a backtrace to standard error."""
    damaged = bytearray((PROJECT / "tests/samples/installs.xls").read_bytes())
    assert damaged[4340] == 29
    damaged[4340] = 25
    job = play()
    path = job.manifest(bytes(damaged), "installs.xls")
    done = job("plan", path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: {path}: is a damaged workbook: open it, save it as xlsx or CSV UTF-8, and use that",
        "exit 2: could not start; nothing was sent",
    ]


def test_a_check_reads_a_workbook_from_a_pipe(play):
    job = play(WORLD)
    pair = job.sandbox.old_pair("LocA", "Location")
    path = job.manifest(workbook({"A": [["location_id", "access_token"], ["LocA", pair["access_token"]]]}), "dump.xlsx")
    with path.open("rb") as file:
        command = [sys.executable, "-m", "jobs", "check", "-"]
        done = subprocess.run(
            command,
            check=False,
            cwd=job.project,
            env=job.environment,
            stdin=file,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert "accepts the access tokens of 1 of 1 installs" in done.stdout


def test_a_plan_and_a_check_read_the_sheet_that_is_named(play):
    job = play(WORLD)
    header = ["location_id", "access_token"]
    pairs = {account: job.sandbox.old_pair(account, "Location")["access_token"] for account in ("LocA", "LocB")}
    sheets = {account: [header, [account, pair]] for account, pair in pairs.items()}
    path = job.manifest(workbook(sheets), "dump.xlsx")
    assert job("check", path, "--sheet", "LocB").returncode == 0
    assert {seen.account_id for seen in job.sandbox.seen} == {"LocB"}
    assert "has several sheets with installs" in job("plan", path).stderr
    assert job("plan", path, "--sheet", "LocB").returncode == 0


def test_discover_adds_nothing_to_a_workbook(play):
    job = play(WORLD)
    path = job.manifest(workbook({"Affected": ROWS, "More": ROWS}), "installs.xlsx")
    done = job("discover", "--company", "CoA", "--output", path)
    assert done.returncode == 2
    assert f"{path}: is a workbook, to which no line can be added: save it as CSV UTF-8, or name a CSV" in done.stderr
    assert not job.sandbox.seen
