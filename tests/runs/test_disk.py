"""Disks that are full, read-only, gone or damaged: one clear line, and no pair that was issued is lost."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import threading

import pyrage
import pytest

from jobs.core.file_errors import FileError
from jobs.core.model import Cause
from jobs.report import report_again
from jobs.terminal.closing import closing
from tests.helpers.job import PROJECT, pairs
from tests.helpers.leaks import leaks
from tests.helpers.lists import listing
from tests.helpers.made import make_run
from tests.helpers.made import place as install
from tests.helpers.waiting import wait_until

REPORTS = ["results.csv", "failures.csv", "failures.html", "failures.xlsx", "summary.json"]


@pytest.fixture
def disk(tmp_path):
    """`disk(mebibytes)` gives the folder of a small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(size):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", place], check=False, capture_output=True
        )
        if done.returncode:
            pytest.skip("a small disk can be mounted by root alone")
        mounted.append(place)
        return place

    try:
        yield mount
    finally:
        for folder in mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


def fill(place):
    """Take all the space on the disk."""
    with (place / "somebody-elses").open("ab", buffering=0) as file:
        for size in (1 << 16, 4096, 512, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def refused(stage, code=2):
    said = stage.said()
    assert "Traceback" not in said
    assert len(said.splitlines()) == 2, said
    assert f"exit {code}" in said.splitlines()[-1]
    return said


@pytest.mark.parametrize("room_left", [4 << 20, 0])
def test_a_disk_that_is_full_before_the_start_is_one_clear_line_and_nothing_is_sent(stage, disk, room_left):
    job, place = stage.job, disk(6)
    if room_left:
        (place / "somebody-elses").write_bytes(b"x" * (2 << 20))
    else:
        fill(place)
    assert stage.run(job.manifest(listing(3)), place / "out")["code"] == 2
    assert "reserve" in refused(stage)
    assert job.sandbox.seen == []


def test_a_disk_that_fills_up_under_way_stops_the_run_and_every_issued_pair_is_kept(stage, disk):
    job, place = stage.job, disk(16)
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "200"
    stage.start("run", job.manifest(listing(400)), "--output", place / "out", "--workers", 8)
    wait_until(lambda: len(job.sandbox.codes.issued) > 30)
    fill(place)
    assert stage.end()["code"] == 3
    said = stage.said()
    assert "Traceback" not in said
    assert "(disk: " in said.splitlines()[-1]
    assert 30 < len(job.issued()) < 400
    assert pairs(place / "out") == job.issued()
    job.output.symlink_to(place / "out")
    assert {key: row["refresh_token"] for key, row in job.results().items() if row["refresh_token"]} == job.issued()
    assert job.summary()["stopped_because"] == "disk"
    (place / "somebody-elses").unlink()
    assert stage.run(job.folder / "installs.csv", job.output, "--rate", 500)["code"] == 0
    assert pairs(job.output) == job.issued()
    assert len(job.sandbox.codes.issued) == 400


def test_where_somebody_takes_the_last_room_too_the_run_stops_and_says_what_is_lost(stage, disk):
    job, place = stage.job, disk(12)
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "200"
    stage.start("run", job.manifest(listing(400)), "--output", place / "out", "--workers", 4)
    wait_until(lambda: len(job.sandbox.codes.issued) > 10)
    over = threading.Event()

    def take_all():
        while not over.is_set():
            fill(place)

    taker = threading.Thread(target=take_all)
    taker.start()
    code = stage.end()["code"]
    over.set()
    taker.join()
    (place / "somebody-elses").unlink()
    said = stage.said()
    assert code == 3
    assert "Traceback" not in said
    lost = len(job.issued()) - len(pairs(place / "out"))
    assert pairs(place / "out").items() <= job.issued().items()
    assert lost <= 4
    assert (f"{lost} new pairs could not be stored" in said) == bool(lost)


def test_a_read_only_folder_is_one_clear_line_and_nothing_is_sent(stage, disk):
    job, place = stage.job, disk(12)
    assert stage.run(job.manifest(listing(1)), place / "out")["code"] == 0
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    calls = len(job.sandbox.seen)
    stage.said()
    for output in (place / "out", place / "new"):
        assert stage.run(job.manifest(listing(3)), output)["code"] == 2
        assert str(place) in refused(stage)
    assert len(job.sandbox.seen) == calls


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_folder_that_vanishes_under_way_stops_the_run_and_comes_back_with_all_that_was_issued(stage, how):
    job = stage.job
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "200"
    stage.start("run", job.manifest(listing(300)), "--output", job.output, "--workers", 4)
    wait_until(lambda: len(job.sandbox.codes.issued) > 10)
    if how == "moved":
        job.output.rename(job.folder / "elsewhere")
    else:
        subprocess.run(["rm", "-rf", job.output], check=True)  # The run may remove a file of its own meanwhile.
    assert stage.end()["code"] == 3
    said = stage.said()
    assert "Traceback" not in said
    assert "moved or removed" in said.splitlines()[-1]
    assert 10 < len(job.issued()) < 300
    assert pairs(job.output) == job.issued()
    assert job.output.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in job.output.iterdir()} == {0o600}
    assert job.summary()["counts"]["recovered"] == len(job.issued())
    assert stage.run(job.folder / "installs.csv", job.output, "--rate", 500)["code"] == 0
    assert len(job.sandbox.codes.issued) == 300


def test_a_folder_that_another_took_the_place_of_is_left_alone_and_what_became_of_the_pairs_is_said(stage):
    job = stage.job
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "200"
    other = job.folder / "other"
    assert stage.run(job.manifest("location_id\nOther\n", "other.csv"), other)["code"] == 0
    before = pairs(other)
    stage.start("run", job.manifest(listing(300)), "--output", job.output, "--workers", 4)
    wait_until(lambda: len(job.sandbox.codes.issued) > 10)
    job.output.rename(job.folder / "elsewhere")
    other.rename(job.output)
    assert stage.end()["code"] == 3
    said = stage.said()
    assert "Traceback" not in said
    assert pairs(job.output) == before
    kept = len(pairs(job.folder / "elsewhere"))
    assert f"its {kept} pairs are where the folder was moved to" in said
    assert len(job.issued()) == kept + 1


@pytest.mark.parametrize("room", [2, 5])  # Mebibytes: it ends among the rows, or when it is put together.
def test_a_workbook_that_does_not_fit_costs_that_report_alone_and_takes_no_room(disk, room):
    """It takes more room than any other report, and the library that writes it holds its files open."""
    place, columns = disk(16), tuple(f"c{number}" for number in range(100))
    out, free = place / "out", place / "free"
    failed = [(install(number, "", *("cell",) * len(columns)), Cause.NOT_INSTALLED) for number in range(500)]
    make_run(out, columns, failed)
    before = {name: (out / name).stat().st_ino for name in REPORTS if name != "failures.xlsx"}
    free.write_bytes(b"x" * (room << 20))
    fill(place)
    free.unlink()
    with pytest.raises(FileError, match=r"failures\.xlsx: cannot be written \(No space left on device\)"):
        report_again(out, PROJECT, {}, [].append)
    gc.collect()  # What the library left open says nothing when it is collected.
    after = {file.name: file.stat().st_ino for file in out.iterdir() if file.name in REPORTS}
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] == before[name]] == []
    assert not [*out.glob(".new-*")]


def test_the_closing_block_names_the_files_that_are_there(tmp_path):
    run = make_run(tmp_path / "out", (), [(install(1), Cause.NOT_INSTALLED)])
    (tmp_path / "out" / "failures.csv").unlink()
    told = closing(run, tmp_path / "out", "recover run", "", "")
    named = [name for name in REPORTS if any(line.startswith(f"  {name} ") for line in told)]
    assert named == ["results.csv", "failures.html"]


@pytest.mark.parametrize("name", REPORTS)
def test_a_folder_in_place_of_a_report_is_refused_before_anything_is_sent(stage, name):
    job = stage.job
    (job.output / name).mkdir(parents=True)
    assert stage.run(job.manifest(listing(3)), job.output)["code"] == 2
    assert name in refused(stage)
    assert job.sandbox.seen == []


def test_a_folder_that_takes_the_place_of_a_report_under_way_costs_that_report_alone(stage):
    job = stage.job
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "100"
    stage.start("run", job.manifest(listing(20)), "--output", job.output)
    wait_until(lambda: len(job.sandbox.codes.issued) > 3)
    (job.output / "results.csv").mkdir()
    assert stage.end()["code"] == 3
    said = stage.said()
    assert "Traceback" not in said
    assert "results.csv: cannot be written (Is a directory): move the folder away" in said.splitlines()[-1]
    assert (job.summary()["exit_code"], job.summary()["stopped_because"]) == (3, "disk")
    assert pairs(job.output) == job.issued()


@pytest.mark.parametrize("name", REPORTS)
def test_a_link_in_place_of_a_report_is_replaced_and_never_followed(stage, name):
    job = stage.job
    job.output.mkdir(mode=0o700)
    elsewhere = job.folder / "elsewhere"
    elsewhere.write_text("untouched")
    (job.output / name).symlink_to(elsewhere)
    assert stage.run(job.manifest(listing(2)), job.output)["code"] == 0
    assert elsewhere.read_text() == "untouched"
    assert not (job.output / name).is_symlink()
    assert len(job.results()) == 2


def test_a_ledger_that_is_a_link_or_a_folder_is_refused(stage):
    job = stage.job
    job.output.mkdir(mode=0o700)
    (job.output / "ledger.sqlite3").mkdir()
    assert stage.run(job.manifest(listing(2)), job.output)["code"] == 2
    refused(stage)
    assert job.sandbox.seen == []


def test_a_ledger_damaged_anywhere_never_ends_in_a_traceback_and_loses_no_pair_of_the_reports(stage):
    job = stage.job
    manifest = job.manifest(listing(40))
    assert stage.run(manifest, job.output)["code"] == 0
    whole, results = job.output / "ledger.sqlite3", (job.output / "results.csv").read_bytes()
    pages = whole.stat().st_size // 4096
    content = whole.read_bytes()
    calls, codes = len(job.sandbox.seen), set()
    stage.said()
    for page in range(0, pages, max(1, pages // 15)):
        torn = bytearray(content)
        torn[page * 4096 : page * 4096 + 4096] = b"\xa5" * 4096
        for file in job.output.glob("ledger*"):
            file.unlink()
        whole.write_bytes(torn)
        codes.add(stage.run(manifest, job.output)["code"])
        assert "Traceback" not in stage.said()
        assert (job.output / "results.csv").read_bytes() == results
    assert 2 in codes
    assert codes <= {0, 2, 3}
    assert len(job.sandbox.seen) == calls


def test_a_disk_that_is_full_when_reports_are_made_again_is_one_clear_line(stage, disk):
    job, place = stage.job, disk(12)
    assert stage.run(job.manifest(listing(5)), place / "out")["code"] == 0
    before = (place / "out" / "results.csv").read_bytes()
    fill(place)
    stage.said()
    stage.start("report", place / "out")
    code = stage.end()["code"]
    refused(stage, code)
    assert code in {2, 3}
    assert (place / "out" / "results.csv").read_bytes() == before


def test_texts_that_were_overwritten_are_a_damaged_ledger(stage):
    job = stage.job
    manifest = job.manifest(listing(5))
    assert stage.run(manifest, job.output)["code"] == 0
    whole = job.output / "ledger.sqlite3"
    for file in job.output.glob("ledger.sqlite3-*"):
        file.unlink()
    (row,) = [row for row in job.table("results.csv") if row["location_id"] == "Loc3"]
    content = whole.read_bytes()
    assert content.count(row["recovered_at"].encode()) >= 1
    whole.write_bytes(content.replace(row["recovered_at"].encode(), b"\xa5" * len(row["recovered_at"])))
    stage.said()
    assert stage.run(manifest, job.output)["code"] == 2
    assert "damaged" in refused(stage)


@pytest.mark.parametrize(
    "where",
    [
        "jobs.recovery.routing.Router.begin",
        "jobs.recovery.routing.Router.heard",
        "jobs.recovery.agency_tokens.AgencyTokens.add",
    ],
)
def test_what_the_system_refuses_anywhere_in_a_run_is_told_as_that_and_costs_no_pair_in_flight(stage, where):
    job = stage.job
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "100"
    agencies = "location_id,company_id\n" + "".join(f",Comp{n}\n" for n in range(40))
    refusal = {"where": where, "errno": errno.EIO, "said": "", "at": 5}
    assert stage.run(job.manifest(agencies), job.output, "--workers", 8, bug=refusal)["code"] == 3
    said = stage.said()
    assert "Traceback" not in said
    assert "(disk: " in said.splitlines()[-1]
    assert 0 < len(job.issued()) < 40
    assert pairs(job.output) == job.issued()
    assert (job.summary()["exit_code"], job.summary()["stopped_because"]) == (3, "disk")


def test_a_bug_in_what_judges_an_answer_costs_no_pair_in_flight(stage):
    job = stage.job
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "100"
    bug = {"where": "jobs.recovery.routing.Router.heard", "said": "on purpose", "at": 5}
    assert stage.run(job.manifest(listing(40)), job.output, "--workers", 8, bug=bug)["code"] == 70
    assert 0 < len(job.issued()) < 40
    assert pairs(job.output) == job.issued()


@pytest.fixture
def stricken(play, tmp_path):
    """`stricken(error, calls)`: the disk of a run under way begins to refuse these calls on its ledger. Returns how it ends."""
    tracers = []

    def strike(error, calls="pwrite64,fdatasync,fsync,ftruncate,unlink", **world):
        job = play(**world)
        job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "100"
        process = job.start("run", job.manifest(listing(400)), "--output", job.output)
        wait_until(lambda: len(pairs(job.output)) > 10)
        files = [job.output / f"ledger.sqlite3{end}" for end in ("", "-wal", "-shm")] + [job.output / ".reserve"]
        watched = [word for file in files for word in ("-P", str(file))]
        command = ["strace", "-f", "-q", "-o", tmp_path / "trace", "-p", str(process.pid), *watched]
        try:
            tracers.append(
                subprocess.Popen([*command, "-e", f"inject={calls}:error={error}"], stderr=subprocess.DEVNULL)
            )
        except FileNotFoundError:
            process.kill()
            pytest.skip("strace is not installed")
        out, err = process.communicate(timeout=60)
        if tracers[-1].wait(10) and process.returncode == 0:
            pytest.skip("strace may not trace here")
        assert "INJECTED" in (tmp_path / "trace").read_text()
        return job, process.returncode, out, err

    yield strike
    for tracer in tracers:
        tracer.kill()
        tracer.wait()


@pytest.mark.parametrize("error", ["EROFS", "EIO", "ENOSPC", "EDQUOT"])
def test_a_disk_that_dies_under_way_costs_what_is_in_flight_alone_and_that_is_said_with_a_number(stricken, error):
    job, code, out, err = stricken(error)
    assert "Traceback" not in out + err
    assert code == 3
    lost = len(job.issued()) - len(pairs(job.output))
    assert 10 < len(pairs(job.output)) < 400
    assert (f"{lost} new pairs could not be stored" in out) == bool(lost)
    assert str(job.output) in out.splitlines()[-1]
    summary = job.summary()
    assert (summary["exit_code"], summary["stopped_because"]) == (3, "disk")
    assert summary["counts"]["recovered"] == summary["this_run"]["recovered"] == len(pairs(job.output))
    assert {key: row["refresh_token"] for key, row in job.results().items() if row["refresh_token"]} == pairs(
        job.output
    )


def test_once_the_ledger_has_refused_a_write_no_code_in_hand_is_exchanged(stricken):
    job, code, out, _ = stricken("EIO", latency_seconds=1.0)
    assert code == 3
    given = [seen.account_id for seen in job.sandbox.seen if seen.call == "reconnect"]
    sent = [seen.account_id for seen in job.sandbox.seen if seen.call == "token"]
    assert set(given) - set(sent), "no code was in hand when the disk died"
    lost = len(sent) - len(pairs(job.output))
    assert (f"{lost} new pairs could not be stored" in out) == bool(lost)
    left = {key for key, row in job.results().items() if row["status"] == "pending"}
    assert set(given) - set(sent) <= left


def test_a_full_disk_ends_sealing_with_what_to_do_and_the_next_one_finishes_it(stage, disk):
    job, place = stage.job, disk(12)
    assert job("run", job.manifest(listing(60)), "--output", place / "out").returncode == 0
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = str(pyrage.x25519.Identity.generate().to_public())
    fill(place)
    os.truncate(place / "somebody-elses", (place / "somebody-elses").stat().st_size - (128 << 10))
    full = job("seal", place / "out")
    assert full.returncode == 2
    assert "No space left on device" in full.stderr
    assert f"open pairs may be left in {place / 'out'}: run `recover seal {place / 'out'}` again" in full.stderr
    assert full.stderr.endswith("exit 2: not all pairs are sealed\n")
    (place / "somebody-elses").unlink()
    assert job("seal", place / "out").returncode == 0
    assert leaks(job.tokens, place / "out") == []
