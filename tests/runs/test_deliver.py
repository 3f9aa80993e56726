"""Pairs handed over to the app's own store: in a run, by a command of its own, and never twice unasked."""

from __future__ import annotations

import signal
import sqlite3
import time

import pytest

from jobs.sandbox.receiver import Receiver, receiving
from jobs.sandbox.world import Place
from tests.helpers.waiting import wait_until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
IDS = [f"Loc{n:02}" for n in range(12)]
LIST = "location_id,company_id,plan\n" + "".join(f"{one},CoA,gold\n" for one in IDS)


@pytest.fixture
def store():
    with receiving(Receiver(SECRET)) as receiver:
        yield receiver


@pytest.fixture
def job(play, store):
    job = play()
    job.environment |= {"RECOVERY_DELIVER__URL": f"{store.url}?key=of-the-address", "RECOVERY_DELIVER__SECRET": SECRET}
    return job


def delivered(store):
    return [resource for _, kind, resource in store.seen if kind == "connection.recovered"]


def test_a_run_hands_every_new_pair_over_and_says_so(job, store):
    done = job.run(job.manifest(LIST))
    assert done.returncode == 0, done.stderr
    assert sorted(delivered(store)) == IDS
    results = job.results()
    assert store.stored() == {one: results[one]["access_token"] for one in IDS}
    assert {row["delivery"] for row in results.values()} == {"delivered"}
    assert all(row["delivered_at"] >= row["recovered_at"] for row in results.values())
    summary = job.summary()
    assert (summary["counts"]["delivered"], summary["counts"]["undelivered"]) == (12, 0)
    assert summary["delivery"] == {
        "target": "url", "attempted": 12, "delivered": 12, "failed": 0, "rested_because": None
    }  # fmt: skip
    assert "12 are delivered to your app" in done.stdout
    assert "of-the-address" not in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_an_acknowledged_pair_is_never_sent_again_unasked(job, store):
    manifest = job.manifest(LIST)
    job.run(manifest)
    assert job.run(manifest).returncode == 0
    assert job("deliver", job.output).returncode == 0
    assert sorted(delivered(store)) == IDS
    again = job("deliver", job.output, "--id", IDS[3])
    assert again.returncode == 0, again.stderr
    assert sorted(delivered(store)) == sorted([*IDS, IDS[3]])
    # The same pair has the same id, whoever asks for it.
    assert len({message for message, _, resource in store.seen if resource == IDS[3]}) == 1


def test_all_is_handed_over_again_only_by_somebody_who_is_sure(job, store):
    job.run(job.manifest(LIST))
    unsure = job("deliver", job.output, "--all")
    assert unsure.returncode == 2
    assert "would break that connection again" in unsure.stderr
    assert job("deliver", job.output, "--all", "--yes").returncode == 0
    assert sorted(delivered(store)) == sorted(IDS * 2)


def test_what_the_app_refuses_is_told_and_waits_for_nobody(job, store):
    store.refuses = frozenset({IDS[2]})
    done = job.run(job.manifest(LIST))
    assert done.returncode == 1
    assert job.results()[IDS[2]]["delivery"] == "no: the address answered 422"
    assert job.summary()["counts"] | {"rows": 0} == {
        "rows": 0, "installs": 12, "duplicates": 0, "recovered": 12, "failed": 0, "pending": 0,
        "delivered": 11, "undelivered": 1, "purged": 0,
    }  # fmt: skip
    assert job.failures() == {}
    assert f"id={IDS[2]}" in done.stderr
    store.refuses = frozenset()
    assert job("deliver", job.output).returncode == 0
    assert job.summary()["counts"]["undelivered"] == 0


def test_a_store_that_is_down_costs_no_install_and_what_waits_is_handed_over_by_the_next_run(job, store):
    job.environment |= {"RECOVERY_DELIVER__ATTEMPTS": "2", "RECOVERY_DELIVER__GIVE_UP_AFTER": "3"}
    store.answers.extend([503] * 100)
    manifest = job.manifest(LIST)
    done = job.run(manifest)
    assert done.returncode == 1, done.stderr
    summary = job.summary()
    assert (summary["counts"]["recovered"], summary["counts"]["undelivered"]) == (12, 12)
    assert "the address answered 503" in summary["delivery"]["rested_because"]
    assert "recover deliver" in done.stdout or "deliver " in done.stdout
    store.answers.clear()
    again = job.run(manifest)
    assert again.returncode == 0, again.stderr
    assert sorted(store.stored()) == IDS
    assert len(job.sandbox.seen) == 24  # Nothing was minted for that.


def test_a_target_that_says_gone_is_asked_no_more_in_this_run(job, store):
    job.environment |= {"RECOVERY_DELIVER__WORKERS": "1"}
    store.answers.append(410)
    assert job.run(job.manifest(LIST)).returncode == 1
    assert len(store.seen) == 1
    assert "410" in job.summary()["delivery"]["rested_because"]


def test_a_pause_that_the_target_asks_for_holds_all_and_uses_up_no_try(job, store):
    job.environment |= {"RECOVERY_DELIVER__ATTEMPTS": "1", "RECOVERY_DELIVER__WORKERS": "1"}
    store.answers.extend([(429, {"Retry-After": "1"})] * 2)
    assert job.run(job.manifest(LIST)).returncode == 0
    assert len(store.seen) == 14
    assert job.summary()["delivery"]["failed"] == 0


def test_a_pair_that_a_newer_one_overtook_is_not_sent_at_all(job, store):
    store.answers.extend([503] * 100)
    job.environment |= {"RECOVERY_DELIVER__ATTEMPTS": "1", "RECOVERY_DELIVER__GIVE_UP_AFTER": "1"}
    manifest = job.manifest(LIST)
    job.run(manifest)
    store.answers.clear()
    store.seen.clear()
    assert job.run(manifest, "--force").returncode == 0
    assert sorted(delivered(store)) == IDS
    assert store.stored() == {one: row["access_token"] for one, row in job.results().items()}


def test_a_forced_try_that_fails_hands_the_kept_pair_over(play, store):
    job = play({one: Place("recovered") for one in IDS})
    job.environment |= {"RECOVERY_DELIVER__URL": store.url, "RECOVERY_DELIVER__SECRET": SECRET}
    job.environment |= {"RECOVERY_DELIVER__ATTEMPTS": "1", "RECOVERY_DELIVER__GIVE_UP_AFTER": "1"}
    store.answers.extend([503] * 100)
    manifest = job.manifest(LIST)
    job.run(manifest)
    kept = {one: row["access_token"] for one, row in job.results().items()}
    store.answers.clear()
    for one in IDS:
        job.sandbox.world.installs[one] = Place("not_installed")
    assert job.run(manifest, "--force").returncode == 1
    assert store.stored() == kept


def test_killed_between_the_yes_and_its_record_a_pair_is_sent_at_most_once_more_with_the_same_id(job, store):
    manifest = job.manifest(LIST)
    store.seconds = 0.05
    for _ in range(6):
        process = job.start("run", manifest, "--output", job.output)
        before = len(store.seen)
        wait_until(lambda before=before, run=process: len(store.seen) > before or run.poll() is not None)
        process.kill()
        process.communicate()
    assert job.run(manifest).returncode == 0
    assert store.stored() == {one: row["access_token"] for one, row in job.results().items()}
    ids = {}
    for message, _, resource in store.seen:
        ids.setdefault(resource, []).append(message)
    assert all(len(set(messages)) == 1 for messages in ids.values())
    acknowledged = len(store.seen)
    job.run(manifest)
    assert len(store.seen) == acknowledged


def test_a_signal_ends_delivery_after_what_is_in_flight(job, store):
    store.seconds = 0.5
    process = job.start("run", job.manifest(LIST), "--output", job.output)
    wait_until(lambda: len(store.seen) >= 2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert job.summary()["counts"]["delivered"] == len(store.stored())


def test_the_time_that_was_given_ends_delivery_too(job, store):
    store.seconds = 1.0
    job.environment["RECOVERY_DELIVER__WORKERS"] = "1"
    began = time.monotonic()
    assert job.run(job.manifest(LIST), "--max-duration", "3s").returncode == 4
    assert time.monotonic() - began < 10
    assert job.summary()["counts"]["undelivered"] > 0
    assert job.summary()["stopped_because"] == "time_limit"


@pytest.mark.parametrize("ends", ["signal", "time"])
def test_whatever_stopped_the_run_first_a_signal_and_the_time_end_delivery(job, store, ends):
    store.seconds = 0.5
    job.environment["RECOVERY_DELIVER__WORKERS"] = "1"
    # The API goes away under way: an outage, after which what was recovered is still handed over.
    gone = "location_id\n" + "".join(f"{one}\n" for one in [*IDS, *(f"Gone{n:02}" for n in range(30))])
    for n in range(30):
        job.sandbox.world.installs[f"Gone{n:02}"] = Place("server_error")
    process = job.start("run", job.manifest(gone), "--output", job.output, "--max-duration", "3s")
    if ends == "signal":
        wait_until(lambda: len(store.seen) >= 2)
        process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode in {3, 4, 143}, err
    assert job.summary()["counts"]["undelivered"] > 0


def test_a_ledger_of_before_is_taken_over_with_all_its_pairs_waiting(job, store):
    without = {name: value for name, value in job.environment.items() if "DELIVER" not in name}
    with_target, job.environment = job.environment, without
    manifest = job.manifest(LIST)
    assert job.run(manifest).returncode == 0
    assert {row["delivery"] for row in job.results().values()} == {""}
    with sqlite3.connect(job.output / "ledger.sqlite3") as connection:
        connection.execute("DROP TABLE deliveries")
        connection.execute("PRAGMA user_version = 3")
    job.environment = with_target
    plan = job("plan", manifest, "--output", job.output)
    assert "12 pairs wait to be delivered" in plan.stdout
    assert job.run(manifest).returncode == 0
    assert sorted(store.stored()) == IDS


def test_deliver_needs_neither_the_secret_of_the_app_nor_its_lock(job, store):
    store.answers.extend([503] * 100)
    job.environment |= {"RECOVERY_DELIVER__ATTEMPTS": "1", "RECOVERY_DELIVER__GIVE_UP_AFTER": "1"}
    job.run(job.manifest(LIST))
    store.answers.clear()
    for name in ("HIGHLEVEL_CLIENT_ID", "HIGHLEVEL_CLIENT_SECRET", "HIGHLEVEL_BASE_URL"):
        del job.environment[name]
    done = job("deliver", job.output)
    assert done.returncode == 0, done.stderr
    assert sorted(store.stored()) == IDS
    assert {row["delivery"] for row in job.results().values()} == {"delivered"}


def test_deliver_beside_a_run_on_that_folder_says_who_holds_it(job, store):
    store.seconds = 0.3
    process = job.start("run", job.manifest(LIST), "--output", job.output)
    wait_until(lambda: store.seen)
    beside = job("deliver", job.output)
    process.communicate(timeout=60)
    assert beside.returncode == 11
    assert "is held by" in beside.stderr


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"RECOVERY_DELIVER__SECRET": ""}, "no secret to sign with"),
        ({"RECOVERY_DELIVER__SECRET": "not-a-secret"}, "whsec_"),
        ({"RECOVERY_DELIVER__COMMAND": '["true"]'}, "more than one target"),
        ({"RECOVERY_DELIVER__URL": "http://app.example.com/x"}, "not encrypted"),
        ({"RECOVERY_DELIVER__TIMEOUT_SECONDS": "0"}, "0.001"),
    ],
)
def test_a_target_that_cannot_be_used_is_refused_before_anything_is_sent(job, store, settings, says):
    job.environment |= settings
    done = job.run(job.manifest(LIST))
    assert done.returncode == 2
    assert says in done.stderr
    assert job.sandbox.seen == store.seen == []


# -- purge -------------------------------------------------------------------------------------------------------


def every_byte(folder):
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def tokens_of(job):
    return [
        row[name].encode() for row in job.results().values() for name in ("access_token", "refresh_token") if row[name]
    ]


def test_after_a_purge_no_byte_of_a_delivered_pair_is_in_any_file(job, store):
    store.refuses = frozenset({IDS[0]})
    manifest = job.manifest(LIST)
    job.run(manifest)
    tokens = tokens_of(job)
    kept = job.results()[IDS[0]]
    done = job("purge", job.output)
    assert done.returncode == 0, done.stderr
    assert "11 pairs are forgotten" in done.stdout
    left = every_byte(job.output)
    mine = {kept["access_token"].encode(), kept["refresh_token"].encode()}
    assert {token for token in tokens if token in left} == mine
    results = job.results()
    assert {row["delivery"] for row in results.values()} == {"purged", "no: the address answered 422"}
    assert all(row["delivered_at"] for one, row in results.items() if one != IDS[0])
    store.seen.clear()
    store.refuses = frozenset()
    asked = len(job.sandbox.seen)
    job.run(manifest)  # What was purged is known as recovered.
    assert len(job.sandbox.seen) == asked
    assert delivered(store) == [IDS[0]]


def test_a_purged_pair_is_never_handed_over_again_even_if_somebody_asks_for_all_or_for_it(job, store):
    job.run(job.manifest(LIST))
    assert job("purge", job.output).returncode == 0
    store.seen.clear()
    everything = job("deliver", job.output, "--all", "--yes")
    assert (everything.returncode, delivered(store)) == (0, [])
    assert "nothing to do" in everything.stdout
    one = job("deliver", job.output, "--id", IDS[3])
    assert (one.returncode, delivered(store)) == (2, [])
    assert f"error: {IDS[3]}: has no pair in" in one.stderr
    assert {row["delivery"] for row in job.results().values()} == {"purged"}


def test_what_was_not_delivered_is_purged_only_by_somebody_who_is_sure(job, store):
    store.refuses = frozenset(IDS[:2])
    job.run(job.manifest(LIST))
    tokens = tokens_of(job)
    unsure = job("purge", job.output, "--all")
    assert unsure.returncode == 2
    assert "2 pairs were not delivered" in unsure.stderr
    assert any(token in every_byte(job.output) for token in tokens)
    assert job("purge", job.output, "--all", "--yes").returncode == 0
    assert not any(token in every_byte(job.output) for token in tokens)
    counts = job.summary()["counts"]
    assert (counts["delivered"], counts["undelivered"], counts["purged"]) == (10, 0, 2)


def test_pairs_that_were_loaded_by_hand_can_be_purged_and_are_counted(play):
    job = play()
    job.run(job.manifest(LIST))
    assert job("purge", job.output, "--all", "--yes").returncode == 0
    counts = job.summary()["counts"]
    assert (counts["delivered"], counts["undelivered"], counts["purged"]) == (0, 0, 12)


def test_a_purge_that_is_killed_in_the_middle_is_ended_by_the_next(job, store):
    job.run(job.manifest(LIST))
    tokens = tokens_of(job)
    for seconds in (0.1, 0.2, 0.3, 0.4, 0.5):
        process = job.start("purge", job.output)
        try:
            process.wait(seconds)
        except Exception:  # noqa: BLE001 - it is killed in the middle of its work
            process.kill()
        process.communicate()
    assert job("purge", job.output).returncode == 0
    assert not any(token in every_byte(job.output) for token in tokens)
    assert {row["status"] for row in job.results().values()} == {"recovered"}
