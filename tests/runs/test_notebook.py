"""The results of a run in a notebook: what `load` gives, what it hides, and the script that the README shows."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import sys

import pandas as pd
import pyrage
import pytest

from jobs.core.errors import UserError
from jobs.reports.columns import RESULTS, RESULTS_OPEN
from jobs.sandbox.world import Place
from jobs.tables import load
from tests.docs import python_under
from tests.helpers.job import KEPT

TOKENS = {"access_token", "refresh_token", "sealed"}
TIMES = ["expires_at", "recovered_at", "delivered_at"]
LEAKED = f"eyJhbGciOiJIUzI1NiJ9.{'eyJzdWIiOiJMb2NBIn0' * 3}.c2lnbmF0dXJl"  # Too long for an id.
HEADER = ["location_id", "company_id", "plan", "plan", "code", "note", "client_secret"]
ROWS = [
    ["LocA", "CoA", "NA", "null", "00123", "=1+1", "A-CLIENT-SECRET"],
    ["LocB", "CoA", "nan", "", "1e5", f"token {LEAKED}", ""],
    ["LocC", "CoB", "x\r\ny", "\0", " TRUE ", "ä🍰,;\t\"'", ""],
    [LEAKED, "CoB", "None", "0x1", "1.0", "", ""],
]


def listing(*rows):
    text = io.StringIO()
    csv.writer(text).writerows([HEADER, *rows])
    return text.getvalue()


@pytest.fixture
def job(play):
    """A job that has run: LocA and LocC are back, LocB failed, and a line could not be read."""
    made = play({"LocA": Place(company_id="CoA"), "LocB": Place("not_installed"), "LocC": Place(company_id="CoB")})
    made.run(made.manifest(listing(*ROWS)))
    return made


def test_a_cell_is_the_text_of_the_file_and_a_time_a_timestamp_in_utc(job):
    frame = load(job.output, tokens=True)
    with (job.output / "results.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert [*frame.columns] == [column.name for column in RESULTS_OPEN] + ["plan", "plan.1", *HEADER[4:]]
    texts = [place for place, name in enumerate(header) if name not in TIMES]
    assert frame.drop(columns=TIMES).to_numpy().tolist() == [[row[place] for place in texts] for row in rows]
    assert {str(frame[name].dtype) for name in TIMES} == {"datetime64[us, UTC]"}
    for name in TIMES:
        found = ["" if pd.isna(time) else time for time in frame[name]]
        assert found == [row[header.index(name)] and pd.Timestamp(row[header.index(name)]) for row in rows]
    assert frame["recovered_at"].notna().tolist() == [True, False, True, False]


def test_a_cell_too_many_at_the_end_of_a_row_moves_no_other(job):
    path, whole, starred = job.output / "results.csv", load(job.output, tokens=True), load(job.output)
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *([*row, ""] for row in rows)])
    assert load(job.output, tokens=True).equals(whole)
    assert load(job.output).equals(starred)


def test_without_being_asked_a_frame_has_no_token_and_the_stars_of_failures_csv(job):
    frame, whole = load(job.output), load(job.output, tokens=True)
    assert set(whole.columns) - set(frame.columns) == TOKENS - {"sealed"}
    secrets = {*whole["access_token"], *whole["refresh_token"], LEAKED, "A-CLIENT-SECRET"} - {""}
    assert len(secrets) == 6
    assert not [secret for secret in secrets if secret in frame.to_csv()]
    assert frame["client_secret"].tolist() == ["****", "", "", ""]
    failed = frame[frame["status"] == "failed"]
    columns = ["location_id", "company_id", "plan", "plan.1", "code", "note", "client_secret"]
    shown = pd.read_csv(job.output / "failures.csv", dtype=str, na_filter=False)
    assert failed[columns].to_numpy().tolist() == shown[columns].to_numpy().tolist()


def test_a_frame_has_the_text_of_sealed_pairs_if_it_is_asked_for(play):
    job = play()
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = str(pyrage.x25519.Identity.generate().to_public())
    job.run(job.manifest("location_id\nLocA\n"))
    assert [*load(job.output, tokens=True).columns] == [column.name for column in RESULTS]
    assert load(job.output, tokens=True)["sealed"][0] == job.results()["LocA"]["sealed"] != ""
    assert [*load(job.output).columns] == [column.name for column in RESULTS if column.name not in TOKENS]


def test_a_column_without_a_name_gets_its_place_as_one(play):
    job = play()
    job.run(job.manifest("location_id,,plan\nLocA,x,y\n"))
    frame = load(job.output, tokens=True)
    (unnamed,) = (name for name in frame if name.startswith("Unnamed"))
    assert (frame[unnamed][0], unnamed) == ("x", f"Unnamed: {len(RESULTS_OPEN)}")


def test_a_list_of_nothing_is_an_empty_frame_with_the_same_columns(play):
    job = play()
    job.run(job.manifest("location_id,plan\n"))
    frame = load(str(job.output))
    assert len(frame) == 0
    assert [*frame.columns] == [column.name for column in RESULTS_OPEN if column.name not in TOKENS]
    assert {str(frame[name].dtype) for name in TIMES} == {"datetime64[us, UTC]"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r": has no results\.csv: make it again with `recover report \S+`"),
        (b"", r"cannot be read \(it is not a CSV of the job\): make it again"),
        (b"location_id\n\xff\n", r"cannot be read \(it is not a CSV of the job\): make it again"),
        (b'location_id\n"Loc', r"cannot be read \(it is not a CSV of the job\): make it again"),
        (b"location_id;company_id\nLocA;CoA\n", "has no column location_id: another version has written it: make it"),
    ],
)
def test_a_file_that_this_version_did_not_write_is_one_line_that_says_what_to_do(tmp_path, content, says):
    if content is not None:
        (tmp_path / "results.csv").write_bytes(content)
    with pytest.raises(UserError, match=says) as refused:
        load(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_path_that_is_not_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "results.csv").mkdir()
    with pytest.raises(UserError, match=r"results.csv: cannot be read \(Is a directory\): "):
        load(tmp_path)
    for name, says in (("none", "does not exist"), ("file", "is not a folder")):
        with pytest.raises(UserError, match=f"{name}: {says}.*: use the folder of a run, such as data/installs"):
            load(tmp_path / name)


def test_the_sign_of_a_home_is_understood_and_that_of_nobodys_home_is_a_name(job, monkeypatch):
    monkeypatch.setenv("HOME", str(job.folder))
    assert load("~/out").equals(load(job.output))
    with pytest.raises(UserError, match=rf"{job.folder}: has no results\.csv"):
        load("~")
    with pytest.raises(UserError, match="~nobody-here: does not exist"):
        load("~nobody-here")


def test_a_table_of_another_version_is_read_once_report_has_made_it_again(job):
    path = job.output / "results.csv"
    whole = load(job.output)
    text = pd.read_csv(path, dtype=str, na_filter=False)
    text.drop(columns=["delivery", "delivered_at"]).to_csv(path, index=False)
    with pytest.raises(UserError, match="has no column delivery: another version") as refused:
        load(job.output)
    (arguments,) = re.findall("`recover (.+)`", str(refused.value))
    assert job(*arguments.split()).returncode == 0
    assert load(job.output).equals(whole)
    path.write_text(path.read_text(encoding="utf-8").replace("Z,", "Zz,"), encoding="utf-8")
    with pytest.raises(UserError, match="has a cell in expires_at that is not a time: make it again"):
        load(job.output)


def test_the_script_of_the_readme_tells_when_installs_came_back_and_why_others_did_not(job, tmp_path):
    shutil.copytree(job.output, tmp_path / "data" / "installs")
    command = [sys.executable, "-W", "error", "-c", python_under("data/README.md", "Look at a run in a notebook")]
    done = subprocess.run(command, cwd=tmp_path, env=KEPT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    hours, causes, waited = re.split(r"^(?:Failed|Time until).*\n", done.stdout, flags=re.MULTILINE)
    back = load(job.output)["recovered_at"].dropna().sort_values()
    assert sum(int(line.split()[-1]) for line in hours.splitlines()[2:]) == 2
    assert str(back.iloc[0].floor("h")) in hours
    assert sorted(line.split() for line in causes.splitlines()[1:]) == [
        ["invalid_row", "CoB", "1"],
        ["not_installed", "CoA", "1"],
    ]
    assert waited.splitlines()[-1].split(maxsplit=1) == ["1.0", str(back.iloc[1] - back.iloc[0])]
