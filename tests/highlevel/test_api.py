"""The two calls: what leaves, and which answers are believed."""

from __future__ import annotations

import json
import socket
import threading
import time
from datetime import UTC, datetime
from urllib.parse import parse_qs

import pytest
import requests.exceptions
import responses

from jobs.core.causes import diagnose
from jobs.core.model import App, Cause, Install, InstallKey, Level
from jobs.core.secret import Secret
from jobs.highlevel.api import CallFailed, HighLevel, Limits

# Connections are made to it, but what is sent to it, `responses` answers.
LISTENING = socket.create_server(("127.0.0.1", 0), backlog=4_096)
BASE = f"http://127.0.0.1:{LISTENING.getsockname()[1]}"
APP = App("client-1", Secret("s3cret/value+x"), redirect_uri="https://me.example/cb")
LOCATION = Install(InstallKey("client-1", Level.SUB_ACCOUNT, "LocA"), "CoA")
AGENCY = Install(InstallKey("client-1", Level.AGENCY, "CoA"), "CoA")
GOOD = {
    "access_token": "access.jwt", "refresh_token": "refresh.jwt", "token_type": "Bearer", "expires_in": 86399,
    "scope": "a b", "userType": "Location", "locationId": "LocA", "companyId": "CoA", "userId": "u", "new": [1],
}  # fmt: skip
DATE = {"Date": "Tue, 24 Nov 2026 10:00:00 GMT"}


class Gate:
    """Lets everything out and remembers."""

    def __init__(self):
        self.entered, self.observed, self.withdrawn = [], [], []

    def enter(self, *, urgent, resource):
        self.entered.append(urgent)
        return len(self.entered) - 1

    def withdraw(self, number):
        self.withdrawn.append(number)

    def observe(self, number, status, retry_after, headers):
        self.observed.append((status, retry_after))


def make(base=BASE, gate=None, clock=time.monotonic, total=5.0, environment=None):
    return HighLevel(
        base_url=base, limits=Limits(2, 2, total, 10_000), gate=gate or Gate(), clock=clock,
        now=lambda: datetime(2026, 11, 24, 10, tzinfo=UTC), user_agent="highlevel-recovery/0.1.0",
        environment=environment or {},
    )  # fmt: skip


@pytest.fixture
def net():
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def code(net, api, **more):
    body = {"authorizationCode": "the-code-1", "expiresAt": "2026-11-24T10:00:30.000Z", **more}
    net.post(f"{BASE}/oauth/reconnect", json=body, headers=DATE)
    return api.reconnect(APP, LOCATION)


def exchanged(net, body, install=LOCATION, **more):
    api = make()
    got = code(net, api)
    net.post(
        f"{BASE}/oauth/token",
        **({"json": body} if not isinstance(body, bytes) else {"body": body}),
        headers=DATE,
        **more,
    )
    return api.exchange(APP, install, got)


def cause(net, body, install=LOCATION, **more):
    with pytest.raises(CallFailed) as failed:
        exchanged(net, body, install, **more)
    return diagnose(failed.value.answer)


def test_reconnect_sends_json_and_one_id(net):
    code(net, make())
    sent = net.calls[0].request
    assert json.loads(sent.body) == {"clientKey": "client-1", "clientSecret": "s3cret/value+x", "locationId": "LocA"}
    assert sent.headers["Content-Type"] == "application/json"
    assert sent.headers["User-Agent"] == "highlevel-recovery/0.1.0"


def test_the_token_call_sends_a_form_with_user_type_and_the_redirect_uri_where_configured(net):
    tokens = exchanged(net, GOOD)
    form = parse_qs(net.calls[1].request.body)
    assert form == {
        "client_id": ["client-1"], "client_secret": ["s3cret/value+x"], "grant_type": ["authorization_code"],
        "code": ["the-code-1"], "user_type": ["Location"], "redirect_uri": ["https://me.example/cb"],
    }  # fmt: skip
    assert "Version" not in net.calls[1].request.headers
    assert tokens.access_token.reveal() == "access.jwt"
    assert tokens.expires_at == "2026-11-25T09:59:59Z"


def test_camel_case_is_read_as_well(net):
    camel = {
        "accessToken": "a",
        "refreshToken": "r",
        "expiresIn": 1,
        **{k: GOOD[k] for k in ("userType", "locationId")},
    }
    assert exchanged(net, camel).refresh_token.reveal() == "r"


@pytest.mark.parametrize("status", [200, 201, 202, 203])
def test_any_success_that_holds_a_pair_is_one_and_a_long_scope_is_kept_whole(net, status):
    scope = " ".join(f"resource{n}.readonly" for n in range(400))
    assert exchanged(net, GOOD | {"scope": scope}, status=status).scope == scope


def test_the_exchange_goes_before_others_at_the_gate(net):
    gate = Gate()
    api = make(gate=gate)
    got = code(net, api)
    net.post(f"{BASE}/oauth/token", json=GOOD)
    api.exchange(APP, LOCATION, got)
    assert gate.entered == [False, True]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"locationId": "Other"}, Cause.WRONG_ACCOUNT),
        ({"userType": "Company"}, Cause.WRONG_USER_TYPE),
        ({"userType": "Company", "locationId": None}, Cause.WRONG_USER_TYPE),
        ({"userType": None}, Cause.MALFORMED_ANSWER),
        ({"locationId": None}, Cause.MALFORMED_ANSWER),
        ({"access_token": None}, Cause.MALFORMED_ANSWER),
        ({"refresh_token": 5}, Cause.MALFORMED_ANSWER),
        ({"access_token": "with\x1bescape"}, Cause.MALFORMED_ANSWER),
        ({"access_token": "x" * 17_000}, Cause.MALFORMED_ANSWER),
    ],
)
def test_an_answer_is_believed_only_where_it_holds_what_it_must(net, change, expected):
    assert cause(net, GOOD | change) is expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"<html>",
        b'{"a": NaN}',
        b"[" * 9_000,
        b'{"n": ' + b"9" * 5_000 + b"}",
        b"\xff\xfe{",
        b"x" * 20_000,
    ],
)
def test_a_body_that_is_not_a_json_object_is_malformed(net, body):
    assert cause(net, body) is Cause.MALFORMED_ANSWER


@pytest.mark.parametrize("status", [204, 302, 304])
def test_a_redirect_or_an_empty_success_is_malformed_and_never_followed(net, status):
    assert cause(net, b"", status=status) is Cause.MALFORMED_ANSWER
    assert len(net.calls) == 2


def test_an_unreadable_lifetime_leaves_expires_at_empty(net):
    assert exchanged(net, GOOD | {"expires_in": "soon"}).expires_at == ""


def test_a_code_past_its_time_by_the_servers_clock_is_not_sent(net):
    moment = [0.0]
    api = make(clock=lambda: moment[0])
    got = code(net, api)
    moment[0] = 31.0
    with pytest.raises(CallFailed) as failed:
        api.exchange(APP, LOCATION, got)
    assert diagnose(failed.value.answer) is Cause.CODE_REJECTED
    assert len(net.calls) == 1


@pytest.mark.parametrize("expires", [None, "soon", 17, "2026-13-45"])
def test_an_unreadable_expiry_holds_no_code_back(net, expires):
    assert not code(net, make(), expiresAt=expires).expired()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("1.5", 1.5), ("Tue, 24 Nov 2026 10:00:20 GMT", 20.0), ("-3", None), ("later", None)],
)
def test_retry_after_is_read_in_seconds_or_as_a_date_by_the_servers_clock(net, header, seconds):
    gate = Gate()
    net.post(f"{BASE}/oauth/reconnect", status=429, headers={**DATE, "Retry-After": header})
    with pytest.raises(CallFailed):
        make(gate=gate).reconnect(APP, LOCATION)
    assert gate.observed == [(429, seconds)]


def test_a_secret_that_is_echoed_anywhere_is_starred_out(net):
    echo = {
        "message": "got s3cret/value+x and s3cret%2Fvalue%2Bx the-code-1",
        "error": "the-code-1",
        "traceId": "the-code-1",
    }
    with pytest.raises(CallFailed) as failed:
        exchanged(net, echo, status=400)
    answer = failed.value.answer
    for secret in ("s3cret", "the-code-1"):
        assert secret not in answer.message + answer.says + answer.trace_id + str(failed.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (requests.exceptions.ConnectTimeout("s3cret"), "could not be reached in time"),
        (requests.exceptions.SSLError("s3cret"), "SSLError"),
        (ConnectionResetError("s3cret"), "closed the connection"),
    ],
)
def test_where_no_answer_came_the_reason_is_said_in_our_words(net, error, words):
    net.post(f"{BASE}/oauth/reconnect", body=error)
    with pytest.raises(CallFailed) as failed:
        make().reconnect(APP, LOCATION)
    assert diagnose(failed.value.answer) is Cause.NETWORK_ERROR
    assert words in failed.value.answer.message
    assert "s3cret" not in failed.value.answer.message


@pytest.fixture
def raw():
    """A server that answers each connection with the bytes given, one at a time where asked."""
    servers = []

    def serve(content, drip=0.0, close=True):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def answer():
            while True:
                try:
                    connection, _ = server.accept()
                    connection.recv(65_536)
                    for piece in [content] if not drip else [content[i : i + 1] for i in range(len(content))]:
                        connection.sendall(piece)
                        time.sleep(drip)
                    if close:
                        connection.close()
                except OSError:
                    if server.fileno() < 0:
                        return

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}"

    yield serve
    for server in servers:
        server.close()


@pytest.mark.parametrize("content", [b"HTTP/1.1 200 OK\r\nX-Slow: yes\r\n" * 40, b"HTTP/1.1 100 Continue\r\n\r\n" * 60])
def test_a_drip_ends_at_the_total_time_limit(raw, content):
    began = time.monotonic()
    with pytest.raises(CallFailed) as failed:
        make(raw(content, drip=0.02), total=0.4).reconnect(APP, LOCATION)
    assert time.monotonic() - began < 3
    assert diagnose(failed.value.answer) in {Cause.NETWORK_ERROR, Cause.MALFORMED_ANSWER}


def test_a_dripping_body_ends_at_the_total_time_limit(raw):
    began = time.monotonic()
    with pytest.raises(CallFailed):
        make(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b"x" * 900, drip=0.01), total=0.8).reconnect(
            APP, LOCATION
        )
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", Cause.MALFORMED_ANSWER),
        (b"HTTP/1.1 500 No\r\nContent-Length: 900\r\n\r\n{", Cause.SERVER_ERROR),
        (b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Cause.MALFORMED_ANSWER),
        (b"", Cause.NETWORK_ERROR),
        (b"garbage\r\n\r\n", Cause.NETWORK_ERROR),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 50_000, Cause.MALFORMED_ANSWER),
    ],
)
def test_an_answer_that_is_cut_off_or_no_http_has_its_cause(raw, content, expected):
    with pytest.raises(CallFailed) as failed:
        make(raw(content)).reconnect(APP, LOCATION)
    assert diagnose(failed.value.answer) is expected


def test_loopback_is_never_sent_through_a_proxy_and_netrc_is_not_read(raw, tmp_path):
    body = json.dumps({"authorizationCode": "c"}).encode()
    base = raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    api = make(base, environment={"http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"})
    assert api.reconnect(APP, AGENCY).value.reveal() == "c"
