"""A connection that is kept: what goes over it is what goes over a new one, and no answer leaves anything to the next."""

from __future__ import annotations

import ssl

import pytest
import requests

from jobs.highlevel.transport import Limits, Transport
from tests.helpers.bad_server import KEEP, Bad, http, serving
from tests.helpers.sockets import accepting

LIMITS = Limits(5, 5, 5, 10_000)
GOOD = Bad(lambda _: [http(b"{}")], None, KEEP)


def test_what_is_sent_on_an_open_connection_is_what_the_libraries_send_on_a_new_one():
    with serving(lambda *_: (GOOD, b"")) as server:
        url = f"{server.url}/a/b?c=d%20e"
        headers = {"User-Agent": "recovery/1", "Accept-Encoding": "identity"}  # What would be added is said already.
        request = requests.Request("POST", url, json={"name": "Zoë"}, headers=headers).prepare()
        transport = Transport(server.url, LIMITS, {})
        for _ in range(2):
            assert transport.send(request).status == 200
        transport.close()
        assert server.connections == 1
        sent = server.requests

    def parts(data):
        head, _, body = data.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        return line, sorted(field.lower() for field in fields), body

    assert len(sent) == 2
    assert parts(sent[1]) == parts(sent[0])


NOTHING = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "answer", "connections"),
    [
        ("POST", NOTHING, 1),
        ("POST", http(), 1),
        ("POST", http(b"{}", "202 Accepted"), 1),
        ("POST", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 1),
        ("HEAD", http(length=900), 1),
        ("POST", http(status="204 No Content", length_line="Connection: close\r\n"), 3),
        ("POST", NOTHING + http(b"{}"), 3),
        ("POST", b"HTTP/1.1 304 Not Modified\r\n\r\n", 3),
        ("POST", http(status="302 Found", headers="Location: /\r\n"), 3),
    ],
    ids=str,
)
def test_an_answer_without_a_body_keeps_its_connection_unless_it_says_or_leaves_more(method, answer, connections):
    with serving(lambda *_: (Bad(lambda _: [answer], None, KEEP), b"")) as server:
        request = requests.Request(method, server.url, data=b"a").prepare()
        transport = Transport(server.url, LIMITS, {})
        raws = [transport.send(request) for _ in range(3)]
        transport.close()
        assert {raw.whole for raw in raws} == {True}
        assert len({(raw.status, raw.body) for raw in raws}) == 1
        assert len(server.requests) == 3
        assert server.connections == connections


def test_more_than_an_answer_ends_its_connection_at_once():
    with serving(
        lambda number, _: (Bad(lambda _: [http(b"{}") + (http(b"[]")[:9] if number == 1 else b"")], None, KEEP), b"")
    ) as server:
        request = requests.Request("POST", server.url, data=b"a").prepare()
        transport = Transport(server.url, LIMITS, {})
        for _ in range(3):
            assert transport.send(request).body == b"{}"
        transport.close()
        assert server.connections == 2


def test_what_follows_an_answer_in_a_tls_record_never_becomes_the_next_answer(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    # The reader takes 8,192 bytes; what is decrypted beyond them, no `select` sees.
    filling = b"{}" + b" " * (8_192 - len(http(b" " * 8_000)) + 7_998)
    answers = iter([http(filling) + http(b'{"code": "stale"}'), http(b'{"code": "fresh"}')])

    def serve(connection):
        said = next(answers)
        with context.wrap_socket(connection, server_side=True) as encrypted:
            while encrypted.recv(65_536):
                encrypted.sendall(said)

    with accepting(serve) as port:
        url = f"https://127.0.0.1:{port}"
        transport = Transport(url, LIMITS, {"REQUESTS_CA_BUNDLE": authority.file})
        request = requests.Request("POST", url, data=b"a").prepare()
        assert transport.send(request).body.strip() == b"{}"
        assert transport.send(request).body == b'{"code": "fresh"}'
        transport.close()


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\n", "a\rb"])
def test_no_header_holds_a_line_end_on_an_open_connection_either(value):
    with serving(lambda *_: (GOOD, b"")) as server:
        request = requests.Request("POST", server.url, data=b"a").prepare()
        transport = Transport(server.url, LIMITS, {})
        assert transport.send(request).status == 200
        request.headers["X-One"] = value
        with pytest.raises(ValueError, match="header value"):
            transport.send(request)
        transport.close()
        assert len(server.requests) == 1
