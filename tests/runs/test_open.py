"""`recover open`: whoever has an identity gets the table of the pairs, and nobody else gets anything."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import stat
import subprocess
import sys

import pyrage
import pytest
from sqlalchemy import select, update

from jobs.ledger.refusals import usual_wait
from jobs.ledger.sealed import begin_sealing
from jobs.ledger.tables import installs
from jobs.sandbox.world import Place
from jobs.start import place_of
from tests.helpers.identities import AGE, ENCRYPTED, PASSPHRASE, RECIPIENT
from tests.helpers.job import CLIENT_ID, PROJECT
from tests.helpers.lists import listing
from tests.helpers.screen import terminal


def sealed_job(play):
    job = play({"Loc2": Place("not_installed")})
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = RECIPIENT
    return job


@pytest.fixture
def job(play):
    """A job with two sealed pairs, and an install without one."""
    made = sealed_job(play)
    made.run(made.manifest(listing(3)))
    return made


@pytest.fixture(params=["folder", "database"])
def anywhere(play, request):
    """The same, in each engine."""
    made = sealed_job(play)
    if request.param == "database":
        url = request.getfixturevalue("postgres").url
        made.environment |= {"RECOVERY_LEDGER__URL": url, "RECOVERY_LEDGER__NAME": request.node.name}
    made.run(made.manifest(listing(3)))
    return made


@pytest.fixture
def key(tmp_path):
    return private_file(tmp_path / "key.txt", f"# public key: {RECIPIENT}\n{AGE}\n")


def private_file(path, text):
    path.touch(0o600)
    path.write_text(text)
    return path


def rows(text):
    return {row["location_id"]: row for row in csv.DictReader(io.StringIO(text))}


def opened(job, key, *more):
    """How it ended, and the table it left, by location."""
    done = job("open", job.output, "--identity", key, *more)
    assert "Traceback" not in done.stderr, done.stderr
    file = job.output / "opened.csv"
    return done, rows(file.read_text("utf-8")) if file.exists() else {}


def in_ledger(job, act):
    ledger = place_of(PROJECT, job.environment, job.output).open_beside(usual_wait())
    try:
        return ledger.write(act)
    finally:
        ledger.close()


def test_the_table_is_that_of_results_with_the_tokens(anywhere, key):
    job = anywhere
    before = (job.output / "results.csv").read_bytes()
    done, table = opened(job, key)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"2 pairs are open in {job.output}/opened.csv, 0 refused\n" in done.stdout
    assert "remove it once you have used it" in done.stdout
    assert {name: row["refresh_token"] for name, row in table.items() if row["refresh_token"]} == job.issued()
    tokens = ("access_token", "refresh_token", "sealed")
    expected = {name: {k: v for k, v in row.items() if k not in tokens} for name, row in job.results().items()}
    assert {name: {k: v for k, v in row.items() if k not in tokens} for name, row in table.items()} == expected
    assert "sealed" not in table["Loc0"]
    assert table["Loc1"]["name"] == "Näme of Loc1"
    assert stat.S_IMODE((job.output / "opened.csv").stat().st_mode) == 0o600
    assert (job.output / "results.csv").read_bytes() == before


def test_standard_output_gets_the_table_alone(job, key):
    done, at_default = opened(job, key, "--output", "-")
    assert (done.returncode, at_default) == (0, {})
    assert {name: row["refresh_token"] for name, row in rows(done.stdout).items() if name != "Loc2"} == job.issued()
    assert "2 pairs are open, 0 refused\n" in done.stderr


def test_pairs_that_seal_did_not_finish_are_not_opened_but_named_with_what_finishes_it(anywhere, key):
    in_ledger(anywhere, begin_sealing)
    done, table = opened(anywhere, key)
    assert (done.returncode, table) == (2, {})
    assert f"did not finish: run `recover seal {anywhere.output}` again" in done.stderr


def test_a_pair_that_was_swapped_is_refused_by_name_and_the_rest_is_opened(anywhere, key):
    job = anywhere

    def swap(connection):
        found = dict(connection.execute(select(installs.c.account_id, installs.c.tokens)).all())
        change = update(installs).where(installs.c.account_id == "Loc0")
        connection.execute(change.values(tokens=found["Loc1"]))

    in_ledger(job, swap)
    done, table = opened(job, key, "--output", "-")
    table = rows(done.stdout)
    assert done.returncode == 1
    assert f"Loc0 (client id {CLIENT_ID}): its pair is not opened: it was sealed for another install" in done.stderr
    assert "1 pair is open, 1 refused" in done.stderr
    assert done.stderr.endswith("exit 1: finished; some pairs could not be opened\n")
    assert (table["Loc0"]["access_token"], table["Loc0"]["refresh_token"]) == ("", "")
    assert table["Loc1"]["refresh_token"] == job.issued()["Loc1"]


@pytest.mark.parametrize(
    ("planted", "why"),
    [
        ({"sealed": 5}, "it is damaged"),
        ({"sealed": None, "access_token": "a", "refresh_token": "r"}, "it is open beside sealed ones"),
    ],
)
def test_what_somebody_wrote_in_place_of_a_pair_is_refused_by_name(job, key, planted, why):
    def plant(connection):
        mine = installs.c.account_id == "Loc0"
        text = connection.scalar(select(installs.c.tokens).where(mine))
        connection.execute(update(installs).where(mine).values(tokens=json.dumps({**json.loads(text), **planted})))

    in_ledger(job, plant)
    done, table = opened(job, key)
    assert done.returncode == 1, done.stderr
    assert f"Loc0 (client id {CLIENT_ID}): its pair is not opened: {why}" in done.stderr
    assert (table["Loc0"]["access_token"], table["Loc1"]["refresh_token"]) == ("", job.issued()["Loc1"])


def test_a_standard_output_that_is_closed_is_one_clear_line(job, key):
    done = in_shell(job, f"recover open {job.output} --identity {key} --output - >&-")
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output: is closed: send it to a program or a file\n")


def test_another_identity_opens_nothing_and_only_the_first_refusals_are_named(play, tmp_path):
    job = sealed_job(play)
    job.run(job.manifest(listing([f"A{number}" for number in range(25)])))
    done, table = opened(job, private_file(tmp_path / "other", str(pyrage.x25519.Identity.generate())))
    assert done.returncode == 1
    assert done.stderr.count("its pair is not opened: no identity in --identity FILE opens it") == 20
    assert "5 more are not opened\n0 pairs are open" in done.stdout
    assert "remove it" not in done.stdout
    assert not any(row["access_token"] or row["refresh_token"] for row in table.values())


def test_a_ledger_is_opened_beside_a_run_and_from_a_copy_of_its_file(job, key, tmp_path):
    job.sandbox.world.installs.pop("Loc2")
    run = job.start("run", job.manifest(listing(400)), "--output", job.output, "--rate", "20")
    assert run.stderr.readline()
    done, table = opened(job, key)
    assert done.returncode == 0
    assert {"Loc0", "Loc1"} <= {name for name, row in table.items() if row["refresh_token"]}
    assert run.poll() is None
    run.kill()
    run.wait()
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(job.output / "ledger.sqlite3", copy)
    done = job("open", copy, "--identity", key, "--output", "-")
    assert done.returncode == 0
    assert [*copy.iterdir()] == [copy / "ledger.sqlite3"]


def test_a_run_that_begins_meanwhile_leaves_no_torn_table(job, key):
    """A folder's ledger is read without a lock while no run is there."""
    job.run(job.manifest(listing(90)))
    opening = job.process("open", job.output, "--identity", key, "--output", "-")
    opening.stdout.read(1)  # It goes on only when the pipe is read.
    job.run(job.manifest(listing(91)))
    _, err = opening.communicate(timeout=60)
    assert opening.returncode == 2
    assert "ledger.sqlite3: has changed while it was read: run this again" in err


def test_a_ledger_without_sealed_pairs_is_refused(play, key):
    job = play()
    job.run(job.manifest(listing(1)))
    done, table = opened(job, key)
    assert (done.returncode, table) == (2, {})
    assert "ledger.sqlite3: holds no sealed pairs: look into" in done.stderr


def test_a_file_of_the_job_and_the_identity_are_never_replaced(job, key, tmp_path):
    there = {name: (job.output / name).read_bytes() for name in ("ledger.sqlite3", "results.csv")}
    for name, why in {
        job.output / "ledger.sqlite3": "is a file of the job",
        job.output / "results.csv": "is a file of the job",
        job.output: "is a folder",
        key: "is the identity itself",
        "/dev/fd/1": "is not a file: give `--output -`",
        tmp_path / "none" / "opened.csv": "cannot be written",
    }.items():
        done, table = opened(job, key, "--output", name)
        assert (done.returncode, done.stdout, table) == (2, "", {})
        assert why in done.stderr
        assert done.stderr.endswith("exit 2: the pairs could not be opened\n")
    assert {name: (job.output / name).read_bytes() for name in there} == there
    assert AGE in key.read_text()


def test_a_link_is_replaced_and_what_a_killed_command_left_is_removed(job, key, tmp_path):
    target = private_file(tmp_path / "target", "mine")
    (job.output / "opened.csv").symlink_to(target)
    left = private_file(job.output / ".new-opened.csv-0123abcd", "tokens")
    done, table = opened(job, key)
    assert (done.returncode, len(table)) == (0, 3)
    assert target.read_text() == "mine"
    assert not left.exists()


def test_an_identity_that_others_can_read_is_warned_of(job, key):
    key.chmod(0o644)
    done, _ = opened(job, key)
    assert done.returncode == 0
    assert f"{key} holds secrets, and other users can read it: chmod 600 it" in done.stderr


def test_an_identity_as_an_argument_is_refused_and_never_shown(job, key):
    for given in (AGE, AGE.lower(), key.read_text(), "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE"):
        done, table = opened(job, given)
        assert (done.returncode, table) == (2, {})
        assert "Invalid value for '--identity': it is a secret key" in done.stderr
        assert given[-12:] not in done.stdout + done.stderr
    # A shell cuts the file into words where quotes are forgotten.
    done = job("open", job.output, "--identity", *key.read_text().split())
    assert done.returncode == 2
    assert AGE not in done.stdout + done.stderr


def test_the_identity_is_needed(job):
    done = job("open", job.output)
    assert done.returncode == 2
    assert "give its file with --identity" in done.stderr


def test_a_passphrase_is_asked_for_on_the_terminal_and_not_shown(job, tmp_path):
    key = private_file(tmp_path / "key.age", ENCRYPTED)
    for typed, code in ((PASSPHRASE, 0), ("wrong horse", 2)):
        with terminal(job, "open", job.output, "--identity", key, columns=200) as screen:
            screen.read(until=lambda text: f"passphrase of {key}: " in text)
            screen.type(f"{typed}\n".encode())
            ended, text = screen.end()
        assert ended == code
        assert typed not in text
    assert f"{key}: the passphrase is wrong: run this again" in text


def test_a_prompt_ends_quietly_with_ctrl_c(job, tmp_path):
    key = private_file(tmp_path / "key.age", ENCRYPTED)
    with terminal(job, "open", job.output, "--identity", key, columns=200) as screen:
        screen.read(until=lambda text: "passphrase of" in text)
        screen.type(b"\x03")
        code, text = screen.end()
    assert code == 130
    assert text.split(": ", 1)[1].split() == ["exit", "130:", "stopped", "by", "SIGINT", "(Ctrl-C)"]
    assert not (job.output / "opened.csv").exists()


def test_the_table_never_goes_to_a_terminal(job, key):
    with terminal(job, "open", job.output, "--identity", key, "--output", "-", columns=200) as screen:
        code, text = screen.end()
    assert code == 2
    assert "standard output: is a terminal" in text
    assert not any(token in text for token in job.issued().values())


def test_a_passphrase_without_a_terminal_is_one_clear_line(job, tmp_path):
    key = private_file(tmp_path / "key.age", ENCRYPTED)
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "open", job.output, "--identity", key],
        cwd=PROJECT,
        env=job.environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        f"error: passphrase of {key}: cannot be asked for without a terminal: run this on a terminal, or give an identity "
        "without a passphrase"
    )


def test_the_table_is_a_list_for_a_check_and_for_a_later_run(job, key):
    opened(job, key)
    file = job.output / "opened.csv"
    checked = job("check", file, "--output", job.folder / "affected.csv")
    assert "works" in checked.stdout, checked.stderr
    assert [*rows((job.folder / "affected.csv").read_text("utf-8"))] == ["Loc2"]
    done = job("run", file)
    assert done.returncode == 1
    assert job.summary()["this_run"]["already_recovered"] == 2
    assert "only new pairs are sealed" in done.stderr


def in_shell(job, words):
    """How a pipeline ended. In it, `recover` is the job."""
    script = f'recover() {{ "{sys.executable}" -m jobs "$@"; }}; {words}'
    command = ["bash", "-o", "pipefail", "-c", script]
    return subprocess.run(command, cwd=PROJECT, env=job.environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("how", ["{} | recover check -", "{} | recover check /dev/stdin", "recover check <({})"])
def test_opened_pairs_are_checked_by_a_pipe_and_never_touch_the_disk(job, key, how):
    temporary = job.folder / "temporary"
    temporary.mkdir()
    job.environment["TMPDIR"] = str(temporary)
    before = {*job.folder.rglob("*")}
    opens = f"recover open {job.output} --identity {key} --output -"
    done = in_shell(job, f"{how.format(opens)} --output {job.folder}/affected.csv")
    assert done.returncode == 1, done.stderr
    assert [*rows((job.folder / "affected.csv").read_text("utf-8"))] == ["Loc2"]
    assert not any(token in done.stdout + done.stderr for token in job.issued().values())
    assert {file.name for file in {*job.folder.rglob("*")} - before} <= {"affected.csv", "state"}


def test_a_check_of_sealed_pairs_says_to_open_them_first(job, key):
    sent = job.arrived()
    done = job("check", job.output / "results.csv")
    assert (done.returncode, job.arrived()) == (2, sent)
    assert "results.csv: holds 2 sealed pairs, which a check cannot read: run" in done.stderr
    words = done.stderr.split("run `")[1].split("`")[0]
    assert words == f"recover open {job.output} --identity FILE --output - | recover check -"
    assert in_shell(job, words.replace("FILE", str(key))).returncode == 1


def test_a_purge_removes_the_table_of_open_pairs(job, key):
    opened(job, key)
    done = job("purge", job.output, "--all", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"{job.output}/opened.csv is removed, since it held open pairs" in done.stdout
    assert not (job.output / "opened.csv").exists()


def test_a_purge_leaves_a_file_of_that_name_beside_a_ledger_that_was_never_sealed(play):
    job = play()
    job.run(job.manifest(listing(1)))
    mine = private_file(job.output / "opened.csv", "mine")
    assert "removed" not in job("purge", job.output, "--all", "--yes").stdout
    assert mine.read_text() == "mine"


@pytest.mark.skipif(not shutil.which("age"), reason="age is not installed")
def test_age_opens_a_cell(job, key):
    cell = job.results()["Loc0"]["sealed"]
    done = subprocess.run(["age", "-d", "-i", key], input=cell, capture_output=True, text=True, check=True)
    assert job.issued()["Loc0"] in done.stdout


def test_a_reader_that_goes_away_is_one_clear_line(job, key):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "open", job.output, "--identity", key, "--output", "-"],
        cwd=PROJECT,
        env=job.environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith("error: standard output: cannot be written (Broken pipe)")
