"""What a run that seals its pairs tells people and programs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyrage
import pytest

from jobs.config.recipients import key_fingerprint
from tests.helpers.lists import listing

PAGE = (Path(__file__).parents[2] / "data" / "README.md").read_text(encoding="utf-8")


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
    assert json.loads(done.stderr.splitlines()[0])["sealed_for"] == [key_fingerprint(one) for one in recipients]


def test_a_plan_says_for_whom_pairs_are_sealed_and_that_old_ones_are_not(job, recipients):
    manifest = job.manifest("location_id,access_token\nLoc0,old\n")
    first, second = map(key_fingerprint, recipients)
    told = job("plan", manifest, "--output", job.output).stdout
    assert f"new pairs are sealed for {first} and {second}" in told.splitlines()
    assert f"warning: only new pairs are sealed: the old ones in {manifest} stay as they are" in told.splitlines()
    made = json.loads(job("plan", manifest, "--output", job.output, "--json").stdout)
    assert made["sealed_for"] == [first, second]


def run_from_page(begins, folder):
    """Run the line of the page that begins with these words."""
    (line,) = re.findall(rf"^{re.escape(begins)}.*$", PAGE, re.MULTILINE)
    line = line.replace(".venv/bin/python", sys.executable)
    subprocess.run(["bash", "-c", line], cwd=folder, stdin=subprocess.DEVNULL, check=True, timeout=30)


def made_by_python(folder):
    run_from_page("umask 077; ", folder)
    file = folder / "daily.key"
    assert file.stat().st_mode & 0o777 == 0o600
    return file, re.match(r"# public key: (age1\w+)\n", file.read_text(encoding="ascii"))[1]


def made_by_age(folder):
    run_from_page("age-keygen -o offline.key", folder)
    file = folder / "offline.key"
    return file, re.search(r"public key: (age1\w+)\n", file.read_text(encoding="ascii"))[1]


@pytest.mark.parametrize(
    "make",
    [
        made_by_python,
        pytest.param(
            made_by_age, marks=pytest.mark.skipif(not shutil.which("age-keygen"), reason="age-keygen is not here")
        ),
    ],
)
def test_an_identity_made_as_the_page_says_opens_what_a_run_seals(play, tmp_path, make):
    file, public = make(tmp_path)
    job = play()
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = public
    job.run(job.manifest(listing(2)))
    done = job("open", job.output, "--identity", file)
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        f"2 pairs are open in {job.output / 'opened.csv'}, 0 refused",
    )


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not here")
def test_the_fingerprint_of_an_age_key_is_the_one_that_the_page_tells_how_to_make(recipients):
    (line,) = re.findall(r"`(printf %s age1\.\.\.[^`]*)`", PAGE)
    made = subprocess.check_output(["bash", "-c", line.replace("age1...", recipients[0])], text=True, timeout=30)
    assert f"SHA256:{made}".startswith(key_fingerprint(recipients[0]))
