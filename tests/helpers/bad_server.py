"""A server that misbehaves on raw sockets, and the table of what it does: one row an answer, whatever the call.

A new call of the API is one more entry of `CALLS` in test_bad_server.py; every row is played to it.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from jobs.core.model import Cause
from tests.helpers.sockets import accepting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

KEEP, CLOSE, RESET, STALL = "keep", "close", "reset", "stall"
LOST, UNUSABLE = Cause.NETWORK_ERROR, Cause.MALFORMED_ANSWER


@dataclass(frozen=True)
class Bad:
    """What is sent for a good body, piece by piece, what becomes of the connection then, and the cause it must have.

    `pause` are the seconds between two pieces: a slow one must be ended by the limit on the whole answer.
    """

    send: Callable[[bytes], Iterable[bytes]]
    cause: Cause | None
    end: str = CLOSE
    pause: float = 0.0


def http(body=b"", status="200 OK", headers="", length=None, length_line=None):
    """An HTTP answer; `length` may lie."""
    line = length_line if length_line is not None else f"Content-Length: {len(body) if length is None else length}\r\n"
    return f"HTTP/1.1 {status}\r\n{line}{headers}\r\n".encode("latin-1") + body


FINE = Bad(lambda good: [http(good)], None, KEEP)


def _all(content):
    return lambda _: [content]


def _with(make):
    return lambda good: [make(good)]


def _bytes_of(make):
    return lambda good: (bytes([byte]) for byte in make(good))


def _for_ever(begin, piece):
    def send(_):
        yield begin
        while True:
            yield piece

    return send


def _says(message, status="400 Bad Request", **more):
    return http(json.dumps({"message": message, **more}).encode(), status)


def _body(body, cause=UNUSABLE):
    return Bad(_all(http(body)), cause, KEEP)


def _packed(body, encoding):
    return http(body, headers=f"Content-Encoding: {encoding}\r\n")


_BOMB = gzip.compress(bytes(64 << 20), 9)
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunks(good):
    return _CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(good), good)


BAD: dict[str, Bad] = {
    # No answer, or half of one.
    "closed before an answer": Bad(_all(b""), LOST),
    "reset before an answer": Bad(_all(b""), LOST, RESET),
    "silence": Bad(_all(b""), LOST, STALL),
    "cut in the status line": Bad(_all(b"HTTP/1.1 20"), LOST),
    "cut in the headers": Bad(_all(b"HTTP/1.1 200 OK\r\nContent-Le"), UNUSABLE),
    "cut body": Bad(_with(lambda good: http(good[:20], length=len(good))), UNUSABLE),
    "reset in the body": Bad(_with(lambda good: http(good[:20], length=len(good))), UNUSABLE, RESET),
    "cut body of an error": Bad(_all(http(b"{", "500 No", length=900)), Cause.SERVER_ERROR),
    "cut body of a refusal": Bad(_all(http(b"{", "422 No", length=900)), Cause.REQUEST_REFUSED),
    "no http at all": Bad(_all(b"SSH-2.0-OpenSSH_9.9\r\n"), LOST),
    "http/0.9": Bad(_with(lambda good: good), LOST),
    # Wrong lengths.
    "length too long": Bad(_with(lambda good: http(good, length=len(good) + 9)), UNUSABLE),
    "length too long, kept open": Bad(_with(lambda good: http(good, length=len(good) + 9)), UNUSABLE, STALL),
    "length too short": Bad(_with(lambda good: http(good, length=len(good) - 9)), UNUSABLE, KEEP),
    "length 0": Bad(_with(lambda good: http(good, length=0)), UNUSABLE, KEEP),
    "two lengths": Bad(_with(lambda good: http(good, length_line="Content-Length: 3\r\nContent-Length: 9\r\n")), UNUSABLE),
    "length no number": Bad(_with(lambda good: http(b"", length="many")), UNUSABLE),
    "length negative": Bad(_with(lambda good: http(b"", length=-5)), UNUSABLE),
    "length of a terabyte": Bad(_for_ever(http(length=10**12), b"x" * 65_536), UNUSABLE),
    "no length": Bad(_with(lambda good: http(good, length_line="")), None),
    # Chunks.
    "chunks": Bad(_with(_chunks), None, KEEP),
    "chunks cut": Bad(_with(lambda good: _chunks(good)[:-9]), UNUSABLE),
    "chunk size no number": Bad(_all(_CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n"), UNUSABLE),
    "chunk size beyond all": Bad(_all(_CHUNKED + b"f" * 40 + b"\r\n{}"), UNUSABLE),
    "chunks without end": Bad(_for_ever(_CHUNKED, b"4\r\naaaa\r\n" * 900), UNUSABLE),
    "trailers without end": Bad(_for_ever(_CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-More: yes\r\n"), UNUSABLE, pause=0.02),
    # Drips and floods.
    "a drip in the status line": Bad(_bytes_of(lambda _: b"HTTP/1.1 200 " + b"O" * 900), LOST, pause=0.02),
    "a drip in the headers": Bad(_for_ever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), LOST, pause=0.02),
    "a drip in the body": Bad(_for_ever(http(length=900), b" "), UNUSABLE, pause=0.02),
    "a drip of continues": Bad(_for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), LOST, pause=0.02),
    "a flood of continues": Bad(_for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 900), LOST),
    "headers without end": Bad(_for_ever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 900), LOST),
    "a header without end": Bad(_for_ever(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65_536), LOST),
    "a body without end": Bad(_for_ever(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65_536), UNUSABLE),
    # Packed, though we ask for what is not.
    "gzip": Bad(_with(lambda good: _packed(gzip.compress(good), "gzip")), None, KEEP),
    "a gzip bomb": Bad(_all(_packed(_BOMB, "gzip")), UNUSABLE),
    "a bomb in a bomb": Bad(_all(_packed(gzip.compress(_BOMB), "gzip, gzip")), UNUSABLE),
    "a deflate bomb": Bad(_all(_packed(zlib.compress(bytes(64 << 20), 9), "deflate")), UNUSABLE),
    "gzip that is none": Bad(_with(lambda good: _packed(good, "gzip")), UNUSABLE),
    "gzip cut": Bad(_with(lambda good: _packed(gzip.compress(good)[:-12], "gzip")), UNUSABLE),
    "packed a thousand times": Bad(_with(lambda good: _packed(good, ", ".join(["gzip"] * 1_000))), UNUSABLE),
    "an unknown packing": Bad(_with(lambda good: _packed(b"\x01" + good, "x-secret")), UNUSABLE),
    # Statuses.
    "100, then the answer": Bad(_with(lambda good: b"HTTP/1.1 100 Continue\r\n\r\n" + http(good)), None, KEEP),
    "101": Bad(_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), UNUSABLE),
    "103, then the answer": Bad(_with(lambda good: b"HTTP/1.1 103 Early Hints\r\n\r\n" + http(good)), UNUSABLE, KEEP),
    "204": Bad(_all(b"HTTP/1.1 204 No Content\r\n\r\n"), UNUSABLE, KEEP),
    "204 with a body": Bad(_with(lambda good: http(good, "204 No Content")), UNUSABLE, KEEP),
    "304": Bad(_all(b"HTTP/1.1 304 Not Modified\r\n\r\n"), UNUSABLE, KEEP),
    "status 0": Bad(_with(lambda good: http(good, "000 Nothing")), LOST),
    "status 999": Bad(_with(lambda good: http(good, "999 Beyond")), UNUSABLE, KEEP),
    "status of words": Bad(_with(lambda good: http(good, "OK fine")), LOST),
    "a redirect to nowhere": Bad(_all(http(status="302 Found", headers="Location: http://[::1\r\n")), UNUSABLE, KEEP),
    "a redirect without a place": Bad(_all(http(status="307 Temporary Redirect")), UNUSABLE, KEEP),
    # Bodies.
    "a good answer beyond the limit": Bad(_with(lambda good: http(good + b" " * 200_000)), UNUSABLE, KEEP),
    "html": _body(b"<!doctype html><title>Please wait</title>"),
    "nothing": _body(b""),
    "null": _body(b"null"),
    "a list": _body(b"[]"),
    "a text": _body(b'"authorizationCode"'),
    "a number": _body(b"42"),
    "an empty object": _body(b"{}"),
    "NaN": Bad(_with(lambda good: http(good[:-1] + b', "n": NaN}')), UNUSABLE, KEEP),
    "infinity": Bad(_with(lambda good: http(good[:-1] + b', "n": -Infinity}')), UNUSABLE, KEEP),
    "deep lists": _body(b"[" * 9_000),
    "deep objects": _body(b'{"a":' * 1_900),
    "a number of 5,000 digits": Bad(_with(lambda good: http(good[:-1] + b', "n": ' + b"9" * 5_000 + b"}")), UNUSABLE, KEEP),
    "the same keys again, with null": Bad(
        _with(lambda good: http(good[:-1] + b"," + b",".join(b'"%s":null' % key.encode() for key in json.loads(good)) + b"}")),
        UNUSABLE, KEEP,
    ),
    "utf-16": Bad(_with(lambda good: http(good.decode().encode("utf-16"))), UNUSABLE, KEEP),
    "latin-1": _body('{"authorizationCode": "é"}'.encode("latin-1")),
    "a byte order mark": Bad(_with(lambda good: http(b"\xef\xbb\xbf" + good)), None, KEEP),
    "two answers in one body": Bad(_with(lambda good: http(good + good)), UNUSABLE, KEEP),
    # Headers.
    "a header without a colon": Bad(_with(lambda good: http(good, headers="no colon\r\n")), None, KEEP),
    "headers of noise": Bad(_with(lambda good: http(good, headers="X-\xff: \xfe\x1b[2J\x00\r\nDate: \x1b\r\n")), None, KEEP),
    "a date beyond time": Bad(_with(lambda good: http(good, headers="Date: Fri, 31 Dec 99999 23:59:59 GMT\r\n")), None, KEEP),
    # Errors whose words are not text.
    "words that are a list of lists": Bad(_all(_says([[1], None, {"a": "b"}])), Cause.REQUEST_REFUSED, KEEP),
    "words that are half a character": Bad(_all(_says("\ud800 bad \udfff")), Cause.REQUEST_REFUSED, KEEP),
    "words that are an object": Bad(_all(_says({"a": {"b": 1}}, error=[{}], traceId={})), Cause.REQUEST_REFUSED, KEEP),
    "words of a megabyte": Bad(_all(_says("ha " * 3_000)), Cause.REQUEST_REFUSED, KEEP),
    "words that rule a terminal": Bad(_all(_says("\x1b]0;owned\x07\x1b[2J\u202e\r\nexit 0")), Cause.REQUEST_REFUSED, KEEP),
    "a refusal that is a list": Bad(_all(http(b'["no"]', "422 No")), Cause.REQUEST_REFUSED, KEEP),
    "an error in html": Bad(_all(http(b"<h1>Bad gateway</h1>", "502 No")), Cause.SERVER_ERROR, KEEP),
    "a wait beyond numbers": Bad(
        _all(http(b"{}", "503 No", "Retry-After: " + "9" * 400 + "\r\n")), Cause.SERVER_ERROR, KEEP
    ),
    "a wait until the end of time": Bad(
        _all(http(b"{}", "503 No", "Retry-After: Fri, 31 Dec 9999 23:59:59 -2359\r\n")), Cause.SERVER_ERROR, KEEP
    ),
}  # fmt: skip


def _read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65_536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    while len(body) < length:
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


class BadServer:
    """Answers each request as `answer(number, request)` says, which gives a Bad and a good body."""

    def __init__(self, answer):
        self.requests = []
        self.connections = self.closed = 0
        self.url = ""
        self._answer = answer
        self._over = threading.Event()
        self._lock = threading.Lock()

    def serve(self, connection):
        with self._lock:
            self.connections += 1
        try:
            with connection:
                while (request := _read_request(connection)) is not None:
                    with self._lock:
                        self.requests.append(request)
                        number = len(self.requests)
                    bad, good = self._answer(number, request)
                    if not self._reply(connection, bad, good):
                        return
        finally:
            with self._lock:
                self.closed += 1

    def end(self):
        """Send no more."""
        self._over.set()

    def _reply(self, connection, bad, good):
        for piece in bad.send(good):
            if self._over.is_set():
                return False
            connection.sendall(piece)
            self._over.wait(bad.pause)
        if bad.end == STALL:
            self._over.wait(20)
        if bad.end == RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return bad.end == KEEP


def good_body(request):
    """What HighLevel answers to a request of the job. The code names its location."""
    head, _, body = request.partition(b"\r\n\r\n")
    if b"/oauth/reconnect" in head:
        return json.dumps({"authorizationCode": f"code-of-{json.loads(body)['locationId']}"}).encode()
    location = parse_qs(body.decode())["code"][0].removeprefix("code-of-")
    pair = {"access_token": f"access-{location}", "refresh_token": f"refresh-{location}", "userType": "Location"}
    return json.dumps(pair | {"locationId": location}).encode()


@contextmanager
def serving(answer):
    """A bad server for the block."""
    server = BadServer(answer)
    with accepting(server.serve) as port:
        server.url = f"http://127.0.0.1:{port}"
        try:
            yield server
        finally:
            server.end()
