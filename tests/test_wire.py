"""What goes over an open connection is written and read in a short way of our own: it must be the libraries' way."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest
import requests
import trustme
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.transport import Limits, Transport

from .bad_server import KEEP, Bad, http, serving

LIMITS = Limits(5, 5, 5, 10_000)
GOOD = Bad(lambda _: [http(b"{}")], None, KEEP)
PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
NAMES = st.one_of(
    st.from_regex(r"[A-Za-z][A-Za-z0-9\-_.]{0,9}", fullmatch=True),
    st.sampled_from(["Connection", "connection", "Date", "Set-Cookie", "Keep-Alive", "X Y", "", "Trailer"]),
)
VALUES = st.one_of(
    PLAIN,
    st.sampled_from(
        ["close", "Close", "keep-alive", "Keep-Alive", "keep-alive, x", "\t a \t", "é", "a\r\n folded", "1,2"]
    ),
)
LENGTHS = st.sampled_from(
    ["2", " 2 ", "02", "+2", "2_0", "9", "1", "0", "-2", "two", "2, 2", "9" * 30, "9" * 5_000, "²"]
)


@st.composite
def answers(draw):
    """An answer, mostly good, with what servers, proxies and attackers put into a head."""
    status = draw(
        st.sampled_from(["200 OK", "201", "204 No Content", "304 Not", "422 No", "429 Slow down", "500 é", "099 x"])
    )
    version = draw(st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2", "http/1.1"]))
    fields = draw(st.lists(st.tuples(NAMES, VALUES), max_size=5))
    fields.insert(
        draw(st.integers(0, len(fields))), (draw(st.sampled_from(["Content-Length", "content-LENGTH"])), draw(LENGTHS))
    )
    end = draw(st.sampled_from(["\r\n", "\r\n", "\r\n", "\n"]))
    lines = [
        f"{version} {status}",
        *(f"{name}:{draw(st.sampled_from([' ', '']))}{value}" for name, value in fields),
        "",
        "",
    ]
    return end.join(lines).encode("latin-1") + b"{}"


def came(transport, request):
    """What a caller sees of the answer."""
    try:
        raw = transport.send(request)
    except (requests.RequestException, OSError) as error:
        return type(error)
    # A line that goes on in the next one, urllib3 makes one of on a new connection.
    fields = {name.lower(): " ".join(raw.headers[name].split()) for name in raw.headers}
    return raw.status, fields, raw.body, raw.whole


@settings(max_examples=150, deadline=None)
@given(answers())
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\nDate: x\r\n\r\n{}")
@example(b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 1\r\n\r\n{}")
@example(b"HTTP/1.1 200 Retry-After: 9\r\nContent-Length: 2\r\n\r\n{}")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + b"A: b\r\n" * 98 + b"\r\n{}")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + b"A: b\r\n" * 99 + b"\r\n{}")
def test_an_answer_is_the_same_on_an_open_connection_as_on_a_new_one(answer):
    said = Bad(lambda _: [answer], None)
    with serving(lambda number, _: (GOOD if number == 2 else said, b"")) as server:
        request = requests.Request("POST", server.url, json={"a": 1}).prepare()
        transport = Transport(server.url, LIMITS, {})
        on_a_new_one = came(transport, request)
        transport.close_mine()
        assert came(transport, request)[0] == 200
        on_an_open_one = came(transport, request)
        transport.close()
        assert server.connections == 2
    assert on_an_open_one == on_a_new_one


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


def test_what_lies_behind_an_answer_in_a_tls_record_never_becomes_the_next_answer(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    # The reader takes 8,192 bytes; what is decrypted beyond them, no `select` sees.
    filling = b"{}" + b" " * (8_192 - len(http(b" " * 8_000)) + 7_998)
    answers = [http(filling) + http(b'{"code": "stale"}'), http(b'{"code": "fresh"}')]

    def answer(server):
        for said in answers:
            connection, _ = server.accept()
            with context.wrap_socket(connection, server_side=True) as encrypted:
                while encrypted.recv(65_536):
                    encrypted.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        transport = Transport(url, LIMITS, {"REQUESTS_CA_BUNDLE": str(tmp_path / "authority.pem")})
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
        with pytest.raises(ValueError, match="line"):
            transport.send(request)
        transport.close()
        assert len(server.requests) == 1
