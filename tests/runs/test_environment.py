"""Environments that misbehave: the run goes on, or says in one line why it cannot."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.core.causes import diagnose
from jobs.core.model import Cause
from jobs.highlevel.api import CallFailed
from tests.helpers.api import client
from tests.helpers.bad_server import FINE, KEEP, Bad, http, serving
from tests.helpers.calls import APP, CALLS, GOOD, HOST, INSTALL, SECRET
from tests.helpers.job import PROJECT
from tests.helpers.lists import listing
from tests.helpers.sockets import accepting
from tests.helpers.waiting import wait_until


def shell(job, script, **more):
    """Run a line of bash with the job's environment; `$RUN` is the run on its manifest."""
    command = f"{sys.executable} -m jobs run {job.folder}/installs.csv --output {job.output}"
    environment = job.environment | {"RUN": command, "PYTHON": sys.executable} | more
    return subprocess.run(
        ["bash", "-c", script], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_netrc_is_not_read(stage):
    job = stage.job
    (job.folder / ".netrc").write_text("default login canary-login password canary-password\n")
    (job.folder / ".netrc").chmod(0o600)
    with serving(lambda *_: (FINE, GOOD)) as server:
        job.environment |= {"HOME": str(job.folder), "HIGHLEVEL_BASE_URL": server.url, "RECOVERY_RETRY__ATTEMPTS": "1"}
        stage.run(job.manifest(listing(1)), job.output)
        assert server.requests
        assert b"authorization:" not in b"".join(server.requests).lower()


@pytest.fixture
def tunnel(authority):
    """A server behind TLS, and a proxy to it: their ports, and all that the proxy was sent before the tunnel stood."""
    heard, refusal = [], []
    inside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(inside)

    def behind(connection):
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65_536)
        heard.append(head)
        if refusal:
            connection.sendall(refusal[0])
            return
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with inside.wrap_socket(connection, server_side=True) as encrypted:
            while encrypted.recv(65_536):
                encrypted.sendall(http(GOOD))

    with accepting(behind) as port:
        yield port, heard, refusal


def api_through(port, authority_file, proxy_variable="HTTPS_PROXY", authority_variable="SSL_CERT_FILE", **more):
    environment = {proxy_variable: f"http://someone:canary-of-the-proxy@127.0.0.1:{port}"} | more
    if authority_file:
        environment[authority_variable] = authority_file
    return client(f"https://{HOST}", environment=environment)


@pytest.mark.parametrize("proxy_variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("authority_variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_proxy_is_gone_through_by_connect_alone_and_the_named_authority_is_trusted(
    tunnel, authority, proxy_variable, authority_variable
):
    port, heard, _ = tunnel
    api = api_through(port, authority.file, proxy_variable, authority_variable)
    assert api.reconnect(APP, INSTALL).value.reveal() == "the-code-1"
    api.close()
    (head,) = heard
    assert head.startswith(f"CONNECT {HOST}:443 HTTP/1.".encode())
    assert SECRET.encode() not in b"".join(heard)


def test_a_certificate_of_an_unknown_authority_is_not_accepted(tunnel):
    with pytest.raises(CallFailed) as failed:
        api_through(tunnel[0], None).reconnect(APP, INSTALL)
    assert diagnose(failed.value.answer) is Cause.NETWORK_ERROR
    assert "certificate" in failed.value.answer.message


@pytest.mark.parametrize(
    "refusal",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", b"HTTP/1.1 502 canary-of-the-proxy\r\n\r\n", b"", b"\x00\xff\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nnot TLS at all, but some other words that go on for a while",
    ],
)  # fmt: skip
def test_a_proxy_that_refuses_is_a_network_error_without_its_password(tunnel, refusal):
    port, _, refusals = tunnel
    refusals.append(refusal)
    with pytest.raises(CallFailed) as failed:
        api_through(port, None).reconnect(APP, INSTALL)
    assert diagnose(failed.value.answer) in {Cause.NETWORK_ERROR, Cause.MALFORMED_ANSWER}
    assert "canary" not in failed.value.answer.message


def test_no_proxy_is_heeded(tunnel):
    with pytest.raises(CallFailed) as failed:
        api_through(tunnel[0], None, NO_PROXY=f"localhost, {HOST}").reconnect(APP, INSTALL)
    assert diagnose(failed.value.answer) is Cause.NETWORK_ERROR
    assert tunnel[1] == []


@pytest.mark.parametrize("name", ["installs.csv", "incident näme.csv", b"inst\xe9lls.csv", b"new\nline \x1b[2J.csv"])
def test_any_locale_and_any_file_name_will_do(play, name):
    job = play()
    path = os.fsencode(job.folder) + b"/" + (name if isinstance(name, bytes) else name.encode())
    Path(os.fsdecode(path)).write_text(listing(2), encoding="utf-8")
    job.environment |= {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "run", path, "--output", job.output],
        cwd=PROJECT, env=job.environment, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    assert job.results()["Loc1"]["name"] == "Näme of Loc1"
    assert job.summary()["counts"]["recovered"] == 2


@pytest.mark.parametrize(
    "folder", ["a?b=c", "a#b", "a%41b", "a;b&c", "with spaces", "näme", "-o", os.fsdecode(b"z\xe9")], ids=ascii
)
def test_any_name_of_an_output_folder_will_do(stage, folder):
    job = stage.job
    manifest = job.manifest(listing(2))
    assert stage.run(manifest, job.folder / folder)["code"] == 0
    assert {file.name for file in (job.folder / folder).iterdir()} >= {"ledger.sqlite3", "results.csv"}
    stage.start("plan", manifest, "--output", job.folder / folder)
    assert stage.end()["code"] == 0
    assert "2 are recovered and left alone" in stage.said()


@pytest.mark.parametrize("skew", [-18_000.0, 18_000.0])
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns"])
def test_a_clock_that_is_hours_off_and_any_time_zone_cost_no_install_and_times_stay_utc(stage, skew, zone):
    job = stage.job
    job.environment["TZ"] = zone
    fine = Bad(lambda good: [_dated(good, skew)], None, KEEP)

    def answer(number, request):
        if b"/oauth/reconnect" in request:
            expires = (datetime.now(UTC) + timedelta(seconds=skew + 20)).isoformat()
            return fine, json.dumps({"authorizationCode": f"code-{number}", "expiresAt": expires}).encode()
        return fine, json.dumps(CALLS["exchange"].good).encode()

    with serving(answer) as server:
        job.environment["HIGHLEVEL_BASE_URL"] = server.url
        assert stage.run(job.manifest("location_id\nLocA\n"), job.output)["code"] == 0
    row = job.results()["LocA"]
    off = datetime.fromisoformat(row["expires_at"]) - datetime.now(UTC) - timedelta(seconds=86_399 + skew)
    assert abs(off.total_seconds()) < 60
    assert abs((datetime.fromisoformat(row["recovered_at"]) - datetime.now(UTC)).total_seconds()) < 60
    assert row["recovered_at"].endswith("Z")


def _dated(good, skew):
    moment = datetime.now(UTC) + timedelta(seconds=skew)
    return http(good, headers=f"Date: {moment:%a, %d %b %Y %H:%M:%S GMT}\r\n")


def test_under_umask_0_every_folder_that_is_made_on_the_way_is_private(stage):
    job = stage.job
    job.environment |= {"HOME": str(job.folder / "home")}
    del job.environment["XDG_STATE_HOME"]
    output = job.folder / "deep" / "deeper" / "out"
    assert stage.run(job.manifest(listing(1)), output, umask=0)["code"] == 0
    made = [
        job.folder / "deep",
        *(job.folder / "deep").rglob("*"),
        job.folder / "home",
        *(job.folder / "home").rglob("*"),
    ]
    assert len(made) >= 10
    assert not [path for path in made if path.stat().st_mode & 0o077]


@pytest.mark.parametrize("script", ["$RUN >&-", "$RUN 2>&-", "$RUN >&- 2>&- <&-", "$RUN >/dev/full 2>/dev/full"])
def test_streams_that_are_closed_or_full_cost_messages_and_never_installs(play, script):
    job = play()
    job.manifest(listing(3))
    done = shell(job, script)
    assert done.returncode == 0, done.stderr
    assert len(job.results()) == 3
    assert "Traceback" not in done.stderr + done.stdout
    assert b"\x00" not in (job.output / "results.csv").read_bytes()


def test_no_file_of_the_job_ever_takes_the_place_of_a_closed_stream(play):
    job = play(latency_seconds=0.05)
    job.manifest(listing(200))
    process = subprocess.Popen(
        ["bash", "-c", f"exec {sys.executable} -m jobs run {job.folder}/installs.csv --output {job.output} <&- >&- 2>&-"],
        cwd=PROJECT, env=job.environment,
    )  # fmt: skip
    try:
        wait_until(lambda: job.sandbox.codes.issued)
        streams = [Path(f"/proc/{process.pid}/fd/{number}").readlink() for number in range(3)]
    except OSError:
        pytest.skip("only root sees the files of a process that may not be dumped")
    finally:
        process.kill()
        process.wait()
    assert streams == [Path(os.devnull)] * 3


@pytest.mark.parametrize("script", ["$RUN | head -1", "$RUN 2>&1 | head -1", "$RUN 2>&1 | true"])
def test_a_reader_that_goes_away_costs_messages_and_never_installs(play, script):
    job = play()
    job.manifest(listing(3))
    done = shell(job, f"{script} >/dev/null; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0, done.stderr
    assert "Exception ignored" not in done.stderr
    assert "Traceback" not in done.stderr
    assert len(job.results()) == 3


@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
def test_only_a_plan_whose_answer_cannot_be_written_fails(play, where):
    job = play()
    job.manifest(listing(3))
    done = shell(job, f"$PYTHON -m jobs plan {job.folder}/installs.csv {where}")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_terminal_that_hangs_up_ends_the_run_gracefully(play):
    job = play(latency_seconds=0.05)
    manifest = job.manifest(listing(300))
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        [
            # These tests may run under nohup.
            "env", "--default-signal=HUP", "setsid", "--ctty",
            sys.executable, "-m", "jobs", "run", manifest, "--output", job.output, "--workers", "2",
        ],
        cwd=PROJECT, env=job.environment, stdin=other_end, stdout=other_end, stderr=other_end,
    )  # fmt: skip
    os.close(other_end)
    wait_until(lambda: len(job.sandbox.codes.issued) > 3)
    os.close(terminal)
    assert process.wait(60) == 129
    counts = job.summary()["counts"]
    assert job.summary()["stopped_because"] == "signal"
    assert counts["recovered"] == len(job.sandbox.codes.issued)
    assert counts["pending"] == 300 - counts["recovered"]


def test_under_nohup_a_hang_up_does_not_stop_the_run(play):
    job = play(latency_seconds=0.02)
    manifest = job.manifest(listing(30))
    process = subprocess.Popen(
        ["nohup", sys.executable, "-m", "jobs", "run", manifest, "--output", job.output, "--workers", "2"],
        cwd=PROJECT, env=job.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: len(job.sandbox.codes.issued) > 3)
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 0
    assert len(job.results()) == 30


def test_from_cron_with_its_bare_environment_and_another_folder(play):
    job = play()
    manifest = job.manifest(listing(2))
    kept = {name: value for name, value in job.environment.items() if name.startswith(("HIGHLEVEL_", "RECOVERY_"))}
    bare = {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "HOME": str(job.folder), "LOGNAME": "root"} | kept
    done = subprocess.run(
        [Path(sys.executable).with_name("recover"), "run", manifest.name, "--output", "out", "--quiet"],
        cwd=job.folder, env=bare, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert len(job.results()) == 2


@pytest.fixture
def stranger():
    """A folder of a user without a name and home, to whom the checkout is not his own; runs a command as him."""
    folder = Path(tempfile.mkdtemp(prefix="stranger-"))
    user = 54_321
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]

    def run(arguments, environment):
        return subprocess.run(
            [*become, sys.executable, "-m", "jobs", *map(str, arguments)],
            cwd=PROJECT, env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    try:
        os.chown(folder, user, user)
        can = subprocess.run(
            [*become, sys.executable, "-c", "import jobs.recovery.runner"],
            cwd=PROJECT,
            capture_output=True,
            check=False,
        )
        if can.returncode:
            pytest.skip("nobody else may read this checkout and its Python")
        yield folder, run
    except (PermissionError, FileNotFoundError):
        pytest.skip("only root, with setpriv, becomes another user")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_user_without_a_name_a_home_or_the_checkout_recovers_into_a_folder_of_his_own(play, stranger):
    job = play()
    folder, run = stranger
    manifest = folder / "installs.csv"
    manifest.write_text(listing(2))
    wanted = ("HIGHLEVEL_", "RECOVERY_", "PATH")
    environment = {name: value for name, value in job.environment.items() if name.startswith(wanted)}
    environment["TMPDIR"] = str(folder)
    done = run(["run", manifest, "--output", folder / "out"], environment)
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("highlevel-recovery-*/*.lock"))) == 1
    refused = run(["run", manifest], environment)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert len(job.sandbox.codes.issued) == 2
