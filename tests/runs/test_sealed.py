"""Runs that seal what they get: nothing that they write can be opened without an identity that they do not have."""

from __future__ import annotations

import json

import pyrage
import pytest

from jobs.config.recipients import key_fingerprint
from jobs.core.clock import utc_now
from jobs.core.model import Install, InstallKey, Level, Recovered, Route
from jobs.ledger.unwritten import UNWRITTEN, set_aside
from jobs.sandbox.world import Place
from jobs.sealing.sealer import Sealer
from tests.helpers.job import CLIENT_ID
from tests.helpers.leaks import leaks
from tests.helpers.lists import listing
from tests.helpers.made import pair
from tests.helpers.postgres import PASSWORD


@pytest.fixture
def identity():
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def job(play, identity):
    job = play({"Loc2": Place("not_installed")})
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = str(identity.to_public())
    return job


@pytest.fixture(params=["folder", "database"])
def anywhere(job, request):
    """The job with its ledger in either place."""
    if request.param == "database":
        url = request.getfixturevalue("postgres").url
        job.environment |= {"RECOVERY_LEDGER__URL": url, "RECOVERY_LEDGER__NAME": request.node.name[:100]}
    return job


def opened(row, identity):
    return json.loads(pyrage.decrypt(row["sealed"].encode(), [identity]))


def test_results_hold_sealed_pairs_that_whoever_has_the_identity_opens(anywhere, identity):
    job = anywhere
    done = job.run(job.manifest(listing(3)))
    assert done.returncode == 1, done.stderr
    rows = job.results()
    assert not any(row["access_token"] or row["refresh_token"] for row in rows.values())
    assert {name: opened(row, identity)["refresh_token"] for name, row in rows.items() if row["sealed"]} == job.issued()
    assert rows["Loc2"]["sealed"] == ""
    assert PASSWORD not in done.stderr


def test_a_later_run_leaves_sealed_installs_alone(job):
    manifest = job.manifest(listing(3))
    job.run(manifest)
    first = job.results()["Loc1"]
    assert job.run(manifest).returncode == 1
    assert job.summary()["this_run"]["already_recovered"] == 2
    assert job.results()["Loc1"] == first


def test_a_sealed_ledger_takes_no_open_pair(anywhere):
    job = anywhere
    manifest = job.manifest(listing(3))
    job.run(manifest)
    sent = job.arrived()
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = "[]"
    for command in ("run", "plan"):
        done = job(command, manifest, "--output", job.output)
        assert done.returncode == 2
        assert "holds sealed pairs, but seal.recipients is empty" in done.stderr
    assert job.arrived() == sent


def test_a_ledger_with_open_pairs_takes_no_sealed_one(anywhere):
    job = anywhere
    manifest = job.manifest(listing(3))
    recipient = job.environment.pop("RECOVERY_SEAL__RECIPIENTS")
    job.run(manifest)
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = recipient
    sent = job.arrived()
    for command in ("run", "plan"):
        done = job(command, manifest, "--output", job.output)
        assert done.returncode == 2
        assert f"run `recover seal {job.output}` first" in done.stderr
    assert job.arrived() == sent


def test_a_ledger_without_pairs_is_sealed_from_its_next_run_on(job):
    manifest = job.manifest(listing(1).replace("Loc0", "Loc2"))
    recipient = job.environment.pop("RECOVERY_SEAL__RECIPIENTS")
    assert job.run(manifest).returncode == 1
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = recipient
    assert job.run(job.manifest(listing(3))).returncode == 1
    assert job.results()["Loc1"]["sealed"]


def test_a_secret_key_among_the_recipients_ends_the_run_in_one_line_before_anything_is_sent(job, identity):
    recipient = job.environment["RECOVERY_SEAL__RECIPIENTS"]
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = f"{recipient}\n{identity}"
    for command in ("run", "plan"):
        done = job(command, job.manifest(listing(3)), "--output", job.output)
        said = [line for line in done.stderr.splitlines() if "RECIPIENTS" in line]
        assert done.returncode == 2
        assert len(said) == 1
        assert "RECOVERY_SEAL__RECIPIENTS: has an invalid value (key 2: it is a secret key" in said[0]
        assert str(identity) not in done.stdout + done.stderr
    assert job.arrived() == 0
    assert not job.output.exists()


def test_a_plan_says_for_whom_pairs_are_sealed_and_a_run_warns_of_one_alone_too(job):
    alone = "new pairs are sealed for one recipient alone: if its identity is lost, so are they"
    mine = job.environment["RECOVERY_SEAL__RECIPIENTS"]
    another = str(pyrage.x25519.Identity.generate().to_public())
    for keys in ([mine, mine.upper()], [mine, another]):
        job.environment["RECOVERY_SEAL__RECIPIENTS"] = "\n".join(keys)
        named = dict.fromkeys(key_fingerprint(key.lower()) for key in keys)
        for command in ("plan", "run"):
            done = job(command, job.manifest(listing(3)), "--output", job.output)
            said = done.stdout + done.stderr
            assert command == "run" or f"new pairs are sealed for {' and '.join(named)}\n" in said
            assert (alone in said) == (len(named) == 1)


def test_a_pair_that_sealing_failed_for_once_is_sealed_at_the_end_and_nothing_is_lost(stage, identity):
    job = stage.job
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = str(identity.to_public())
    bug = {"where": "jobs.sealing.sealer.Sealer.seal", "said": "a bug of ours", "at": 4}
    assert stage.run(job.manifest(listing(30)), job.output, bug=bug)["code"] == 70
    assert "a bug of ours" in stage.said()
    assert 4 <= len(job.issued()) < 30
    kept = {name: opened(row, identity)["refresh_token"] for name, row in job.results().items() if row["sealed"]}
    assert kept == job.issued()
    assert leaks(job.tokens, job.output) == []


def test_the_results_of_a_sealed_run_are_a_list_for_the_next_one_and_stay_as_they_are(job):
    """A user's own column may hold sealed texts, which stay as they are too."""
    armored = "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n-----END AGE ENCRYPTED FILE-----\n"
    job.run(job.manifest(f'location_id,mine\nLoc0,"{armored}"\nLoc2,"{armored}"\n'))
    first = job.results()
    assert {row["mine"] for row in first.values()} == {armored}
    assert job.failures()["Loc2"]["mine"] == f"'{armored}"
    done = job.run(job.output / "results.csv")
    assert done.returncode == 1, done.stderr
    assert "old ones" not in done.stderr
    assert job.results()["Loc0"] == first["Loc0"]
    assert job.run(job.output / "failures.csv").returncode == 1
    assert job.failures()["Loc2"]["mine"] == f"'{armored}"


def set_aside_for(job, identity, *names):
    """Let earlier runs have left a pair for each of these, sealed or not."""
    sealer = Sealer([str(identity.to_public())], job.sandbox.url)
    for name, is_sealed in names:
        install = Install(InstallKey(CLIENT_ID, Level.SUB_ACCOUNT, name), "")
        tokens = sealer.seal(install.key, pair(), utc_now()) if is_sealed else pair()
        set_aside(job.output, job.sandbox.url, [(install, Recovered(tokens, Route.RECONNECT, 1, utc_now()))])
    return (job.output / UNWRITTEN).read_bytes()


@pytest.mark.parametrize(
    ("sealed_ledger", "lines", "why"),
    [
        (False, [("Loc1", True)], "holds sealed pairs, but others are not"),
        (True, [("Loc1", False)], "holds pairs that are not sealed, but others are"),
        (False, [("Loc1", True), ("Loc3", False)], "holds pairs that are not sealed, but others are"),
    ],
)
def test_pairs_that_were_set_aside_never_mix_open_and_sealed_ones(job, identity, sealed_ledger, lines, why):
    recipient = job.environment.pop("RECOVERY_SEAL__RECIPIENTS")
    if sealed_ledger:
        job.environment["RECOVERY_SEAL__RECIPIENTS"] = recipient
    job.run(job.manifest(listing(1)))
    left, sent = set_aside_for(job, identity, *lines), job.arrived()
    manifest = job.manifest(listing(4))
    for command in (("run", manifest, "--output"), ("plan", manifest, "--output"), ("purge",)):
        done = job(*command, job.output)
        assert done.returncode == 2, done.stderr
        assert f"{UNWRITTEN}: {why}: set seal.recipients, and run `recover seal {job.output}` first" in done.stderr
    assert (job.output / UNWRITTEN).read_bytes() == left
    assert job.arrived() == sent
    job.environment["RECOVERY_SEAL__RECIPIENTS"] = recipient
    assert job("seal", job.output).returncode == 0
    assert job.run(manifest).returncode == 1
    assert not (job.output / UNWRITTEN).exists()
    assert opened(job.results()["Loc1"], identity)["refresh_token"] == pair().refresh_token.reveal()


def test_an_open_pair_that_was_set_aside_is_not_taken_in_where_new_ones_are_sealed(anywhere, identity):
    job = anywhere
    job.run(job.manifest(listing(1).replace("Loc0", "Loc2")))
    left, sent = set_aside_for(job, identity, ("Loc1", False)), job.arrived()
    done = job.run(job.manifest(listing(4)))
    assert done.returncode == 2
    assert f"run `recover seal {job.output}` first" in done.stderr
    assert (job.output / UNWRITTEN).read_bytes() == left
    assert job.arrived() == sent


def test_recipients_may_be_taken_out_while_no_pair_is_sealed(anywhere):
    job = anywhere
    manifest = job.manifest(listing(1).replace("Loc0", "Loc2"))
    assert job.run(manifest).returncode == 1
    del job.environment["RECOVERY_SEAL__RECIPIENTS"]
    assert job.run(job.manifest(listing(2))).returncode == 0
    assert job.results()["Loc1"]["access_token"]


def test_a_users_own_column_called_sealed_keeps_no_run_from_starting(job):
    del job.environment["RECOVERY_SEAL__RECIPIENTS"]
    manifest = job.manifest(listing(2))
    job.run(manifest)
    results = job.output / "results.csv"
    header, *rows = results.read_text().splitlines()
    results.write_text("\n".join([f"{header},sealed", *(f"{row},yes" for row in rows), ""]))
    assert job.run(manifest).returncode == 0


@pytest.mark.parametrize("line", [b"\xff\n", b"swapped"])
def test_a_line_that_was_set_aside_for_another_install_is_refused_and_the_good_pair_stays(job, identity, line):
    job.run(job.manifest(listing(2)))
    good = job.results()["Loc1"]["sealed"]
    swapped = set_aside_for(job, identity, ("Loc1", True)).replace(b'"location_id": ""', b'"location_id": "Loc0"')
    (job.output / UNWRITTEN).write_bytes(swapped if line == b"swapped" else line)
    done = job.run(job.manifest(listing(2)))
    assert done.returncode == 2
    assert f"{UNWRITTEN}, line 1: cannot be read: correct or remove that line" in done.stderr
    assert job.results()["Loc1"]["sealed"] == good
