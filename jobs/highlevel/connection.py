"""One connection to one address. It is opened in a step of its own, and every answer on it ends in time.

`urllib3` connects, writes and reads. This adds a time limit on the whole answer, and tells whether the other side had
closed the connection before it said anything.
"""

from __future__ import annotations

import http.client
import io
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection, HTTPSConnection, ProxyConfig
from urllib3.exceptions import ProtocolError
from urllib3.util import Url, make_headers

from jobs.highlevel.network_errors import CLOSED

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from requests import PreparedRequest
    from urllib3 import BaseHTTPResponse

    from jobs.highlevel.proxy import Proxy

# Seconds. A firewall or a router may have forgotten a connection that was silent for so long.
_MOST_IDLE_SECONDS = 30.0
# Seconds. The other side may have closed a connection that was opened so long ago and never used.
_FRESH_SECONDS = 1.0


class Dropped(Exception):  # noqa: N818 - no error: it is nobody's try
    """The other side closed a connection that had been open for a while, and not a byte of the answer came."""


class NotSent(Exception):  # noqa: N818 - no error: it is nobody's try
    """The request may not leave any more, and it did not."""


@dataclass(frozen=True, slots=True)
class Address:
    """The far end of a connection. `context` is set if it is encrypted, and `proxy` if there is a proxy."""

    host: str
    port: int
    context: ssl.SSLContext | None = None
    proxy: Proxy | None = None


@dataclass(slots=True)
class _Call:
    """The current call: when it must be over (monotonic seconds), whether it was answered, and whether more came
    after the answer.
    """

    ends: float = float("inf")
    read_seconds: float = 0.0
    heard: bool = False
    rest: bool = False

    def begin(self, total_seconds: float, read_seconds: float) -> None:
        self.ends, self.read_seconds = time.monotonic() + total_seconds, read_seconds
        self.heard = self.rest = False

    def limit(self, sock: Any) -> None:
        """Let `sock` wait no longer than the call may. Raises TimeoutError if its time is over."""
        left = self.ends - time.monotonic()
        if left <= 0:
            message = "the whole answer took too long"
            raise TimeoutError(message)
        sock.settimeout(min(left, self.read_seconds))


class _UntilDeadline(io.RawIOBase):
    """The bytes of a socket until the call's time is over. A slow drip of bytes does not extend the time."""

    def __init__(self, sock: Any, call: _Call) -> None:
        super().__init__()
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._call = call
        self.is_over = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.is_over:
            return 0
        self._call.limit(self._sock)
        count: int | None = self._raw.readinto(buffer)
        self._call.heard = self._call.heard or bool(count)
        return count

    def has_more(self) -> bool:
        """Whether decrypted bytes are waiting, which `select` cannot see."""
        return bool(hasattr(self._sock, "pending") and self._sock.pending())

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reader(io.BufferedReader):
    """Takes note, at the end of an answer, of bytes that came after it."""

    def __init__(self, source: _UntilDeadline, call: _Call) -> None:
        super().__init__(source)
        self._source = source
        self._call = call

    def close(self) -> None:
        if not self.closed:
            self._source.is_over = True
            self._call.rest = self._call.rest or bool(self.peek()) or self._source.has_more()
        super().close()


@dataclass(frozen=True, slots=True)
class _Limited:
    """A socket in the form that `http.client` needs, to make a file from."""

    sock: Any
    call: _Call

    def makefile(self, _mode: str) -> _Reader:
        return _Reader(_UntilDeadline(self.sock, self.call), self.call)


def _answer(call: _Call, sock: Any, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
    limited: Any = _Limited(sock, call)
    return http.client.HTTPResponse(limited, *args, **kwargs)


@dataclass(slots=True)
class Wire:
    """A connection to `address` for one thread. `may_leave` is asked at the last moment before a request is sent."""

    address: Address
    connect_seconds: float
    read_seconds: float
    total_seconds: float
    may_leave: Callable[[], bool] = lambda: True
    _connection: HTTPConnection | None = None
    _call: _Call = field(default_factory=_Call)
    _has_served: bool = False
    _used_at: float = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as this side knows."""
        return self._connection is not None and not self._connection.is_closed

    @property
    def is_fit(self) -> bool:
        """Whether a request may go over it: it is open, the other side has not closed it, and it was not idle for too
        long.
        """
        if self._connection is None or self._connection.is_closed or self._idle() > _MOST_IDLE_SECONDS:
            return False
        # Before the first answer, readable bytes may belong to the encryption.
        return not self._has_served or self._connection.is_connected

    @property
    def reached_proxy(self) -> bool:
        """Whether the proxy was reached when `open` failed."""
        return self._connection is not None and self._connection.has_connected_to_proxy

    @property
    def proxy_answered(self) -> bool:
        """Whether the proxy had said anything when `open` failed."""
        return self._call.heard

    def _idle(self) -> float:
        return time.monotonic() - self._used_at

    def open(self) -> None:
        """Make a new connection, through the proxy's tunnel if there is a proxy. Raises what the libraries raise."""
        self.close()
        self._call.begin(self.total_seconds, self.connect_seconds)
        self._has_served, self._connection = False, self._new()
        self._connection.connect()
        self._connection.send = partial(self._send, self._connection.send)  # type: ignore[method-assign]
        self._used_at = time.monotonic()

    def _send(self, send: Callable[[Any], None], data: object) -> None:
        if not self.may_leave():
            raise NotSent
        send(data)

    def _new(self) -> HTTPConnection:
        to, seconds = self.address, self.connect_seconds
        connection: HTTPConnection
        if to.proxy:
            proxy = to.proxy
            trust = ProxyConfig(
                to.context, use_forwarding_for_https=False, assert_hostname=None, assert_fingerprint=None
            )
            url = Url(proxy.scheme, host=proxy.host, port=proxy.port)
            connection = HTTPSConnection(
                proxy.host, proxy.port, timeout=seconds, proxy=url, proxy_config=trust, ssl_context=to.context
            )
            login = make_headers(proxy_basic_auth=proxy.login) if proxy.login else {}
            connection.set_tunnel(to.host, to.port, login, scheme=proxy.scheme)
        elif to.context is not None:
            connection = HTTPSConnection(to.host, to.port, timeout=seconds, ssl_context=to.context)
        else:
            connection = HTTPConnection(to.host, to.port, timeout=seconds)
        connection.response_class = partial(_answer, self._call)  # type: ignore[assignment]  # what makes one will do
        return connection

    def begin(self, within: float | None) -> None:
        """Begin a call: its answer must be whole `within` seconds, or within the general limit if that is less."""
        seconds = self.total_seconds if within is None else min(within, self.total_seconds)
        self._call.begin(seconds, self.read_seconds)

    def ask(self, request: PreparedRequest) -> BaseHTTPResponse:
        """The answer to a request, with its body still unread. Raises Dropped, NotSent, and what the libraries raise."""
        connection = self._connection
        assert connection is not None
        was_kept = self._has_served or self._idle() > _FRESH_SECONDS
        self._has_served = True
        try:
            return self._asked(connection, request)
        except BaseException as error:
            connection.close()
            if was_kept and isinstance(error, CLOSED) and not self._call.heard:
                raise Dropped from error
            if isinstance(error, http.client.HTTPException):
                message = "no answer"
                raise ProtocolError(message, error) from error
            raise

    def _asked(self, connection: HTTPConnection, request: PreparedRequest) -> BaseHTTPResponse:
        connection.timeout = self.read_seconds
        method, headers = str(request.method), request.headers
        try:
            connection.request(method, request.path_url, request.body, headers, preload_content=False)
        except (BrokenPipeError, ConnectionResetError):
            if connection.is_closed:
                raise
            # The server may have answered before it hung up.
        return connection.getresponse()

    def end(self) -> None:
        """End a call whose answer was read. If more bytes came after it, the connection is closed: they must not
        become the next answer.
        """
        self._used_at = time.monotonic()
        if self._call.rest:
            self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
