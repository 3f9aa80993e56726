"""How a run ends, and how one goes on: exit codes 0, 1, 3 and 4, and a second incident."""

from __future__ import annotations

import json
import shlex
import subprocess
from datetime import UTC, datetime

import pytest

from jobs.core.clock import past_moment
from jobs.core.errors import Exit
from jobs.recovery.stop import Left, end_of, remaining
from jobs.sandbox.world import Place
from tests.helpers.job import CLIENT_ID
from tests.helpers.lists import listing


def called(job, since=0):
    """The installs that were asked for since so many requests, in the order of their first one."""
    return list(dict.fromkeys(seen.account_id for seen in job.sandbox.seen[since:]))


def how_many(job):
    counts = job.summary()["counts"]
    return counts["recovered"], counts["failed"], counts["pending"]


# -- how a run ends ----------------------------------------------------------------------------------------------

OK, FAILED, EARLY, ASKED = Exit.OK, Exit.SOME_FAILED, Exit.STOPPED_EARLY, Exit.STOPPED_AS_ASKED
LIMITS = ("time_limit", "install_limit")
SENSELESS = ("outage", "refused", "reconnect_removed", "credentials_rejected")


@pytest.mark.parametrize(
    ("reasons", "left", "fine", "some_failed"),
    [
        (("",), Left.NOTHING, OK, FAILED),
        (("",), Left.NOT_ASKED_FOR, ASKED, ASKED),
        (("",), Left.SOME, EARLY, EARLY),
        (LIMITS, Left.NOTHING, OK, FAILED),
        (LIMITS, Left.NOT_ASKED_FOR, ASKED, ASKED),
        (LIMITS, Left.SOME, ASKED, ASKED),
        (SENSELESS, Left.NOTHING, OK, FAILED),
        (SENSELESS, Left.NOT_ASKED_FOR, EARLY, EARLY),
        (SENSELESS, Left.SOME, EARLY, EARLY),
    ],
)
def test_the_end_of_a_run_follows_from_why_it_stopped_and_what_it_left(reasons, left, fine, some_failed):
    codes = {"": OK} | dict.fromkeys(LIMITS, ASKED) | dict.fromkeys(SENSELESS, EARLY)
    for because in reasons:
        assert end_of(because, codes[because], left, failed=False) is fine
        assert end_of(because, codes[because], left, failed=True) is some_failed


@pytest.mark.parametrize(("because", "code"), [("signal", Exit.SIGTERM), ("disk", EARLY), ("bug", Exit.BUG)])
def test_a_signal_the_disk_and_a_bug_keep_their_code_whatever_is_left(because, code):
    assert {end_of(because, code, left, failed=failed) for left in Left for failed in (False, True)} == {code}


def test_what_is_left_is_told_from_what_was_lined_up_and_what_is_pending():
    assert remaining(5, 5, 0) is Left.NOTHING
    assert remaining(5, 5, 3) is Left.NOT_ASKED_FOR
    assert remaining(4, 5, 1) is remaining(4, 5, 0) is Left.SOME


def test_a_cause_that_leaves_others_untried_ends_with_4_and_counts_them_as_pending(play):
    job = play({"LocB": Place("not_installed"), "LocC": Place("location_inactive")})
    assert job.run(job.manifest(listing(["LocB", "LocC"]))).returncode == 1
    manifest = job.manifest(listing(["LocA", "LocB", "LocC"]))
    job.sandbox.world.installs["LocB"] = Place()
    assert job.run(manifest, "--cause", "not_installed").returncode == 4
    assert how_many(job) == (1, 1, 1)
    assert job.summary()["stopped_because"] is None
    assert job.run(manifest, "--cause", "server_error").returncode == 4  # It matches nothing, and LocA is pending.
    job.sandbox.world.installs["LocC"] = Place("location_inactive")
    assert job.run(manifest).returncode == 1
    assert job.run(manifest, "--cause", "server_error").returncode == 1  # None is pending, and LocC has failed.
    job.sandbox.world.installs["LocC"] = Place()
    assert job.run(manifest).returncode == 0
    assert job.run(manifest, "--cause", "server_error").returncode == 0


def test_a_limit_that_is_reached_with_the_last_install_stopped_nothing(play):
    job = play({"LocB": Place("not_installed")})
    manifest = job.manifest(listing(["LocA", "LocB"]))
    assert job.run(manifest, "--limit", "2").returncode == 1
    assert job.run(manifest, "--limit", "1").returncode == 1
    job.sandbox.world.installs.clear()
    assert job.run(manifest, "--limit", "1").returncode == 0


def test_a_limit_leaves_what_failed_before_for_the_next_run_and_says_so(play):
    job = play(default="not_installed")
    manifest = job.manifest(listing(["LocA", "LocB", "LocC"]))
    assert job.run(manifest).returncode == 1
    assert job.run(manifest, "--limit", "1").returncode == 4
    assert how_many(job) == (0, 3, 0)


# -- a second incident -------------------------------------------------------------------------------------------


def test_a_forced_run_with_a_limit_is_gone_on_with_by_the_command_that_it_shows(play):
    job = play()
    accounts = [f"Loc{n}" for n in range(7)]
    manifest = job.manifest(listing(accounts))
    assert job.run(manifest).returncode == 0
    first = {account: row["access_token"] for account, row in job.results().items()}
    since = len(job.sandbox.seen)
    done = job.run(manifest, "--force", "--limit", "3")
    assert done.returncode == 4
    assert sorted(called(job, since)) == accounts[:3]
    assert how_many(job) == (3, 0, 4)
    assert job.summary()["retryable"] == 4
    assert all(job.results()[account]["access_token"] == first[account] for account in accounts[3:])
    command = done.stdout.splitlines()[-2].strip()
    assert "--force" not in command
    for rest, code in ((accounts[3:6], 4), (accounts[6:], 0), ([], 0)):
        since = len(job.sandbox.seen)
        line = f"{command} --limit 3"
        again = subprocess.run(shlex.split(line), env=job.environment, capture_output=True, text=True, check=False)
        assert again.returncode == code, again.stderr
        assert sorted(called(job, since)) == rest
    assert how_many(job) == (7, 0, 0)
    assert not {row["access_token"] for row in job.results().values()} & set(first.values())


def test_what_was_recovered_before_a_moment_is_recovered_again_and_what_was_after_it_is_left_alone(play):
    job = play()
    job.run(job.manifest(listing(["LocA", "LocB"])))
    moment = job.summary()["finished_at"]
    manifest = job.manifest(listing(["LocA", "LocB", "LocC"]))
    assert job.run(manifest).returncode == 0
    since = len(job.sandbox.seen)
    planned = json.loads(job("plan", manifest, "--output", job.output, "--recovered-before", moment, "--json").stdout)
    assert (planned["to_do"], planned["recovered_again"], planned["recovered"]) == (2, 2, 1)
    assert planned["routes"]["reconnect"] == 2
    said = job("plan", manifest, "--output", job.output, "--recovered-before", moment).stdout
    assert "2 were recovered before the given time and would be recovered again" in said
    done = job.run(manifest, "--recovered-before", moment, "--log-format", "json")
    assert done.returncode == 0, done.stderr
    started = json.loads(done.stderr.splitlines()[0])
    assert (started["to_try"], started["left_alone"], started["recovered_again"]) == (2, 1, 2)
    assert sorted(called(job, since)) == ["LocA", "LocB"]
    since = len(job.sandbox.seen)
    nothing = job.run(manifest, "--recovered-before", moment)
    assert (nothing.returncode, called(job, since)) == (0, [])
    assert nothing.stdout.startswith("nothing to do: ")


def test_a_try_again_that_fails_keeps_the_pair_is_said_and_comes_after_what_nobody_tried(play):
    job = play()
    manifest = job.manifest(listing(["LocA", "LocB", "LocC"]))
    job.run(manifest)
    first = job.results()
    moment = job.summary()["finished_at"]
    job.sandbox.world.installs["LocA"] = Place("not_installed")
    assert job.run(manifest, "--recovered-before", moment, "--limit", "1").returncode == 4
    assert how_many(job) == (1, 0, 2)
    assert job.results()["LocA"]["access_token"] == first["LocA"]["access_token"]
    since = len(job.sandbox.seen)
    done = job.run(manifest, "--recovered-before", moment, "--workers", "1")
    assert (done.returncode, called(job, since)) == (1, ["LocB", "LocC", "LocA"])
    assert "1 of those that are back were tried again without success; they keep the pair they had" in done.stdout
    assert {row["status"] for row in job.results().values()} == {"recovered"}
    assert job.run(manifest).returncode == 0  # By itself it is left alone.


def test_a_report_of_a_killed_run_counts_what_it_did_not_reach_again_as_pending(play):
    job = play()
    manifest = job.manifest(listing([f"Loc{n}" for n in range(300)]))
    assert job.run(manifest).returncode == 0
    process = job.start("run", manifest, "--output", job.output, "--force", "--workers", "1", "--rate", "50")
    since = len(job.sandbox.seen)
    while len(job.sandbox.seen) < since + 9:
        assert process.poll() is None
    process.kill()
    process.communicate()
    assert job("report", job.output).returncode == 0
    recovered, failed, pending = how_many(job)
    assert (recovered + pending, failed) == (300, 0)
    assert recovered >= 1
    assert pending > 200


def test_an_app_without_a_secret_keeps_its_pairs_in_a_second_incident(play):
    other = "66c8a1b2c3d4e5f6a7b8c9d0-m0other00"
    job = play(clients={CLIENT_ID: "one", other: "two"})
    job.environment |= {"HIGHLEVEL_CLIENT_ID": CLIENT_ID, "HIGHLEVEL_CLIENT_SECRET": "one"}
    manifest = job.manifest(f"location_id,client_id\nLocA,{CLIENT_ID}\n")
    assert job.run(manifest).returncode == 0
    job.environment |= {"HIGHLEVEL_CLIENT_ID": other, "HIGHLEVEL_CLIENT_SECRET": "two"}
    done = job.run(manifest, "--force")
    assert done.returncode == 1
    assert "keep the pair they had" in done.stdout
    assert job.results()["LocA"]["access_token"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2026-11-25T02:00", "has no offset"),
        ("2026-11-25", "has no offset"),
        ("yesterday", "is not a time"),
        ("2026-13-45T02:00Z", "is not a time"),
        ("0001-01-01T00:00+14:00", "is not a time"),
        ("9" * 400, "is not a time"),
        ("2999-01-01T00:00Z", "is in the future"),
    ],
)
def test_a_moment_that_is_not_one_is_refused_in_one_line(play, text, says):
    job = play()
    for command in ("run", "plan"):
        done = job(command, job.manifest(listing(["LocA"])), "--output", job.output, "--recovered-before", text)
        error, last = done.stderr.splitlines()
        assert (done.returncode, says in error, len(error) < 300) == (2, True, True), error
        assert last == "exit 2: could not start; nothing was sent"
    assert job.sandbox.seen == []


def test_a_moment_is_read_with_its_offset_and_force_is_another_moment(play):
    now = datetime(2026, 11, 25, 3, tzinfo=UTC)
    assert past_moment("2026-11-25T02:00Z", now) == "2026-11-25T02:00:00.000Z"
    assert past_moment("2026-11-25T03:30:01.5+01:00", now) == "2026-11-25T02:30:01.500Z"
    job = play()
    manifest = job.manifest(listing(["LocA"]))
    assert "give only one of them" in job.run(manifest, "--force", "--recovered-before", "2026-11-25T02:00Z").stderr


# -- what is new -------------------------------------------------------------------------------------------------


def test_new_failures_are_those_of_an_unknown_app_and_of_broken_lines_too_and_only_once(play):
    job = play({"LocB": Place("not_installed")})
    text = f"location_id,client_id\nLocA,{CLIENT_ID}\nLocB,{CLIENT_ID}\nLocC,another-app\nbad id!,{CLIENT_ID}\n"
    manifest = job.manifest(text)
    job.run(manifest)
    assert job.summary()["this_run"]["new_failures"] == 3
    job.run(manifest)
    assert job.summary()["this_run"]["new_failures"] == 0
    job.run(job.manifest(text + "LocD,a-third-app\n"))
    assert job.summary()["this_run"]["new_failures"] == 1
