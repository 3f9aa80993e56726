"""Killed at every moment that has a name, and at random ones: nothing recorded is lost, nothing is done twice.

Every kill is a real SIGKILL of a process of the job (see `stage`); what it left is read with SQLite itself.
"""

from __future__ import annotations

import csv
import json
import random
import re

import pytest

from jobs.sandbox.world import Place
from tests.helpers.job import pairs
from tests.helpers.lists import listing

WORKERS = 3  # as many as the stage starts
INSTALLS = 15  # More than the outcomes whose commits are counted: those that come together are one commit.
BEHAVE = {"Loc2": Place("not_installed"), "Loc5": Place("server_error", heals_after=1), "Loc6": Place("wrong_account")}
NEVER_KEPT = "Loc6"
MOMENTS = {
    "a folder is made": 2,
    "a statement is run": 100,
    "a reconnect leaves": 9,
    "a reconnect was answered, its code leaves": 8,
    "a commit begins": 12,
    "a commit is done": 12,
    "the reserve is given back": 3,
    "a report is begun": 8,  # A workbook has temporary files.
    "a report is moved into place": 5,
}
"""Each moment, and how often it is met in a run at least."""


def told(output):
    """All that the reports say, except times, tokens, ids of traces, and the tries of what failed and was tried again."""
    text = (output / "failures.html").read_text(encoding="utf-8")
    # What has changed since the report before is told where there was one.
    text = re.sub(r'<section class="changes".*?</section>\s*', "", text, flags=re.DOTALL)
    for name in ("results.csv", "failures.csv"):
        with (output / name).open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                text += repr(row | ({"attempts": "SOME"} if row["cause"] else {}))
    summary = json.loads((output / "summary.json").read_text())
    text += json.dumps({name: summary[name] for name in ("counts", "retryable", "failures_by_cause")})
    text = re.sub(r"\d{4}-\d\d-\d\d(?:T[\d:.]+Z| \d\d:\d\d)", "TIME", text)
    return re.sub(r"eyJ[\w.\-]+|\b[0-9a-f]{16}\b", "MADE", text)


def issued_again(issued):
    """How many pairs came for accounts that had one already. The one that is never kept is asked for in each run."""
    accounts = [account for account, _ in issued if account != NEVER_KEPT]
    return len(accounts) - len(set(accounts))


@pytest.fixture
def behaviours():
    return dict(BEHAVE)


@pytest.mark.parametrize(("moment", "least"), MOMENTS.items(), ids=MOMENTS)
def test_killed_at_a_named_moment_a_rerun_ends_as_if_nothing_had_happened(stage, moment, least):
    job, folder = stage.job, stage.job.folder
    manifest = job.manifest(listing(INSTALLS))
    assert stage.run(manifest, folder / "whole")["moments"][moment] >= least
    expected = told(folder / "whole")
    for number in sorted({1, (least + 1) // 2, least}):
        before = len(job.sandbox.codes.issued)
        output = folder / f"killed-{number}" / "out"
        job.sandbox.tries.clear()
        assert stage.run(manifest, output, kill_at=(moment, number))["code"] == -9
        kept = pairs(output)
        wanted = {account for account, _ in job.sandbox.codes.issued[before:]} - {NEVER_KEPT}
        assert len(wanted - kept.keys()) <= WORKERS
        job.sandbox.tries.clear()
        assert stage.run(manifest, output)["code"] == 1, (folder / "said").read_text()[-3000:]
        issued = job.sandbox.codes.issued[before:]
        assert kept.items() <= pairs(output).items()
        assert pairs(output).items() <= dict(issued).items()
        assert issued_again(issued) <= WORKERS
        assert told(output) == expected
        assert not [file.name for file in output.iterdir() if file.name.startswith((".new-", ".reserve"))]
    assert job.sandbox.codes_sent_twice == []


def test_killed_again_and_again_at_random_moments_nothing_recorded_is_ever_lost(stage):
    job = stage.job
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "150"
    manifest, count, kills = job.manifest(listing(60)), 60, 0
    kept, seed = {}, random.randrange(1_000_000)
    chance = random.Random(seed)
    while len(kept) < 50:
        calls = len(job.sandbox.seen)
        moment = "a reconnect was answered, its code leaves", chance.randrange(1, 6)
        ended = stage.run(manifest, job.output, kill_at=moment, kill_after=chance.uniform(0.001, 0.05))
        assert len(job.sandbox.seen) > calls
        kills += ended["code"] == -9
        now = pairs(job.output)
        assert kept.items() <= now.items(), f"seed {seed}"
        assert now.items() <= dict(job.sandbox.codes.issued).items(), f"seed {seed}"
        kept = now
    assert kills >= 5
    assert stage.run(manifest, job.output)["code"] == 1
    assert kept.items() <= pairs(job.output).items()
    assert len(job.results()) == count
    assert issued_again(job.sandbox.codes.issued) <= WORKERS * kills
    assert job.sandbox.codes_sent_twice == []


@pytest.mark.parametrize("moment", ["a commit begins", "a commit is done"])
def test_a_forced_run_that_is_killed_leaves_each_install_a_pair_and_the_newest_except_those_in_flight(stage, moment):
    job = stage.job
    manifest = job.manifest(listing(INSTALLS))
    stage.run(manifest, job.output)
    first = pairs(job.output)
    assert stage.run(manifest, job.output, "--force", kill_at=(moment, 9))["code"] == -9
    now, newest = pairs(job.output), dict(job.sandbox.codes.issued)
    assert now.keys() == first.keys()
    assert first != now
    assert sum(now[account] != newest[account] for account in now) <= WORKERS
