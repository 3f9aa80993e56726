"""What a run that seals its pairs tells people and programs."""

from __future__ import annotations

import json

import pyrage
import pytest

from jobs.config.recipients import fingerprint_of
from tests.helpers.lists import listing


@pytest.fixture(scope="module")
def recipients():
    return [str(pyrage.x25519.Identity.generate().to_public()) for _ in range(2)]


@pytest.fixture
def job(play, recipients):
    job = play()
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = json.dumps(recipients)
    return job


def test_the_closing_block_says_that_tokens_are_sealed_and_what_opens_them(job):
    manifest = job.manifest(listing(2))
    done = job.run(manifest)
    lines = done.stdout.splitlines()
    told = lines.index(next(line for line in lines if line.startswith("  results.csv")))
    assert lines[told].endswith("the tokens, sealed; this opens them, wherever the identity is:")
    assert lines[told + 1].endswith(f" open {job.output} --identity FILE")
    assert "to load into the app" not in done.stdout
    del job.environment["RECOVERY_SEAL__RECIPIENTS"]
    done = job("run", manifest, "--output", job.folder / "open")
    assert "  results.csv    the tokens, for the developer to load into the app" in done.stdout.splitlines()
    assert "--identity" not in done.stdout


def test_the_first_event_of_the_log_says_for_whom_pairs_are_sealed(job, recipients):
    done = job.run(job.manifest(listing(1)), "--log-format", "json")
    assert json.loads(done.stderr.splitlines()[0])["sealed_for"] == [fingerprint_of(one) for one in recipients]


def test_a_plan_says_for_whom_pairs_are_sealed_and_that_old_ones_are_not(job, recipients):
    manifest = job.manifest("location_id,access_token\nLoc0,old\n")
    first, second = map(fingerprint_of, recipients)
    told = job("plan", manifest, "--output", job.output).stdout
    assert f"new pairs are sealed for {first} and {second}" in told.splitlines()
    assert f"warning: only new pairs are sealed: the old ones in {manifest} stay as they are" in told.splitlines()
    made = json.loads(job("plan", manifest, "--output", job.output, "--json").stdout)
    assert made["sealed_for"] == [first, second]
