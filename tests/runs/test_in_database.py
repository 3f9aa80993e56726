"""Whole runs whose ledger is in PostgreSQL."""

from __future__ import annotations

import pytest

from jobs.sandbox.world import Place
from tests.helpers.lists import listing


@pytest.fixture
def job(play, postgres, request):
    job = play({"Loc0002": Place("not_installed")})
    job.environment |= {"RECOVERY_LEDGER__URL": postgres.url, "RECOVERY_LEDGER__NAME": request.node.name[:100]}
    return job


def test_a_run_leaves_no_ledger_in_the_folder_and_the_next_one_knows_what_it_did(job):
    manifest = job.manifest(listing(6, width=4))
    done = job.run(manifest)
    assert done.returncode == 1, done.stdout + done.stderr
    assert job.summary()["counts"]["recovered"] == 5
    assert not list(job.output.glob("ledger*"))
    for file in job.output.iterdir():
        file.unlink()
    again = job.run(manifest)
    assert again.returncode == 1, again.stdout + again.stderr
    assert job.summary()["this_run"]["already_recovered"] == 5
    assert len(job.results()) == 6


def test_a_machine_that_never_saw_the_run_makes_its_reports(job, tmp_path):
    job.run(job.manifest(listing(3)))
    elsewhere = tmp_path / "elsewhere" / "out"
    done = job("report", elsewhere)
    assert done.returncode == 0, done.stderr
    made = {file.name: file.read_bytes() for file in elsewhere.iterdir()}
    assert made == {file.name: file.read_bytes() for file in job.output.iterdir() if file.name != ".lock"}
    assert elsewhere.stat().st_mode & 0o777 == 0o700
