"""Questions and answers as they go over one connection: each ends in time, and costs no more than it must.

`urllib3` makes the connections. What goes over one that is open is written and read here, at half the cost.
"""

from __future__ import annotations

import http.client
import io
import re
import ssl
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import urllib3.exceptions as u3
from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

# A head that is whole, and such as every server sends: a status whose answer has a body, and fields of one line each.
_ORDINARY = re.compile(
    rb"HTTP/1\.1 (?!204|304)([2-5]\d\d) [ -~]*\r\n((?:[!#-'*+\-.0-9A-Z^-z|~]+:[\t -~]*\r\n){1,99})\r\n"
)
_FIELD = re.compile(r"^([^:\r\n]+):[\t ]*([^\r\n]*)\r$", re.MULTILINE)
_LONGEST_LENGTH = 18  # Digits.
_call = threading.local()


def end_by(deadline: float, read_seconds: float) -> None:
    """The next call of this thread ends by `deadline` (monotonic seconds), and waits for no byte longer than that."""
    _call.deadline, _call.read_seconds, _call.rest = deadline, read_seconds, False


def left_a_rest() -> bool:
    """Whether more came behind the answer to this thread's last call: it must not become the next answer."""
    return bool(_call.rest)


def _limit(sock: socket.socket) -> None:
    """Let `sock` wait no longer than this thread's call may. Raises TimeoutError where its time is over."""
    left = _call.deadline - time.monotonic()
    if left <= 0:
        message = "the whole answer took too long"
        raise TimeoutError(message)
    seconds = min(left, _call.read_seconds)
    if seconds != sock.gettimeout():  # To set it is a call of the system, and a turn of the threads.
        sock.settimeout(seconds)


class _UntilDeadline(io.RawIOBase):
    """The socket's bytes, until the call's time is over: a drip of bytes renews no time limit."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        super().__init__()
        self._raw = raw
        self._sock = sock
        self.is_over = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.is_over:
            return 0
        _limit(self._sock)
        return self._raw.readinto(buffer)

    def has_more(self) -> bool:
        """Whether bytes wait where no `select` sees them: decrypted already, or in a tunnel through a proxy with TLS."""
        tls, tunnel = getattr(self._sock, "sslobj", self._sock), getattr(self._sock, "incoming", None)
        return bool((hasattr(tls, "pending") and tls.pending()) or (tunnel is not None and tunnel.pending))

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reader(io.BufferedReader):
    """Takes note, when an answer is over, of what came behind it."""

    def __init__(self, source: _UntilDeadline) -> None:
        super().__init__(source)
        self._source = source

    def close(self) -> None:
        if not self.closed:
            self._source.is_over = True
            _call.rest = _call.rest or bool(self.peek()) or self._source.has_more()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        raw: Any = self.fp.detach()
        self.fp = _Reader(_UntilDeadline(raw, sock))


class _Answer(_Response):
    """An answer on a connection that is open already.

    An ordinary head that came in one piece is read at one go, for a third of the cost, and its body as it comes; one that
    is cut off raises. What is not `ordinary` is for `http.client` and `urllib3` to make sense of.
    """

    ordinary = False

    def begin(self) -> None:
        head = _ORDINARY.match(self.fp.peek())
        fields = HTTPHeaderDict(_FIELD.findall(head[2].decode("latin-1")) if head else ())
        if head is None or not _is_ordinary(fields):
            super().begin()
            return
        self.ordinary = True
        self.fp.read(head.end())
        self.version, self.status, self.reason = 11, int(head[1]), ""
        self.headers = fields  # type: ignore[assignment]  # as urllib3 gives them
        self.chunked = self.will_close = False
        self.length = int(fields["content-length"])

    def read(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:  # noqa: ARG002 - as urllib3's
        data = super().read(amt)
        if not data and self.length and self.ordinary:
            raise http.client.IncompleteRead(data, self.length)
        return data


def _is_ordinary(fields: Mapping[str, str]) -> bool:
    """Whether the body has a length and no code, and the connection lives on behind it."""
    length, connection = fields.get("content-length", ""), fields.get("connection", "keep-alive")
    says_how_long = length.isdecimal() and len(length) <= _LONGEST_LENGTH
    has_code = "content-encoding" in fields or "transfer-encoding" in fields
    return says_how_long and not has_code and connection.lower() == "keep-alive"


class _Plain(HTTPConnection):
    response_class = _Response


class _Encrypted(HTTPSConnection):
    response_class = _Response


class _Pool(HTTPConnectionPool):
    """Asks on its open connection in one packet, without what `urllib3` does for many hosts and for retries.

    That is half of what a request costs. A first connection, with its proxy and certificates, goes the whole way. The
    connection is back before the answer's body is read: one thread has this pool, and closes it after what is not whole.
    """

    ConnectionCls = _Plain

    def urlopen(  # type: ignore[override]  # it is called by `HTTPAdapter.send` alone
        self, method: str, url: str, body: Any = None, headers: Any = None, **how: Any
    ) -> Any:
        """The answer to one request. Raises what `HTTPAdapter.send` expects."""
        connection = self._get_conn()
        if connection.is_closed:
            self._put_conn(connection)
            return super().urlopen(method, url, body, headers, **how)
        try:
            return _asked(connection, method, _written(method, url, headers, body))
        except TimeoutError as late:
            message = "no answer in time"
            raise u3.ReadTimeoutError(self, url, message) from late
        except ssl.SSLError as error:
            raise u3.SSLError(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise u3.ProtocolError(error) from error
        finally:
            self._put_conn(connection)


class _EncryptedPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _Encrypted  # type: ignore[assignment]  # the pools' types differ, not what they do


def _written(method: str, url: str, headers: Mapping[str, str], body: str | bytes | None) -> bytes:
    """A request as it goes over the wire. Raises ValueError for a header that holds a line's end."""
    head = "\r\n".join([f"{method} {url} HTTP/1.1", *map(": ".join, headers.items()), "", ""])
    if not head.count("\r") == head.count("\n") == len(headers) + 2:
        message = "a header holds a line's end"
        raise ValueError(message)
    return head.encode("latin-1") + (body.encode() if isinstance(body, str) else body or b"")


def _asked(connection: Any, method: str, request: bytes) -> Any:
    """Ask on an open connection, which is closed where that fails.

    Returns the answer, its body still to be read: an `_Answer` where it is ordinary, else urllib3's.
    """
    try:
        sock = connection.sock
        _limit(sock)
        with suppress(BrokenPipeError, ConnectionResetError):  # It may have answered before it hung up.
            sock.sendall(request)
        answer = _Answer(sock, method=method)
        answer.begin()
        if answer.ordinary:
            return answer
        if answer.will_close:
            connection.close()
        return HTTPResponse(
            answer,
            HTTPHeaderDict(answer.headers.items()),
            answer.status,
            preload_content=False,
            original_response=answer,
            request_method=method,
        )
    except BaseException:
        connection.close()
        raise


POOLS = {"http": _Pool, "https": _EncryptedPool}
