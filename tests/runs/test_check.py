"""`recover check`: which access tokens of a list work. Nothing is spent, and what does not work becomes a list."""

from __future__ import annotations

import csv
import io
import json
import signal
import socket
import threading
import time

import pytest

from jobs.sandbox.behaviours import PROOF
from jobs.sandbox.tokens import mint
from jobs.sandbox.world import Limit, Place
from jobs.system.locks import app_lock, hold
from tests.helpers.bad_server import http
from tests.helpers.made import CLIENT_ID
from tests.helpers.waiting import wait_until

HEADER = ["location_id", "company_id", "access_token", "refresh_token", "name"]
AGENCY_SCOPES = "companies.readonly contacts.readonly"


def table(rows, header=HEADER):
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()


def access(account, level="Location", lifetime=3_600, client_id=CLIENT_ID, **more):
    return mint("access", level, account, client_id, "CoA", lifetime, **more)


def line(account, token=None, name="a name"):
    return [account, "", access(account) if token is None else token, f"refresh-of-{account}", name]


def agency(company, token):
    return ["", company, token, "", "an agency"]


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def asked(job):
    return sorted(seen.account_id for seen in job.sandbox.seen if seen.call == PROOF)


def check(job, *lines, arguments=(), header=HEADER):
    """How a check of these lines ended, and what it found for each account, except those that work."""
    output = job.folder / "affected.csv"
    done = job("check", job.manifest(table(lines, header), "dump.csv"), "--output", output, *arguments)
    assert "Traceback" not in done.stderr, done.stderr
    found = {row["location_id"] or row["company_id"]: row["check"] for row in rows(output)} if output.exists() else {}
    return done, found


def counts(done):
    """The closing block's counts."""
    words = [text.split() for text in done.stdout.splitlines() if text.startswith("  ")]
    return {result: int(count.replace(",", "")) for result, count, *_ in words if count.replace(",", "").isdigit()}


def all_kinds():
    """A world with a pair of every kind, and the lines of its list."""
    world = {
        "LocDead": Place("pair_dead"),
        "LocPoor": Place("pair_without_scope"),
        "LocOther": Place("pair_of_another"),
        "LocDown": Place("proof_error"),
        "LocHtml": Place("proof_html"),
    }
    lines = [
        *(line(account) for account in ("LocA", *world)),
        agency("CoA", access("CoA", "Company")),
        line("LocOld", access("LocOld", lifetime=-5)),
        line("LocCut", access("LocCut")[:-20]),
        line("LocCut2", access("LocCut2")[:90]),
        line("LocNone", ""),
        line("LocNull", "NULL"),
        line("LocTheirs", access("LocB")),
        line("LocApp", access("LocApp", client_id="another-app")),
        line("LocOdd", "tok\u00e9n with blanks"),
        line("LocOpaque", "an-opaque-token"),
    ]
    return world, lines


FOUND = {
    "LocDead": "refused", "LocOther": "refused", "LocDown": "unknown", "LocHtml": "unknown", "LocOld": "expired",
    "LocCut": "corrupted", "LocCut2": "corrupted", "LocNone": "corrupted", "LocNull": "corrupted",
    "LocTheirs": "corrupted", "LocApp": "corrupted", "LocOdd": "corrupted", "LocOpaque": "refused",
}  # fmt: skip


def test_every_install_gets_one_of_six_results_and_the_closing_block_counts_each(play):
    world, lines = all_kinds()
    done, found = check(play(world), *lines)
    assert (found, done.returncode) == (FOUND, 1)
    assert counts(done) == {"works": 2, "alive": 1, "expired": 1, "corrupted": 7, "refused": 3, "unknown": 2}
    assert "this proves only the access token" in done.stdout
    assert "nothing was spent" in done.stdout
    assert done.stdout.splitlines()[-1] == "exit 1: finished; some access tokens are not known to work"


def test_only_what_can_be_asked_about_is_sent_and_nothing_is_ever_spent(play):
    world, lines = all_kinds()
    job = play(world)
    check(job, *lines)
    assert set(asked(job)) == {"LocA", "CoA", "LocOpaque", *world}
    assert {seen.call for seen in job.sandbox.seen} == {PROOF}
    assert (job.sandbox.codes.sent, job.sandbox.refreshes.sent) == ([], [])


def test_it_ends_with_0_if_all_tokens_work_or_are_alive(play):
    done, found = check(play({"LocB": Place("pair_without_scope")}), line("LocA"), line("LocB"))
    assert (found, done.returncode) == ({}, 0)
    assert done.stdout.splitlines()[-1].startswith("exit 0: every access token")


def test_the_results_of_a_run_are_checked_as_they_are(play):
    job = play({"LocB": Place("pair_dead"), "CoA": Place(level="Company")})
    job.run(job.manifest("location_id,company_id,plan\nLocA,,gold\nLocB,,free\n,CoA,x\n"))
    done = job("check", job.output / "results.csv", "--output", job.folder / "affected.csv")
    assert done.returncode == 1, done.stderr
    assert [(row["location_id"], row["check"], row["plan"]) for row in rows(job.folder / "affected.csv")] == [
        ("LocB", "refused", "free")
    ]


def test_a_run_reads_the_list_that_it_leaves(play):
    world, lines = all_kinds()
    job = play(world)
    check(job, *lines)
    done = job.run(job.folder / "affected.csv")
    assert done.returncode == 0, done.stderr
    assert {account for account, row in job.results().items() if row["status"] == "recovered"} == {*FOUND}
    assert job.results()["LocDead"]["check"] == "refused"
    assert job.results()["LocDead"]["name"] == "a name"


def test_the_list_is_private_and_holds_tokens_only_on_request(play):
    job = play({"LocA": Place("pair_dead")})
    mine = line("LocA")
    for arguments, holds in (((), False), (("--with-tokens",), True)):
        check(job, mine, arguments=arguments)
        text = (job.folder / "affected.csv").read_text()
        assert ((mine[2] in text), (mine[3] in text)) == (holds, holds)
        assert (job.folder / "affected.csv").stat().st_mode & 0o777 == 0o600


def test_a_link_in_place_of_the_list_is_replaced_and_input_itself_is_refused(play):
    job = play({"LocA": Place("pair_dead")})
    kept = job.folder / "kept.csv"
    kept.write_text("kept")
    (job.folder / "affected.csv").symlink_to(kept)
    check(job, line("LocA"))
    assert (kept.read_text(), (job.folder / "affected.csv").is_symlink()) == ("kept", False)
    dump = job.folder / "dump.csv"
    (job.folder / "other").symlink_to(job.folder)
    before, sent = dump.read_bytes(), len(job.sandbox.seen)
    for name in (dump, job.folder / "other" / "dump.csv"):
        done = job("check", dump, "--output", name)
        assert (done.returncode, "is INPUT itself" in done.stderr) == (2, True)
    assert (dump.read_bytes(), len(job.sandbox.seen)) == (before, sent)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--output", "no/such/folder/x.csv"), "cannot be written"),
        (("--output", "."), "is a folder"),
        (("--with-tokens",), "--output"),
        (("--rate", "0"), "rate"),
        (("--column", "location_id=nowhere"), "nowhere"),
    ],
)
def test_a_check_that_cannot_start_says_why_in_one_line_and_sends_nothing(play, arguments, words):
    job = play()
    done = job("check", job.manifest(table([line("LocA")])), *arguments)
    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (2, True, False)
    assert job.sandbox.seen == []


def test_a_list_with_only_a_header_leaves_nothing_to_do(play):
    done, found = check(play())
    assert (done.returncode, found) == (0, {})
    assert "nothing to do" in done.stdout


def test_an_install_on_two_lines_is_one_call(play):
    job = play()
    done, _ = check(job, line("LocA"), line("LocB"), line("LocA"), line("LocA"))
    assert (asked(job), counts(done)["works"]) == (["LocA", "LocB"], 2)


def test_a_line_that_cannot_be_used_is_not_lost(play):
    job = play()
    done, found = check(job, line("LocA"), line("bad id!"))
    assert (done.returncode, found) == (1, {"bad id!": "unknown"})
    assert job.run(job.folder / "affected.csv").returncode == 1
    assert next(iter(job.failures().values()))["cause"] == "invalid_row"


def test_the_scopes_in_the_token_choose_an_agencys_call_before_those_in_the_column(play):
    job = play()
    of_claims = access("CoA", "Company", scope=AGENCY_SCOPES)
    done, _ = check(job, agency("CoA", of_claims))
    assert counts(done)["works"] == 1  # The first call would have found it alive.
    done, _ = check(job, agency("CoA", access("CoA", "Company", scope="contacts.readonly")))
    assert counts(done)["alive"] == 1
    header, scoped = [*HEADER, "scope"], [*agency("CoA", "an-opaque-token"), AGENCY_SCOPES]
    check(job, scoped, header=header)
    check(job, agency("CoA", "an-opaque-token"))
    by_scope, by_nothing = "/companies/CoA", "/oauth/installedLocations"
    assert [seen.path for seen in job.sandbox.seen] == [by_scope, by_nothing, by_scope, by_nothing]


def test_a_column_with_another_header_can_be_named(play):
    job = play()
    header = ["ghl_id", "company_id", "pair", "refresh_token", "name"]
    arguments = ("--column", "location_id=ghl_id", "--column", "access_token=pair")
    done, _ = check(job, line("LocA"), header=header, arguments=arguments)
    assert (done.returncode, asked(job)) == (0, ["LocA"])


def test_a_token_that_expired_by_the_servers_clock_is_not_sent_whatever_this_machine_says(play):
    job = play(clock_skew_seconds=7_200)
    lines = [line("LocA", access("LocA", lifetime=20_000)), *(line(f"Loc{n}") for n in range(60))]
    _, found = check(job, *lines)
    assert list(found.values()).count("expired") > 30


def test_429_holds_everybody_and_every_install_is_asked_to_the_end(play):
    job = play(limit=Limit(5, 1.0, "seconds"))
    done, found = check(job, *(line(f"Loc{n}") for n in range(12)))
    assert (done.returncode, found) == (0, {}), done.stderr
    refused_at = [seen.at for seen in job.sandbox.seen if seen.status == 429]
    assert refused_at
    assert [seen.status for seen in job.sandbox.seen].count(200) == 12


def test_what_fails_for_a_moment_is_asked_again(play):
    places = {f"Loc{n}": Place("proof_error", heals_after=2) for n in range(6)} | {
        "LocZ": Place("proof_drop", heals_after=1)
    }
    job = play(places)
    done, found = check(job, *map(line, places))
    assert (done.returncode, found) == (0, {}), done.stderr
    assert asked(job).count("Loc0") == 3


def test_an_install_that_keeps_answering_429_is_unknown_and_holds_nobody_back(play):
    job = play({"LocBusy": Place("proof_limited")})
    job.environment |= {"RECOVERY_PACE__PATIENCE_SECONDS": "2"}
    done, found = check(job, line("LocBusy"), *(line(f"Loc{n}") for n in range(20)))
    assert (done.returncode, found) == (1, {"LocBusy": "unknown"}), done.stderr


def test_it_ends_when_429_is_the_only_answer_for_longer_than_the_patience(play):
    job = play(default="proof_limited")
    job.environment |= {"RECOVERY_PACE__PATIENCE_SECONDS": "1"}
    done, found = check(job, *(line(f"Loc{n}") for n in range(40)))
    assert done.returncode == 3, done.stderr
    assert found
    assert set(found.values()) == {"unknown"}
    assert len(found) < 40
    assert "(outage: HighLevel kept answering 429" in done.stdout.splitlines()[-1]


def test_an_outage_ends_it_with_what_is_known_by_then(play):
    bad = {f"Loc{n:02}": Place("proof_error") for n in range(40)}
    job = play(bad)
    job.environment |= {"RECOVERY_STOP__TRANSIENT_INSTALLS": "4", "RECOVERY_PACE__WORKERS": "2"}
    done, found = check(job, line("LocA"), line("LocOld", access("LocOld", lifetime=-5)), *map(line, bad))
    assert done.returncode == 3
    assert found["LocOld"] == "expired"
    assert 4 <= list(found.values()).count("unknown") < 20
    assert "were not asked" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("exit 3: stopped early")
    assert "(outage: " in done.stdout.splitlines()[-1]


def test_a_server_that_is_not_there_ends_it_after_the_first_install(play):
    job = play()
    job.environment |= {"HIGHLEVEL_BASE_URL": "http://127.0.0.1:9"}
    done, found = check(job, *(line(f"Loc{n}") for n in range(20)))
    assert (done.returncode, len(found)) == (3, 1)  # Its tries decide.
    assert "127.0.0.1:9 refused the connection" in done.stdout.splitlines()[-1]


def test_a_firewall_in_front_ends_it_and_nobody_is_called_refused(play):
    job = play(default="proof_firewall")
    done, found = check(job, *(line(f"Loc{n}") for n in range(60)))
    assert done.returncode == 3
    assert set(found.values()) == {"unknown"}
    assert len(asked(job)) == 5
    assert "(refused: " in done.stdout.splitlines()[-1]


def test_refused_pairs_in_a_row_do_not_count_as_an_outage(play):
    job = play({f"Loc{n}": Place("pair_dead") for n in range(30)})
    done, found = check(job, *(line(f"Loc{n}") for n in range(30)))
    assert (done.returncode, len(found), set(found.values())) == (1, 30, {"refused"})


def test_a_signal_ends_it_gracefully_and_the_list_holds_what_is_known_by_then(play):
    job = play({f"Loc{n:03}": Place("pair_dead") for n in range(300)}, latency_seconds=0.05)
    dump, output = job.manifest(table(line(f"Loc{n:03}") for n in range(300))), job.folder / "affected.csv"
    process = job.start("check", dump, "--output", output, "--rate", 40)
    wait_until(lambda: len(asked(job)) > 10)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert 10 <= len(rows(output)) == len(asked(job)) < 300
    assert "were not asked" in out
    assert out.splitlines()[-1] == "exit 130: stopped by SIGINT (Ctrl-C); the rest was not asked"


def test_a_second_signal_ends_it_at_once_and_leaves_no_half_written_list(play):
    job = play(latency_seconds=20)
    dump, output = job.manifest(table(line(f"Loc{n}") for n in range(30))), job.folder / "affected.csv"
    process = job.start("check", dump, "--output", output, "--with-tokens", interrupted=True)
    wait_until(lambda: [*job.folder.glob(".new-*")])
    time.sleep(0.5)
    for number in (signal.SIGTERM, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.2)
    assert process.wait(timeout=15) == 143
    assert ([*job.folder.glob(".new-*")], output.exists()) == ([], False)
    process.communicate()


def test_it_takes_the_apps_lock(play):
    job = play()
    lock = app_lock(job.environment, job.sandbox.url, CLIENT_ID)
    with hold(lock, "the app", "the run on a.csv"):
        done, found = check(job, line("LocA"))
    assert (done.returncode, found, job.sandbox.seen) == (11, {}, [])
    assert "the run on a.csv" in done.stderr


def test_quiet_shows_the_closing_block_only_if_something_is_wrong(play):
    job = play({"LocB": Place("pair_dead")})
    done, _ = check(job, line("LocA"), arguments=("--quiet",))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done, _ = check(job, line("LocB"), arguments=("--quiet",))
    assert (done.returncode, done.stdout) == (1, "")
    assert "refused" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("exit 1: ")


def test_a_log_of_objects_tells_each_install_and_ends_with_the_counts(play):
    world, lines = all_kinds()
    done, _ = check(play(world), *lines, arguments=("--log-format", "json"))
    told = [json.loads(text) for text in done.stderr.splitlines()]
    assert (told[0]["event"], told[-1]["event"], told[-1]["exit_code"]) == ("run_started", "run_finished", 1)
    found = {one["id"]: one["check"] for one in told if one["event"] == "affected"}
    assert found == FOUND
    assert {one["id"] for one in told if one["event"] == "checked"} == {"LocA", "CoA", "LocPoor"}
    assert told[-1]["checks"]["refused"] == 3


def test_no_token_reaches_a_log_a_stream_or_the_list_even_if_the_server_echoes_it(play):
    job = play(default="echo_secrets")
    lines = [line(f"Loc{n}", f"canary-token-{n}-xyz") for n in range(4)] + [
        line("LocJwt"),
        line("LocX", "canary\u00fcumlaut"),
    ]
    for arguments in ((), ("--log-format", "json"), ("--quiet",)):
        done, _ = check(job, *lines, arguments=arguments)
        said = done.stdout + done.stderr + (job.folder / "affected.csv").read_text()
        assert not [cell for row in lines for cell in row[2:4] if cell in said]
        assert "canary" not in said


def test_only_the_list_is_written(play):
    job = play()
    before = {*job.folder.rglob("*")}
    check(job, line("LocA"))
    made = {path for path in {*job.folder.rglob("*")} - before if path.is_file()}
    assert {path.name for path in made if "state" not in path.parts} == {"dump.csv", "affected.csv"}


def test_it_keeps_the_pace_over_all_workers(play):
    job = play(latency_seconds=0.2)
    check(job, *(line(f"Loc{n}") for n in range(40)), arguments=("--rate", "20"))
    at = [seen.at for seen in job.sandbox.seen]
    assert len(at) == 40
    assert max(sum(begin <= one < begin + 1 for one in at) for begin in at) <= 24
    assert at[-1] - at[0] < 4  # One call after the other would take eight seconds.


def test_a_wrong_client_secret_does_not_matter(play):
    job = play()
    job.environment["HIGHLEVEL_CLIENT_SECRET"] = "not the right one"
    assert check(job, line("LocA"))[0].returncode == 0


def test_a_network_that_goes_away_before_the_last_question_is_an_outage_and_leaves_it_unasked(play):
    job = play()
    job.environment |= {"RECOVERY_RETRY__ATTEMPTS": "1", "RECOVERY_STOP__NETWORK_PATIENCE_SECONDS": "0.3"}
    refusal = http(b'{"message": "Invalid JWT"}', "401 Unauthorized", "Connection: close\r\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        job.environment["HIGHLEVEL_BASE_URL"] = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def answer_one_and_go():
            connection, _ = listener.accept()
            listener.close()
            with connection:
                connection.recv(65_536)
                connection.sendall(refusal)

        server = threading.Thread(target=answer_one_and_go)
        server.start()
        done, found = check(job, line("LocA"), line("LocB"))
        server.join()
    assert (found, done.returncode) == ({"LocA": "refused"}, 3)
    assert done.stderr.count("HighLevel cannot be reached") == 1
