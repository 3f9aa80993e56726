"""One HTTP request, with firm limits on the time of the whole answer and on its size. It never retries."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from requests import Request

from jobs.highlevel.connection import Address, Dropped, NotSent, Wire
from jobs.highlevel.proxy import certificates, proxy_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from requests import PreparedRequest
    from urllib3 import BaseHTTPResponse

__all__ = ["Dropped", "Limits", "NotSent", "Raw", "Transport"]

_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one request, in seconds and bytes."""

    connect_seconds: float
    read_seconds: float
    total_seconds: float
    max_answer_bytes: int


@dataclass(frozen=True, slots=True)
class Raw:
    """What came back. `whole` is False if the body was cut off, too large, or could not be read (`fault`)."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    fault: type[BaseException] | None = None


class Transport:
    """Sends prepared requests to one address. Each thread keeps its own connection.

    Connecting is a separate step (`open`), so that a caller can wait for its turn with a connection in hand.
    `connects` is called when a connection is about to be made, and must not wait. `may_leave` is asked at the last moment
    before a request is sent.
    """

    def __init__(
        self,
        base_url: str,
        limits: Limits,
        environment: Mapping[str, str],
        connects: Callable[[], None] = lambda: None,
        may_leave: Callable[[], bool] = lambda: True,
    ) -> None:
        self._limits = limits
        proxy = proxy_for(base_url, environment)
        to = urlsplit(str(Request("GET", base_url).prepare().url))
        encrypted = to.scheme == "https"
        self._address = Address(
            to.hostname or "",
            to.port or (443 if encrypted else 80),
            certificates(environment) if encrypted else None,
            proxy,
        )
        self._mine = threading.local()
        self._wires: list[Wire] = []
        self._connecting: set[int] = set()
        self._connects = connects
        self._may_leave = may_leave

    @property
    def connecting(self) -> int:
        """How many threads are connecting."""
        return len(self._connecting)

    @property
    def wire(self) -> Wire:
        """This thread's connection."""
        wire: Wire | None = getattr(self._mine, "wire", None)
        if wire is None:
            limits = self._limits
            total = limits.total_seconds
            connect = min(limits.connect_seconds, total)
            wire = self._mine.wire = Wire(self._address, connect, limits.read_seconds, total, self._may_leave)
            self._wires.append(wire)
        return wire

    def open(self, *, fresh: bool = False) -> None:
        """Connect if this thread has no usable connection, or if a `fresh` one is wanted. Raises what the libraries
        raise.
        """
        wire = self.wire
        if wire.is_fit and not fresh:
            return
        me = threading.get_ident()
        self._connecting.add(me)
        self._connects()
        try:
            wire.open()
        finally:
            self._connecting.discard(me)

    def send(self, request: PreparedRequest, within: float | None = None) -> Raw:
        """The answer to `request`, however bad it is, `within` seconds if that is less than the general limit.

        If no answer came, raises what the libraries raise, or Dropped if that was nobody's fault. Raises NotSent if it may not
        leave any more.
        """
        wire = self.wire
        if not wire.is_open:
            self.open()
        wire.begin(within)
        try:
            response = wire.ask(request)
            raw = self._read(response)
        except BaseException:
            wire.close()
            raise
        wire.end()
        if not raw.whole or raw.status not in range(200, 600) or raw.status in range(300, 400):
            response.close()
            wire.close()
        return raw

    def _read(self, response: BaseHTTPResponse) -> Raw:
        most = self._limits.max_answer_bytes
        body, whole, fault = b"", True, None
        try:
            while len(body) <= most and (chunk := response.read(_CHUNK, decode_content=True)):
                body += chunk
            whole = len(body) <= most
        except Exception as error:  # noqa: BLE001 - whatever ends a body early, its caller judges it by class
            whole, fault = False, type(error)
        return Raw(response.status, response.headers, body if whole else b"", whole, fault)

    def close_mine(self) -> None:
        """Close this thread's connection. After an unexpected or cut answer, the rest of it may still come."""
        self.wire.close()

    def close(self) -> None:
        """Close all connections."""
        for wire in self._wires:
            wire.close()
