"""Whole runs, as a user starts them, over real sockets."""

from __future__ import annotations

import csv
import os
import re
import signal
import sqlite3
import stat
import sys
from pathlib import Path

import pytest

from jobs.sandbox.behaviours import BEHAVIOURS, RECONNECT, TOKEN
from jobs.sandbox.world import Limit, Place
from tests.helpers.job import CLIENT_ID, SECRET
from tests.helpers.lists import listing
from tests.helpers.waiting import line_with, wait_until

EXPECTED = {
    "recovered": "",
    "recovered_camel_case": "",
    "recovered_201": "",
    "not_installed": "not_installed",
    "location_inactive": "location_inactive",
    "request_refused": "request_refused",
    "bad_version": "request_refused",
    "credentials_rejected": "credentials_rejected",
    "reconnect_removed": "reconnect_removed",
    "reconnect_gone": "reconnect_removed",
    "code_rejected": "code_rejected",
    "code_not_found": "code_rejected",
    "code_expired": "code_rejected",
    "wrong_account": "wrong_account",
    "wrong_company": "",
    "wrong_user_type": "wrong_user_type",
    "malformed_html": "malformed_answer",
    "malformed_empty": "malformed_answer",
    "malformed_token": "malformed_answer",
    "malformed_cut": "malformed_answer",
    "server_error": "server_error",
    "bad_gateway": "server_error",
    "drop_before": "network_error",
    "drop_after": "network_error",
    "echo_secrets": "request_refused",
}


def test_every_fault_ends_in_its_cause_and_no_code_is_ever_sent_twice(play):
    of_other_routes = {name for name, one in BEHAVIOURS.items() if one.call not in {"", RECONNECT, TOKEN}}
    assert set(EXPECTED) == set(BEHAVIOURS) - {"rate_limited"} - of_other_routes
    company = "Company0000000000001"
    installs = {f"Loc-{name}": Place(name, company_id=company) for name in EXPECTED}
    job = play(installs)
    rows = [f"Loc-{name},{company}" for name in EXPECTED]
    # A good install between any two, so that no breaker ends the run.
    lines = [line for index, row in enumerate(rows) for line in (row, f"LocGood{index},")]
    done = job.run(job.manifest("\n".join(["location_id,company_id", "LocFirst,", *lines])), "--workers", "1")
    assert done.returncode == 1, done.stderr
    causes = {account.removeprefix("Loc-"): row["cause"] for account, row in job.results().items() if "Loc-" in account}
    assert causes == EXPECTED
    assert job.sandbox.codes_sent_twice == []


def test_a_rerun_touches_only_what_failed_and_nothing_to_do_is_said(play):
    job = play({"LocB": Place("not_installed")})
    manifest = job.manifest(listing(["LocA", "LocB", "LocC"]))
    assert job.run(manifest).returncode == 1
    before = job.results()
    job.sandbox.world.installs["LocB"] = Place()
    calls = len(job.sandbox.seen)
    again = job.run(manifest)
    assert again.returncode == 0
    assert {seen.account_id for seen in job.sandbox.seen[calls:]} == {"LocB"}
    assert job.results()["LocA"]["access_token"] == before["LocA"]["access_token"]
    calls = len(job.sandbox.seen)
    third = job.run(manifest)
    assert (third.returncode, len(job.sandbox.seen)) == (0, calls)
    first, *_ = third.stdout.splitlines()
    assert re.fullmatch(
        r"nothing to do: every install that can be tried was recovered \d+s( to \d+s)? ago; a second incident .*--recovered-before TIME",
        first,
    )


def test_a_list_without_rows_or_without_the_asked_for_cause_has_nothing_to_do(play):
    job = play({"LocB": Place("not_installed")})
    empty = job.run(job.manifest("location_id,name\n", "empty.csv"))
    assert (empty.returncode, empty.stdout.splitlines()[0]) == (0, "nothing to do: INPUT lists no installs")
    manifest = job.manifest(listing(["LocA", "LocB"]))
    job.run(manifest)
    calls = len(job.sandbox.seen)
    other = job.run(manifest, "--cause", "server_error", "--cause", "rate_limited")
    assert (other.returncode, len(job.sandbox.seen)) == (1, calls)  # LocB is not back.
    assert other.stdout.startswith("nothing to do: no install in INPUT failed with server_error or rate")
    assert job.run(manifest, "--cause", "not_installed", "--cause", "server_error").returncode == 1
    assert [seen.account_id for seen in job.sandbox.seen[calls:]] == ["LocB"]


def test_failures_csv_fed_back_recovers_what_has_healed_and_keeps_the_cells(play):
    job = play({"LocB": Place("not_installed")})
    cell = '=1+1, "x"\r\nline two'
    text = 'location_id,note,note\nLocA,a,b\nLocB,"' + cell.replace('"', '""') + '",NA\n'
    assert job.run(job.manifest(text)).returncode == 1
    job.sandbox.world.installs.clear()
    done = job("run", job.output / "failures.csv")
    assert done.returncode == 0
    (row,) = [line for line in job.table("results.csv") if line["location_id"] == "LocB"]
    assert row["status"] == "recovered"
    assert row["note"] == "NA"
    assert "left out" not in done.stderr
    assert cell in (job.output / "results.csv").read_bytes().decode().replace('""', '"')
    assert job.table("failures.csv") == []


def test_spellings_orders_and_columns_of_a_manifest_make_no_second_install(play):
    job = play()
    assert job.run(job.manifest("location_id,name\nLocA,x\nLocB,y\n")).returncode == 0
    calls = len(job.sandbox.seen)
    assert job.run(job.manifest("﻿Name;Location ID;Plan\r\ny; LocB ;gold\r\nx;LocA;free\r\n")).returncode == 0
    assert len(job.sandbox.seen) == calls
    assert [row["location_id"] for row in job.table("results.csv")] == ["LocB", "LocA"]
    assert job.table("results.csv")[0]["Plan"] == "gold"


def test_what_is_no_longer_listed_keeps_its_row_at_the_end(play):
    job = play()
    job.run(job.manifest("location_id,name\nLocA,x\nLocB,y\n"))
    assert job.run(job.manifest("location_id,name\nLocB,y\nLocC,z\n")).returncode == 0
    assert [row["location_id"] for row in job.table("results.csv")] == ["LocB", "LocC", "LocA"]
    assert job.summary()["counts"]["installs"] == 2


def test_agencies_go_first_and_an_agency_row_asks_for_a_company(play):
    job = play({"LocA": Place(company_id="CoX")})
    manifest = job.manifest("location_id,company_id\nLocA,CoX\n,CoX\n")
    assert job.run(manifest).returncode == 0
    assert [seen.account_id for seen in job.sandbox.seen][:2] == ["CoX", "CoX"]
    assert job.results()["CoX"]["user_type"] == "Company"


def test_three_refusals_stop_the_run_after_three_requests_one_at_a_time(play):
    job = play(default="reconnect_removed")
    done = job.run(job.manifest(listing([f"Loc{n}" for n in range(30)])))
    assert done.returncode == 3
    assert len(job.sandbox.seen) == 3
    summary = job.summary()
    assert summary["stopped_because"] == "reconnect_removed"
    assert summary["counts"]["pending"] == 27
    assert "API endpoint has been removed" in done.stdout.splitlines()[-1]


def test_many_transient_failures_in_a_row_are_an_outage(play):
    job = play(default="server_error")
    job.environment |= {"RECOVERY_STOP__TRANSIENT_INSTALLS": "4", "RECOVERY_RETRY__ATTEMPTS": "2"}
    done = job.run(job.manifest(listing([f"Loc{n}" for n in range(200)])), "--workers", "2")
    assert done.returncode == 3
    assert job.summary()["stopped_because"] == "outage"
    assert job.summary()["counts"]["pending"] > 150


def test_an_unreachable_api_is_named_with_its_address_and_reason(play):
    job = play()
    job.environment |= {"HIGHLEVEL_BASE_URL": "http://127.0.0.1:9", "RECOVERY_STOP__TRANSIENT_INSTALLS": "2"}
    done = job.run(job.manifest(listing(["LocA", "LocB", "LocC"])))
    assert done.returncode == 3
    assert "127.0.0.1:9 refused the connection" in done.stdout.splitlines()[-1]


def test_a_429_holds_everybody_back_and_uses_up_no_try(play):
    job = play(limit=Limit(6, 1.0, "seconds"))
    job.environment["RECOVERY_RETRY__ATTEMPTS"] = "1"
    done = job.run(job.manifest(listing([f"Loc{n}" for n in range(8)])), "--workers", "4")
    assert done.returncode == 0, done.stderr
    refused = [seen.at for seen in job.sandbox.seen if seen.status == 429]
    assert refused
    # A worker whose request was under way may be refused too; after that nothing is sent while the hold runs.
    assert not [seen for seen in job.sandbox.seen if refused[0] + 0.2 < seen.at < refused[0] + 0.95]
    assert {row["attempts"] for row in job.table("results.csv")} == {"1"}


def test_patience_with_429_ends_in_an_outage(play):
    job = play(limit=Limit(4, 3600.0, "seconds"))
    done = job.run(job.manifest(listing([f"Loc{n}" for n in range(8)])), "--workers", "2")
    assert done.returncode == 3
    assert job.summary()["stopped_because"] == "outage"


@pytest.mark.parametrize("place", [0, 5, 19])
def test_one_install_that_is_refused_with_429_for_ever_waits_by_itself_and_fails_alone(play, place):
    ids = [f"Loc{n}" for n in range(20)]
    job = play({ids[place]: Place("rate_limited")})
    job.environment["RECOVERY_PACE__PATIENCE_SECONDS"] = "4"
    done = job.run(job.manifest(listing(ids)), "--workers", "2")
    assert done.returncode == 1, done.stderr
    failures = job.failures()
    assert {account: row["cause"] for account, row in failures.items()} == {ids[place]: "rate_limited"}
    assert failures[ids[place]]["message"] == "Too many requests"
    assert job.summary()["counts"]["recovered"] == 19
    assert job.summary()["stopped_because"] is None


def test_the_pace_is_never_passed(play):
    job = play()
    done = job.run(job.manifest(listing([f"Loc{n}" for n in range(40)])), "--rate", "50")
    assert done.returncode == 0
    times = [seen.at for seen in job.sandbox.seen]
    assert len(times) == 80
    span = times[-1] - times[0]
    assert span >= 79 / 50 - 0.1


def test_a_limit_stops_with_4_and_the_rest_is_pending(play):
    job = play()
    manifest = job.manifest(listing([f"Loc{n}" for n in range(5)]))
    assert job.run(manifest, "--limit", "2").returncode == 4
    assert job.summary()["counts"] == {
        "rows": 5, "installs": 5, "duplicates": 0, "recovered": 2, "failed": 0, "pending": 3, "delivered": 0, "undelivered": 0, "purged": 0
    }  # fmt: skip
    assert job.run(manifest, "--limit", "3").returncode == 0


def test_force_is_the_only_way_to_touch_a_recovered_install_and_a_failure_keeps_its_pair(play):
    job = play()
    manifest = job.manifest(listing(["LocA"]))
    job.run(manifest)
    first = job.results()["LocA"]["access_token"]
    job.run(manifest, "--force")
    second = job.results()["LocA"]["access_token"]
    assert first != second
    job.sandbox.world.installs["LocA"] = Place("not_installed")
    assert job.run(manifest, "--force").returncode == 1
    assert job.results()["LocA"]["access_token"] == second


def test_a_signal_stops_gracefully_and_the_rest_is_pending(play):
    job = play(latency_seconds=0.1)
    process = job.start("run", job.manifest(listing([f"Loc{n}" for n in range(300)])), "--output", job.output)
    wait_until(lambda: len(job.sandbox.seen) > 6)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143
    counts = job.summary()["counts"]
    assert counts["recovered"] >= 1
    assert counts["pending"] == 300 - counts["recovered"] > 0


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_ends_the_run_at_once_and_the_reports_are_there(play, second):
    job = play({"LocB": Place("not_installed")}, latency_seconds=0.2)
    manifest = job.manifest(listing(["LocA", "LocB", "LocC", "LocD"]))
    # Started as cron does, in a folder whose modules do not belong to the job.
    job.command, job.project = (Path(sys.executable).with_name("recover"),), job.folder
    for name in ("json.py", "jobs.py"):
        (job.folder / name).write_text("raise SystemExit(99)", encoding="utf-8")
    process = job.process("run", manifest, "--output", job.output, "--workers", "1")
    wait_until(lambda: any(seen.account_id == "LocB" for seen in job.sandbox.seen))
    job.slow_down(60)
    process.send_signal(signal.SIGTERM)
    line_with("stopping", process.stderr)
    sent = len(job.sandbox.seen)
    process.send_signal(second)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + second
    assert (out + err).splitlines()[-1].startswith(f"exit {128 + second}: stopped at once")
    assert len(job.sandbox.seen) == sent
    summary = job.summary()
    assert (summary["exit_code"], summary["stopped_because"]) == (128 + second, "signal")
    assert [row["status"] for row in job.results().values()] == ["recovered", "failed", "pending", "pending"]
    assert [*job.failures()] == ["LocB"]
    assert (job.output / "failures.html").exists()


def test_a_killed_run_loses_nothing_that_was_recorded_and_sends_no_code_twice(play):
    job = play(latency_seconds=0.01)
    manifest = job.manifest(listing([f"Loc{n}" for n in range(60)]))
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "100"
    kept: dict[str, str] = {}
    hits = 0
    for more in (8, 30, 50):
        target = len(job.sandbox.seen) + more
        process = job.start("run", manifest, "--output", job.output, "--workers", "4")
        wait_until(lambda target=target, process=process: len(job.sandbox.seen) >= target or process.poll() is not None)
        hits += process.poll() is None
        process.kill()
        process.communicate()
        job("report", job.output)
        now = {key: row["refresh_token"] for key, row in job.results().items() if row["status"] == "recovered"}
        assert kept.items() <= now.items()
        kept = now
    assert hits == 3
    assert job.run(manifest).returncode == 0
    final = {key: row["refresh_token"] for key, row in job.results().items()}
    assert kept.items() <= final.items()
    assert len(final) == 60
    assert job.sandbox.codes_sent_twice == []


def test_a_report_while_a_run_is_under_way_counts_what_stands_so_far(play):
    job = play({"Loc0": Place("not_installed")}, latency_seconds=0.05)
    text = listing([f"Loc{n}" for n in range(200)]) + "Loc1,again\n"
    process = job.start("run", job.manifest(text), "--output", job.output, "--workers", "1")
    wait_until(lambda: len(job.sandbox.seen) > 8)
    assert job("report", job.output).returncode == 0
    during = job.summary()
    hit = process.poll() is None
    process.kill()
    process.communicate()
    assert hit
    job("report", job.output)
    for summary in (during, job.summary()):
        counts, this_run = summary["counts"], summary["this_run"]
        assert (summary["finished_at"], summary["exit_code"]) == (None, None)
        assert (counts["rows"], counts["installs"], counts["duplicates"], counts["failed"]) == (201, 200, 1, 1)
        assert counts["recovered"] + counts["pending"] == 199
        assert summary["failures_by_owner"] == {"customer": 1}
        assert this_run["failed"] == this_run["new_failures"] == 1
        assert this_run["recovered"] == counts["recovered"] >= 1
        assert summary["retryable"] == counts["pending"]
    assert "1 of 200 installs" in (job.output / "failures.html").read_text()


def test_a_company_is_kept_where_the_list_has_no_such_column(play):
    job = play({"LocA": Place("not_installed"), "LocB": Place("not_installed")})
    job.run(job.manifest("location_id,company_id\nLocA,CoA\nLocB,CoB\n"))
    job.run(job.manifest("location_id\nLocA\nLocB\n"))
    assert [row["company_id"] for row in job.table("results.csv")] == ["CoA", "CoB"]


def test_a_sub_account_that_moved_to_another_agency_is_kept_with_the_company_that_highlevel_names(play):
    job = play({f"Loc{n}": Place(company_id="CoNew") for n in range(3)})
    manifest = job.manifest("location_id,company_id\n" + "".join(f"Loc{n},CoOld\n" for n in range(3)))
    done = job.run(manifest)
    assert done.returncode == 0, done.stderr
    assert {row["company_id"] for row in job.table("results.csv")} == {"CoNew"}
    # The list was wrong: said once for this pair of companies, and in the row of each.
    assert done.stderr.count("told once for these companies") == 1
    assert "HighLevel says CoNew" in job.results()["Loc2"]["message"]
    # A forced run and the reports as a list know the company that HighLevel named.
    assert job.run(manifest, "--force").returncode == 0
    again = job("run", job.output / "results.csv", "--force")
    assert again.returncode == 0
    assert "the list names" not in again.stderr


def test_two_runs_on_one_folder_or_for_one_app_cannot_happen(play):
    job = play(latency_seconds=0.1)
    manifest = job.manifest(listing([f"Loc{n}" for n in range(5000)]))
    process = job.start("run", manifest, "--output", job.output, "--workers", "2")
    wait_until(lambda: len(job.sandbox.seen) > 2)
    link = job.folder / "link"
    link.symlink_to(job.output)
    same_folder = job("run", manifest, "--output", link)
    same_app = job("run", manifest, "--output", job.folder / "other")
    process.kill()
    process.communicate()
    assert (same_folder.returncode, same_app.returncode) == (11, 11)
    assert "held by" in same_app.stderr
    assert job.run(manifest, "--limit", "1").returncode == 4


def test_no_secret_reaches_what_people_see_even_when_the_server_echoes_it(play):
    job = play({"LocA": Place("echo_secrets")})
    done = job.run(job.manifest(listing(["LocA", "LocB"])), "--log-format", "json")
    seen = done.stdout + done.stderr
    for name in ("failures.csv", "failures.html", "summary.json"):
        seen += (job.output / name).read_text(encoding="utf-8-sig")
    tokens = job.results()["LocB"]
    secrets = [SECRET, *job.sandbox.codes.sent, tokens["access_token"], tokens["refresh_token"]]
    assert len(secrets) == 5
    assert not [secret for secret in secrets if secret in seen]


def test_files_are_private_from_the_first_byte_also_under_umask_0(play):
    job = play()
    before = os.umask(0)
    try:
        job.run(job.manifest(listing(["LocA"])))
    finally:
        os.umask(before)
    assert stat.S_IMODE(job.output.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in job.output.iterdir()} == {0o600}


def test_unknown_tokens_in_results_are_never_overwritten(play):
    job = play()
    manifest = job.manifest(listing(["LocA"]))
    job.run(manifest)
    for file in job.output.glob("ledger*"):
        file.unlink()
    calls = len(job.sandbox.seen)
    before = (job.output / "results.csv").read_bytes()
    done = job.run(manifest)
    assert done.returncode == 2
    assert "does not know" in done.stderr
    assert (
        "if this comes back, somebody has changed a pair in the ledger: put back a backup of the ledger" in done.stderr
    )
    assert (job.output / "results.csv").read_bytes() == before
    assert len(job.sandbox.seen) == calls


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_results_file_that_a_spreadsheet_saved_again_is_read_for_what_it_holds(play, separator):
    job = play()
    manifest = job.manifest(listing(["LocA"]))
    job.run(manifest)
    row = job.results()["LocA"]
    results = job.output / "results.csv"

    def save(row):
        with results.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, list(row), delimiter=separator)
            writer.writeheader()
            writer.writerow(row)

    save(row)
    assert job.run(manifest).returncode == 0
    assert job.results() == {"LocA": row}
    for command in (("run", manifest, "--output"), ("report",)):
        save(row | {"refresh_token": "the-only-copy"})
        before = results.read_bytes()
        done = job(*command, job.output)
        assert done.returncode == 2
        assert "does not know" in done.stderr
        assert results.read_bytes() == before


@pytest.mark.parametrize("rest", ["", "\n", "\r\n\r\n"])
def test_a_results_file_without_the_header_of_pairs_may_hold_the_only_copy(play, rest):
    job = play()
    manifest = job.manifest(listing(["LocA"]))
    job.run(manifest)
    results = job.output / "results.csv"
    headless = rest + results.read_text(encoding="utf-8").partition("\n")[2]
    results.write_text(headless, encoding="utf-8")
    done = job.run(manifest)
    assert done.returncode == 2
    assert "may hold tokens" in done.stderr
    assert results.read_text(encoding="utf-8") == headless.replace("\r\n", "\n")
    results.write_text(rest[:1], encoding="utf-8")
    assert job.run(manifest).returncode == 0
    assert "LocA" in job.results()


def test_a_ledger_of_another_api_a_newer_version_or_damaged_is_refused(play):
    job = play()
    manifest = job.manifest(listing(["LocA"]))
    job.run(manifest)
    url = job.environment["HIGHLEVEL_BASE_URL"]
    job.environment["HIGHLEVEL_BASE_URL"] = "https://example.invalid"
    for command in ("run", "plan"):
        done = job(command, manifest, "--output", job.output)
        assert (done.returncode, "belongs to" in done.stderr) == (2, True)
    job.environment["HIGHLEVEL_BASE_URL"] = url
    with sqlite3.connect(job.output / "ledger.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "newer release" in job.run(manifest).stderr
    assert "newer release" in job("plan", manifest, "--output", job.output).stderr
    for file in job.output.glob("ledger*"):
        file.unlink()
    (job.output / "ledger.sqlite3").write_bytes(b"not a database, but long enough to be read as one" * 50)
    assert "is damaged" in job.run(manifest).stderr


def test_plan_writes_nothing_and_sends_nothing(play):
    job = play()
    manifest = job.manifest(listing(["LocA", "LocA", "LocB"]))
    done = job("plan", manifest, "--output", job.output)
    assert done.returncode == 0
    assert "2 installs would be tried" in done.stdout
    assert not job.output.exists()
    assert job.sandbox.seen == []


def test_all_problems_of_a_start_are_shown_together_and_nothing_is_touched(play):
    job = play()
    job.environment |= {"RECOVERY_PACE__REQUESTS_PER_SECOND": "fast", "RECOVERY_PACE__WRKERS": "1"}
    del job.environment["HIGHLEVEL_CLIENT_SECRET"]
    done = job.run(job.folder / "missing.csv")
    assert done.returncode == 2
    for name in ("REQUESTS_PER_SECOND", "WRKERS", "HIGHLEVEL_CLIENT_SECRET", "missing.csv"):
        assert name in done.stderr
    assert "Traceback" not in done.stderr
    assert not job.output.exists()


def test_quiet_says_nothing_where_all_is_well_and_the_summary_on_stderr_otherwise(play):
    job = play({"LocB": Place("not_installed")})
    fine = job.run(job.manifest(listing(["LocA"])), "--quiet")
    assert (fine.returncode, fine.stdout, fine.stderr) == (0, "", "")
    bad = job.run(job.manifest(listing(["LocA", "LocB"])), "--quiet")
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "exit 1" in bad.stderr.splitlines()[-1]


def test_a_broken_row_fails_by_itself_and_an_unknown_app_too(play):
    job = play()
    text = f"location_id,client_id,name\nLocA,{CLIENT_ID},x\nLocB,,y,z,\nLocC,other-app,w\nbad id!,,v\n"
    done = job.run(job.manifest(text))
    assert done.returncode == 1
    causes = sorted(row["cause"] for row in job.table("failures.csv"))
    assert causes == ["invalid_row", "invalid_row", "unknown_app"]
    assert any("line 3" in row["message"] for row in job.table("failures.csv"))
    assert job.summary()["counts"] == {
        "rows": 4, "installs": 4, "duplicates": 0, "recovered": 1, "failed": 3, "pending": 0, "delivered": 0, "undelivered": 0, "purged": 0
    }  # fmt: skip


def test_a_limit_that_answers_tell_of_is_kept_without_a_429(play):
    job = play(limit=Limit(20, 0.5, "seconds", shown=True, others=8))
    done = job.run(job.manifest(listing([f"Loc{n}" for n in range(25)])))
    assert done.returncode == 0, done.stderr
    refused = [seen for seen in job.sandbox.seen if seen.status == 429]
    assert len(refused) <= 1  # Others may take the last place at the same moment.


def test_a_day_that_is_used_up_stops_the_run_and_says_when_to_go_on(play):
    job = play(limit=Limit(1000, 10, shown=True, a_day=9))
    done = job.run(job.manifest(listing([f"Loc{n}" for n in range(8)])))
    assert done.returncode == 3, done.stderr
    summary = job.summary()
    assert summary["stopped_because"] == "outage"
    assert "daily limit of requests for the app" in done.stdout.splitlines()[-1]
    assert "again after 20" in done.stdout.splitlines()[-1]
    assert summary["counts"]["recovered"] == 4
    assert (summary["counts"]["failed"], summary["counts"]["pending"]) == (0, 4)
    assert len(job.sandbox.seen) == 8  # The ninth would have made a code that nobody could exchange.


def test_the_faults_of_a_bad_night_cost_their_requests_and_no_install(play):
    faults = {"server_error": 0.05, "drop_after": 0.03, "rate_limited": 0.03}
    job = play(limit=Limit(100, 2, "seconds"), faults=faults, seed=235)
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "48"
    done = job.run(job.manifest(listing([f"Loc{n}" for n in range(24)])))
    assert done.returncode == 0, done.stderr
    seen = job.sandbox.seen
    assert {each.status for each in seen} >= {0, 200, 429, 500}
    # An answer that was lost or refused costs itself, and its reconnect where it was an exchange.
    cost = sum((each.status != 200) * (1 + (each.call == "token")) for each in seen)
    assert len(seen) == 48 + cost
    assert job.sandbox.codes_sent_twice == []


def test_an_install_that_waits_for_its_next_try_holds_no_worker(play):
    job = play({"LocA": Place("server_error", heals_after=1)})
    job.environment |= {"RECOVERY_RETRY__MIN_WAIT_SECONDS": "1.5", "RECOVERY_RETRY__MAX_WAIT_SECONDS": "2"}
    done = job.run(job.manifest(listing(["LocFirst", "LocA", "LocB"])), "--workers", "1")
    assert done.returncode == 0, done.stderr
    order = [seen.account_id for seen in job.sandbox.seen]
    assert order == ["LocFirst", "LocFirst", "LocA", "LocB", "LocB", "LocA", "LocA"]
