"""A watcher hears that a run begins and how it ended, and that a run was killed by hearing nothing more."""

from __future__ import annotations

import json
import queue
import signal
import socket
import ssl
import threading
from functools import partial
from uuid import UUID

import pytest

from jobs.config.settings import PingSettings, load_section_or_defaults
from jobs.core.errors import Exit
from jobs.core.secret import Secret, scrub_own
from jobs.outgoing.notify import News
from jobs.outgoing.ping import Watcher
from jobs.sandbox.world import Place
from jobs.system.locks import LOCK, hold
from tests.helpers import lists
from tests.helpers.job import CLIENT_ID, SECRET
from tests.helpers.waiting import wait_until
from tests.helpers.watcher import Ping, healthchecks

LOCATIONS = ["ve9EPM428h8vShlRW1KT", "ve9EPM428h8vShlRW2KT"]
LISTING = "location_id\n" + "".join(f"{account}\n" for account in LOCATIONS)
RUN = "0123456789abcdef0123456789abcdef"
DOWN = (503, {}, b"")
listing = partial(lists.listing, width=3)


@pytest.fixture(scope="module")
def watcher():
    with healthchecks() as server:
        yield server


@pytest.fixture
def watched(play, watcher):
    """A job that pings a check of its own."""

    def start(installs=None, check=None, **world):
        job = play(installs, **world)
        check = check or watcher.check()
        job.environment["RECOVERY_PING__URL"] = check.url
        return job, check

    return start


def told(url, ping, **more):
    """What went wrong with a ping, and how long it waited before each try."""
    waits = []
    return [*ping(Watcher(Secret(url), {}, sleep=waits.append, **more))], waits


def started(watcher):
    return watcher.started(RUN)


def prints_the_address(job):
    """A notify command that fails, and says the address of the ping."""
    command = job.folder / "prints"
    command.write_text(f"#!/bin/sh\necho {job.environment['RECOVERY_PING__URL']}\nexit 1\n")
    command.chmod(0o700)
    job.environment["RECOVERY_NOTIFY__COMMAND"] = str(command)
    return command


def test_a_watcher_hears_that_a_run_begins_and_how_it_ended_with_the_closing_block_and_no_id(watched):
    job, check = watched({LOCATIONS[1]: Place("not_installed")})
    before = []
    check.hear = lambda _: before.append(len(job.sandbox.seen))
    manifest = job.manifest(LISTING)
    done = job.run(manifest)
    first = str(UUID(job.summary()["run_id"]))
    start, end = check.pings
    assert (done.returncode, start, end[:2], check.status) == (1, Ping("start", first), ("1", first), "down")
    assert before == [0, len(job.sandbox.seen)]
    block = [line for line in done.stdout.splitlines() if line]
    assert [line for line in end.body.splitlines() if line][1:] == block
    assert not [secret for secret in (SECRET, CLIENT_ID, *LOCATIONS) if secret in end.body]
    job.sandbox.world.installs.clear()
    assert job.run(manifest).returncode == 0
    second = str(UUID(job.summary()["run_id"]))
    assert [ping[:2] for ping in check.pings[2:]] == [("start", second), ("0", second)]
    assert (check.status, first == second) == ("up", False)


def test_only_a_run_pings(watched):
    job, check = watched()
    manifest = job.manifest(LISTING)
    assert job("plan", manifest).returncode == 0
    job.run(manifest)
    for words in (["report", job.output], ["deliver", job.output], ["check", job.output / "results.csv"]):
        job(*words)
    assert [ping.what for ping in check.pings] == ["start", "0"]


def test_a_run_that_could_not_start_is_told_of_without_a_start(watched):
    job, check = watched()
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "fast"
    command = prints_the_address(job)
    done = job("run", "missing.csv")
    assert done.returncode == 2
    assert f"notify.command ({command}): ended with 1: " in done.stderr
    assert "ping-canary" not in done.stderr
    (end,) = check.pings
    assert end[:2] == ("2", "")
    assert end.body.startswith("HighLevel recovery could not start (exit 2)\n")


@pytest.mark.parametrize("arguments", [[], ["--no-such-option", "x.csv"], ["x.csv", "--cause", "none"]])
def test_a_command_line_that_is_wrong_is_not_taken_for_the_run_that_is_watched(watched, arguments):
    job, check = watched()
    assert job("run", *arguments).returncode == 2
    assert check.pings == []


def test_a_run_that_another_one_holds_back_tells_nothing(watched):
    job, check = watched()
    job.output.mkdir()
    with hold(job.output / LOCK, str(job.output), "the run of last night"):
        assert job.run(job.manifest(LISTING)).returncode == 11
    assert (check.pings, check.status) == ([], "new")


def test_a_killed_run_is_known_by_its_missing_end(watched):
    job, check = watched()
    process = job.start("run", job.manifest(listing(50)), "--output", job.output, "--workers", "1")
    job.slow_down(5)
    process.kill()
    process.wait(30)
    assert [ping.what for ping in check.pings] == ["start"]
    assert check.status == "started"


@pytest.mark.parametrize("times", [1, 2], ids=["first signal", "second signal"])
def test_a_run_that_a_signal_ends_tells_its_end_once(watched, times):
    job, check = watched()
    process = job.start("run", job.manifest(listing(50)), "--output", job.output, "--workers", "1")
    job.slow_down(0.2 if times == 1 else 5)
    process.send_signal(signal.SIGINT)
    if times == 2:
        wait_until(lambda: "stopping" in process.stderr.readline())
        process.send_signal(signal.SIGINT)
    process.communicate(30)
    run = str(UUID(job.summary()["run_id"]))
    assert [ping[:2] for ping in check.pings] == [("start", run), ("130", run)]
    assert process.returncode == 130
    assert "pending" in check.pings[1].body


def test_a_signal_while_the_watcher_lets_a_run_wait_ends_it_gracefully(watched):
    job, check = watched()
    processes = queue.Queue()
    check.hear = lambda ping: processes.get(timeout=30).terminate() if ping.what == "start" else None
    process = job.start("run", job.manifest(LISTING), "--output", job.output)
    processes.put(process)
    process.communicate(timeout=30)
    run = str(UUID(job.summary()["run_id"]))
    assert [ping[:2] for ping in check.pings] == [("start", run), ("143", run)]
    assert (process.returncode, job.summary()["exit_code"], job.sandbox.seen) == (143, 143, [])


def test_a_run_whose_ledger_is_gone_when_a_second_signal_comes_ends_with_its_id(watched):
    job, check = watched()
    process = job.start("run", job.manifest(listing(50)), "--output", job.output, "--workers", "1")
    job.slow_down(5)
    (job.output / "ledger.sqlite3").rename(job.folder / "away")
    process.terminate()
    wait_until(lambda: "stopping" in process.stderr.readline())
    process.terminate()
    process.communicate(timeout=30)
    start, end = check.pings
    assert end[:2] == ("143", start.rid)
    assert end.body.startswith("HighLevel recovery ended, and what it did is not known (exit 143)\n")


def test_a_watcher_that_is_gone_costs_a_warning_each_and_the_address_is_never_shown(watched):
    job, _ = watched({LOCATIONS[1]: Place("not_installed")})
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    job.environment["RECOVERY_PING__URL"] = f"http://127.0.0.1:{port}/ping-canary?create=1"
    command = prints_the_address(job)
    manifest = job.manifest(LISTING)
    done = job.run(manifest, "--log-format", "json")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    warnings = [event["message"] for event in events if event["event"] == "warning"]
    assert [message.partition(": ")[0] for message in warnings] == [
        "ping.url (127.0.0.1), start",
        "ping.url (127.0.0.1), 1",
        f"notify.command ({command})",
    ]
    assert (done.returncode, len(job.results())) == (1, 2)
    left = b"".join(file.read_bytes() for file in job.output.iterdir())
    plan = job("plan", manifest)
    assert "ping-canary" not in done.stdout + done.stderr + plan.stdout + plan.stderr
    assert b"ping-canary" not in left


def test_a_bug_that_prints_the_address_shows_stars():
    settings = PingSettings(Secret("https://hc.example/key/slug/?create=1"))
    said = "https://hc.example/key/slug/start?create=1&rid=1 and https://hc.example/key/slug/?create=1"
    assert "slug" not in scrub_own(said, settings.secrets)
    assert "slug" not in repr(settings)


def test_a_slow_watcher_delays_a_run_by_three_tries_at_most(watcher):
    check = watcher.check(hangs=True)
    (wrong,), waits = told(check.url, started, seconds=0.1)
    assert wrong.startswith("ping.url (127.0.0.1), start: no answer")
    assert waits == [0.0, 0.5, 0.5]


def test_a_name_that_takes_long_to_look_up_is_given_up_too(watcher, monkeypatch):
    look_up, over = socket.getaddrinfo, threading.Event()

    def slow(*arguments, **more):
        over.wait(5)
        return look_up(*arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    (wrong,), waits = told(watcher.check().url, started, seconds=0.1)
    assert wrong == "ping.url (127.0.0.1), start: no answer within 0.1 s"
    assert waits == [0.0, 0.5, 0.5]
    over.set()


@pytest.mark.parametrize("answers", [[DOWN], [DOWN, (429, {}, b"")], [(408, {}, b""), (500, {}, b"")]])
def test_a_watcher_that_is_busy_is_asked_again_and_nobody_hears_of_it(watcher, answers):
    check = watcher.check(answers=[*answers])
    wrong, waits = told(check.url, lambda it: it.ended(News(Exit.OK, "i")))
    assert (wrong, len(waits)) == ([], len(answers) + 1)
    assert [ping.what for ping in check.pings] == ["0"] * len(waits)


@pytest.mark.parametrize(
    ("answer", "says", "tries"),
    [
        (DOWN, "answered 503; redirects are not followed", 3),
        ((404, {}, b""), "answered 404; redirects are not followed", 1),
        ((302, {"Location": "/elsewhere/start"}, b""), "answered 302; redirects are not followed", 1),
        ((200, {}, b"OK (not found)"), "it knows no check at this address", 1),
        ((200, {}, b"OK (rate limited)\n"), "it was pinged too often", 1),
    ],
)
def test_an_answer_that_is_not_a_yes_is_told_in_one_line(watcher, answer, says, tries):
    check = watcher.check(answers=[answer] * 3)
    wrong, waits = told(check.url, started)
    assert wrong == [f"ping.url (127.0.0.1), start: {says}"]
    assert len(check.pings) == len(waits) == tries


@pytest.mark.parametrize(
    ("ends", "query"),
    [
        ("", "rid=01234567-89ab-cdef-0123-456789abcdef"),
        ("/", "rid=01234567-89ab-cdef-0123-456789abcdef"),
        ("?create=1", "create=1&rid=01234567-89ab-cdef-0123-456789abcdef"),
        ("/?create=1#here", "create=1&rid=01234567-89ab-cdef-0123-456789abcdef"),
    ],
)
def test_an_address_may_end_with_a_slash_or_a_query(watcher, ends, query):
    check = watcher.check()
    assert told(f"{check.url}{ends}", started)[0] == []
    assert ([ping.what for ping in check.pings], check.queries) == (["start"], [query])


def test_a_ping_trusts_the_certificates_of_the_job_alone(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with healthchecks(context) as server:
        secret, check = Secret(server.check().url), server.checks["/ping-canary/check-0"]
        quick = {"sleep": lambda _: None}
        assert [*Watcher(secret, {}, **quick).started(RUN)] == [
            "ping.url (127.0.0.1), start: no answer (SSLCertVerificationError)"
        ]
        assert check.pings == []
        assert [*Watcher(secret, {"SSL_CERT_FILE": authority.file}, **quick).started(RUN)] == []
        assert len(check.pings) == 1


@pytest.mark.parametrize("url", ["http://example.com/ping-canary", "ping-canary"])
def test_a_pings_address_that_is_not_encrypted_is_refused_by_name_and_not_shown(play, url):
    job = play()
    job.environment["RECOVERY_PING__URL"] = url
    done = job.run(job.manifest(LISTING))
    assert (done.returncode, job.sandbox.seen) == (2, [])
    assert "RECOVERY_PING__URL" in done.stderr
    assert "ping-canary" not in done.stderr


def test_an_address_in_the_file_or_a_wrong_one_is_not_pinged_even_if_nothing_can_start(tmp_path):
    file = tmp_path / "recovery.toml"
    file.write_text('[pace]\nrequests_per_second = "fast"\n[ping]\nurl = "https://hc.example/key"\n')
    assert load_section_or_defaults(PingSettings, file, {}) == PingSettings()
    file.write_text('[pace]\nrequests_per_second = "fast"\n')
    assert load_section_or_defaults(PingSettings, file, {"RECOVERY_PING__URL": "https://hc.example/key"}).url == Secret(
        "https://hc.example/key"
    )
    assert (
        load_section_or_defaults(PingSettings, file, {"RECOVERY_PING__URL": "http://hc.example/key"}) == PingSettings()
    )
