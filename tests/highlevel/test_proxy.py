"""What lies between the job and HighLevel is told by its own name: the proxy, the certificates, this machine."""

from __future__ import annotations

import errno
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NewConnectionError

from jobs.config.apps import base_url
from jobs.core.errors import UserError
from jobs.core.model import Cause
from jobs.highlevel.api import CallFailed, LocalFailure
from jobs.highlevel.proxy import check_way_out
from jobs.highlevel.reasons import Attempted, of_this_machine, why_unreachable
from tests.helpers.api import client
from tests.helpers.bad_server import http
from tests.helpers.calls import APP, GOOD, HOST, INSTALL
from tests.helpers.job import PROJECT
from tests.helpers.sockets import accepting


def encrypted(certificate, *, newest=None):
    """Plays a server behind TLS with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if newest is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, newest

    def serve(connection):
        with context.wrap_socket(connection, server_side=True) as inside:
            while inside.recv(65_536):
                inside.sendall(http(GOOD))

    return serve


def met(url, seconds=10.0, **environment):
    """What is told where no connection can be made."""
    with pytest.raises(CallFailed) as failed:
        client(url, seconds=seconds, environment=environment).reconnect(APP, INSTALL)
    answer = failed.value.answer
    assert (answer.cause, answer.never_left) == (Cause.NETWORK_ERROR, True)
    assert len(answer.message) <= 300
    return answer.message


# -- certificates ------------------------------------------------------------------------------------------------


def expired(authority):
    return authority.issue_cert("127.0.0.1", not_after=datetime.now(UTC) - timedelta(days=1))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize(
    ("server", "trusts", "told"),
    [
        (lambda authority: encrypted(expired(authority)), True, "certificate that has expired"),
        (lambda authority: encrypted(authority.issue_cert("other.example")), True, "certificate for another name"),
        (lambda authority: encrypted(authority.issue_cert("127.0.0.1")), False, "unknown authority"),
        (lambda _: lambda connection: connection.sendall(http(b"{}", "400 Bad Request")), True, "does not speak TLS"),
        (
            lambda authority: encrypted(authority.issue_cert("127.0.0.1"), newest=ssl.TLSVersion.TLSv1_1),
            True,
            "a TLS that is too old",
        ),
    ],
    ids=["expired", "another name", "unknown authority", "plain http", "an old TLS"],
)
def test_what_is_wrong_with_a_certificate_or_tls_has_its_own_text_which_says_what_to_do(
    authority, server, trusts, told
):
    trust = {"SSL_CERT_FILE": authority.file} if trusts else {}
    with accepting(server(authority)) as port:
        said = met(f"https://127.0.0.1:{port}", **trust)
    assert told in said
    assert f"127.0.0.1:{port}" in said
    assert ": " in said.partition(f"{port} ")[2]  # What to do.


# -- proxies -----------------------------------------------------------------------------------------------------


def through(proxy, **more):
    return met(f"https://{HOST}", HTTPS_PROXY=proxy, **more)


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def says(answer):
    def serve(connection):
        connection.recv(65_536)
        connection.sendall(answer)

    return serve


def test_a_proxy_whose_port_is_closed_is_named_and_so_is_the_variable_that_names_it():
    port = closed_port()
    said = through(f"http://someone:canary@127.0.0.1:{port}")
    assert said == f"the proxy 127.0.0.1:{port} refused the connection: check HTTPS_PROXY, and that it is up"


def test_a_proxy_of_an_unknown_name_is_told_as_that_and_not_as_highlevels():
    said = through("http://proxy.invalid:3128")
    assert said.startswith("the proxy proxy.invalid:3128 is an unknown host: check HTTPS_PROXY")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "asks for a user and a password (407): put the right ones"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", f"does not permit a connection to {HOST} (403): have it allowed there"),
        (b"HTTP/1.1 502 canary\r\n\r\n", f"answered 502 when asked for a connection to {HOST}"),
        (b"SSH-2.0-OpenSSH\r\n", "does not answer as a proxy does: check HTTPS_PROXY"),
        (b"", "closed the connection without an answer: check HTTPS_PROXY"),
    ],
    ids=["407", "403", "502", "no proxy", "closed"],
)  # fmt: skip
def test_what_a_proxy_answers_is_told_with_its_name_its_answer_and_what_to_do(answer, told):
    with accepting(says(answer)) as port:
        said = through(f"http://someone:canary@127.0.0.1:{port}")
    assert said.startswith(f"the proxy 127.0.0.1:{port} {told}")
    assert "canary" not in said


def test_a_proxy_that_gives_no_answer_is_told_as_late():
    with accepting(lambda connection: connection.recv(65_536) and connection.recv(1)) as port:
        said = through(f"http://127.0.0.1:{port}", seconds=1.0)
    assert said.startswith(f"the proxy 127.0.0.1:{port} gave no answer in time: check HTTPS_PROXY")


def test_a_proxy_that_drips_its_answer_is_given_up_in_time():
    def drip(connection):
        connection.recv(65_536)
        while True:
            connection.sendall(b"H")
            threading.Event().wait(0.05)

    with accepting(drip) as port:
        assert "the proxy" in through(f"http://127.0.0.1:{port}", seconds=1.0)


def test_a_proxy_that_speaks_no_tls_though_https_is_named_is_told_as_that():
    with accepting(says(http(b"", "400 Bad Request"))) as port:
        said = through(f"https://127.0.0.1:{port}")
    assert said.startswith(f"the proxy 127.0.0.1:{port} does not speak TLS")


def test_what_is_wrong_behind_a_proxys_tunnel_is_not_the_proxys(authority):
    def serve(connection):
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        encrypted(authority.issue_cert("other.example"))(connection)

    with accepting(serve) as port:
        said = through(f"http://127.0.0.1:{port}", SSL_CERT_FILE=authority.file)
    assert said.startswith(f"{HOST} showed a certificate for another name")
    assert said.endswith(f"(through the proxy 127.0.0.1:{port})")


# -- addresses ---------------------------------------------------------------------------------------------------

NO_PORTS = [":0", ":65536", ":99999", ":-1", ":http", ":８０", ":", ":8 0"]


@pytest.mark.parametrize("port", NO_PORTS)
def test_a_base_url_with_a_port_that_is_not_valid_is_refused_at_the_start(port):
    for url in (f"https://api.example{port}", f"http://127.0.0.1{port}/x", f"https://[::1]{port}"):
        with pytest.raises(UserError, match="HIGHLEVEL_BASE_URL"):
            base_url({"HIGHLEVEL_BASE_URL": url})


@pytest.mark.parametrize("proxy", [*(f"http://proxy.example{port}" for port in NO_PORTS), "http://", "socks5://a:1"])
def test_a_proxy_that_cannot_be_used_is_refused_at_the_start_by_the_variable_that_names_it(proxy):
    with pytest.raises(UserError, match="https_proxy: does not name a proxy"):
        check_way_out("https://api.example", {"https_proxy": proxy})


# -- this machine ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EMFILE, "no file descriptor left"),
        (errno.ENFILE, "no file descriptor left"),
        (errno.EADDRNOTAVAIL, "no local port left"),
        (errno.EPERM, "does not permit a connection to api.example"),
        (errno.EACCES, "does not permit a connection to api.example"),
        (errno.ENOBUFS, "no memory left"),
    ],
)
def test_what_this_machine_lacks_is_told_as_this_machines(number, told):
    error = OSError("canary")
    error.__cause__ = OSError(number, "canary")
    said = of_this_machine(error, "api.example")
    assert said.startswith("this machine ")
    assert told in said
    assert ": " in said


@pytest.mark.parametrize(
    "error", [ssl.SSLError(1, "x"), socket.gaierror(1, "x"), TimeoutError(), ConnectionRefusedError()]
)
def test_what_others_are_at_fault_for_is_not_this_machines(error):
    assert of_this_machine(error, "api.example") == ""


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EHOSTUNREACH])
def test_a_network_without_a_way_is_told_so_and_not_as_late(number):
    error = NewConnectionError(HTTPConnection("api.example"), "canary")
    error.__cause__ = OSError(number, "canary")
    said = why_unreachable(error, Attempted("api.example"))
    assert said == "this machine's network has no way to api.example: check that it is online"


def test_a_socket_that_cannot_be_had_is_this_machines_fault():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    api = client("http://127.0.0.1:9")
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(LocalFailure, match="ulimit -n"):
            api.reconnect(APP, INSTALL)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def with_descriptors(job, count, *arguments):
    """A run of the job that may open so many files. It is not measured: coverage opens files too."""
    environment = {name: value for name, value in job.environment.items() if name != "COVERAGE_PROCESS_CONFIG"}
    command = f"ulimit -n {count}; exec {sys.executable} -m jobs run {job.folder}/installs.csv --output {job.output}"
    return subprocess.run(
        ["bash", "-c", f"{command} {' '.join(arguments)}"], cwd=PROJECT, env=environment, capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("count", [24, 26])
def test_where_connections_need_more_descriptors_than_there_are_the_run_stops_and_the_rest_is_pending(play, count):
    job = play(latency_seconds=0.2)
    job.manifest("location_id\n" + "".join(f"Loc{n}\n" for n in range(60)))
    done = with_descriptors(job, count, "--workers", "20")
    assert done.returncode == 3, done.stderr
    summary = job.summary()
    assert summary["stopped_because"] == "outage"
    assert "this machine has no file descriptor left" in done.stderr + done.stdout
    assert summary["counts"]["failed"] == 0
    assert summary["counts"]["recovered"] == len(job.results().keys()) - summary["counts"]["pending"]
    assert {row["attempts"] for row in job.results().values() if row["status"] == "pending"} == {"0"}


def test_with_however_few_descriptors_a_run_ends_with_reports_or_one_line_and_never_a_traceback(play):
    job = play()
    job.manifest("location_id\nLocA\nLocB\n")
    codes = []
    for count in range(5, 40):
        shutil.rmtree(job.output, ignore_errors=True)
        done = with_descriptors(job, count)
        codes.append(done.returncode)
        assert "Traceback" not in done.stderr
        assert done.returncode in {0, 2, 3}, (count, done.stderr)
        if done.returncode == 2:
            assert "ulimit -n" in done.stderr, (count, done.stderr)
        else:
            assert len(job.results()) == 2, count
        if codes[-3:] == [0, 0, 0]:
            break  # There are enough from here on.
    assert {*codes} >= {0, 2}
