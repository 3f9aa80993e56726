"""The two calls: what leaves, and which answers are believed."""

from __future__ import annotations

import itertools
import json
from urllib.parse import parse_qs

import pytest
import requests.exceptions

from jobs.core.causes import diagnose
from jobs.core.model import Cause
from jobs.highlevel.api import CallFailed
from tests.helpers.api import AGENCY, APP, DATE, GOOD, LOCATION, Gate, client, over
from tests.helpers.bad_server import CLOSE, Bad, http, serving


def code(net, api, **more):
    body = {"authorizationCode": "the-code-1", "expiresAt": "2026-11-24T10:00:30.000Z", **more}
    net.answer("/oauth/reconnect", body, headers=DATE)
    return api.reconnect(APP, LOCATION)


def exchanged(net, body, install=LOCATION, **more):
    api = over(net)
    got = code(net, api)
    net.answer(
        "/oauth/token",
        body,
        headers=DATE,
        **more,
    )
    return api.exchange(APP, install, got)


def cause(net, body, install=LOCATION, **more):
    with pytest.raises(CallFailed) as failed:
        exchanged(net, body, install, **more)
    return diagnose(failed.value.answer)


def test_reconnect_sends_json_and_one_id(net):
    code(net, over(net))
    sent = net.sent[0]
    assert json.loads(sent.body) == {"clientKey": "client-1", "clientSecret": "s3cret/value+x", "locationId": "LocA"}
    assert sent.headers["Content-Type"] == "application/json"
    assert sent.headers["User-Agent"] == "highlevel-recovery/0.1.0"


def test_the_token_call_sends_a_form_with_user_type_and_the_redirect_uri_where_configured(net):
    tokens = exchanged(net, GOOD)
    form = parse_qs(net.sent[1].body)
    assert form == {
        "client_id": ["client-1"], "client_secret": ["s3cret/value+x"], "grant_type": ["authorization_code"],
        "code": ["the-code-1"], "user_type": ["Location"], "redirect_uri": ["https://me.example/cb"],
    }  # fmt: skip
    assert "Version" not in net.sent[1].headers
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
    api = over(net, gate=gate)
    got = code(net, api)
    net.answer("/oauth/token", GOOD)
    api.exchange(APP, LOCATION, got)
    assert gate.urgent == [False, True]


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
    assert len(net.sent) == 2


def test_an_unreadable_lifetime_leaves_expires_at_empty(net):
    assert exchanged(net, GOOD | {"expires_in": "soon"}).expires_at == ""


def test_a_code_past_its_time_by_the_servers_clock_is_not_sent(net):
    moment = [0.0]
    api = over(net, clock=lambda: moment[0])
    got = code(net, api)
    moment[0] = 31.0
    with pytest.raises(CallFailed) as failed:
        api.exchange(APP, LOCATION, got)
    assert diagnose(failed.value.answer) is Cause.CODE_REJECTED
    assert len(net.sent) == 1


@pytest.mark.parametrize("expires", [None, "soon", 17, "2026-13-45"])
def test_an_unreadable_expiry_holds_no_code_back(net, expires):
    assert not code(net, over(net), expiresAt=expires).expired()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("1.5", 1.5), ("Tue, 24 Nov 2026 10:00:20 GMT", 20.0), ("-3", None), ("later", None)],
)
def test_retry_after_is_read_in_seconds_or_as_a_date_by_the_servers_clock(net, header, seconds):
    gate = Gate()
    net.answer("/oauth/reconnect", status=429, headers={**DATE, "Retry-After": header})
    with pytest.raises(CallFailed):
        over(net, gate=gate).reconnect(APP, LOCATION)
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
    net.answer("/oauth/reconnect", body=error)
    with pytest.raises(CallFailed) as failed:
        over(net).reconnect(APP, LOCATION)
    assert diagnose(failed.value.answer) is Cause.NETWORK_ERROR
    assert words in failed.value.answer.message
    assert "s3cret" not in failed.value.answer.message


def answering(content, drip=0.0):
    """A server that answers each request with these bytes; for ever, and one at a time, where they drip."""
    pieces = (bytes([byte]) for byte in itertools.cycle(content)) if drip else [content]
    return serving(lambda *_: (Bad(lambda _: pieces, None, CLOSE, drip), b""))


@pytest.mark.parametrize("content", [b"HTTP/1.1 200 OK\r\nX-Slow: yes\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_drip_ends_at_the_total_time_limit(content):
    with answering(content, drip=0.02) as server, pytest.raises(CallFailed) as failed:
        client(server.url, seconds=0.4).reconnect(APP, LOCATION)
    assert diagnose(failed.value.answer) in {Cause.NETWORK_ERROR, Cause.MALFORMED_ANSWER}


def test_a_dripping_body_ends_at_the_total_time_limit():
    drip = Bad(lambda _: itertools.chain([http(length=900)], itertools.repeat(b"x")), None, CLOSE, 0.02)
    with serving(lambda *_: (drip, b"")) as server, pytest.raises(CallFailed):
        client(server.url, seconds=0.8).reconnect(APP, LOCATION)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", Cause.MALFORMED_ANSWER),
        (b"HTTP/1.1 500 No\r\nContent-Length: 900\r\n\r\n{", Cause.SERVER_ERROR),
        (b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Cause.MALFORMED_ANSWER),
        (b"", Cause.NETWORK_ERROR),
        (b"garbage\r\n\r\n", Cause.NETWORK_ERROR),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 500_000, Cause.MALFORMED_ANSWER),
    ],
)
def test_an_answer_that_is_cut_off_or_no_http_has_its_cause(content, expected):
    with answering(content) as server, pytest.raises(CallFailed) as failed:
        client(server.url).reconnect(APP, LOCATION)
    assert diagnose(failed.value.answer) is expected


def test_loopback_is_never_sent_through_a_proxy_and_netrc_is_not_read():
    proxies = {"http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}
    with answering(http(b'{"authorizationCode": "c"}')) as server:
        assert client(server.url, environment=proxies).reconnect(APP, AGENCY).value.reveal() == "c"
