"""One HTTP request with limits that hold: on the time of the whole answer, and on its size. It retries nothing."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests import Request, Response
from requests.adapters import HTTPAdapter

from jobs.highlevel.connection import Address, Dropped, Wire
from jobs.highlevel.proxy import certificates, proxy_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from requests import PreparedRequest

__all__ = ["Dropped", "Limits", "Raw", "Transport"]

_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request, in seconds and bytes."""

    connect_seconds: float
    read_seconds: float
    total_seconds: float
    max_answer_bytes: int


@dataclass(frozen=True, slots=True)
class Raw:
    """What came back: `whole` is False for a body that was cut off, too large, or could not be read (`fault`)."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    fault: type[BaseException] | None = None


class _Adapter(HTTPAdapter):
    """Sends by one wire, of one thread; what `requests` adds to a request, and makes of an answer, stays its own."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)
        self.wire = wire

    def get_connection_with_tls_context(self, *_args: Any, **_kwargs: Any) -> Any:
        return self.wire

    def cert_verify(self, *_args: Any, **_kwargs: Any) -> None:
        """The wire verifies: its context was made with the certificates to trust."""

    def close(self) -> None:
        self.wire.close()
        super().close()


class Transport:
    """Sends prepared requests to one address; each thread keeps a connection of its own.

    To connect is a step of its own (`open`), so that its caller may wait for its turn with a connection in hand. `connects`
    is called where one begins to be made; it must not wait.
    """

    def __init__(
        self,
        base_url: str,
        limits: Limits,
        environment: Mapping[str, str],
        connects: Callable[[], None] = lambda: None,
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
        self._adapters: list[_Adapter] = []
        self._connecting: set[int] = set()
        self._connects = connects

    @property
    def connecting(self) -> int:
        """How many threads are about to be connected."""
        return len(self._connecting)

    @property
    def wire(self) -> Wire:
        """This thread's connection."""
        return self._adapter().wire

    def open(self, *, fresh: bool = False) -> None:
        """Connect where this thread has no connection that can be used, or is to have a `fresh` one.

        Raises what the libraries raise.
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
        """The answer to `request`, however bad, `within` seconds where that is less than the limit of all.

        Raises what the libraries raise where none came, and Dropped where that was nobody's fault.
        """
        adapter = self._adapter()
        wire = adapter.wire
        if not wire.is_open:
            self.open()
        wire.begin(within)
        try:
            response = adapter.send(request, stream=True)
            raw = self._read(response)
        except BaseException:
            wire.close()
            raise
        wire.end()
        if not raw.whole or raw.status not in range(200, 600) or raw.status in range(202, 400):
            response.raw.close()
            wire.close()
        return raw

    def _read(self, response: Response) -> Raw:
        most = self._limits.max_answer_bytes
        body, whole, fault = b"", True, None
        try:
            while len(body) <= most and (chunk := response.raw.read(_CHUNK, decode_content=True)):
                body += chunk
            whole = len(body) <= most
        except Exception as error:  # noqa: BLE001 - whatever ends a body early, its caller judges it by class
            whole, fault = False, type(error)
        return Raw(response.status_code, response.headers, body if whole else b"", whole, fault)

    def close_mine(self) -> None:
        """Close this thread's connection: after an answer that was not whole and expected, its rest may still come."""
        self.wire.close()

    def close(self) -> None:
        """Close all connections."""
        for adapter in self._adapters:
            adapter.close()

    def _adapter(self) -> _Adapter:
        adapter: _Adapter | None = getattr(self._mine, "adapter", None)
        if adapter is None:
            limits = self._limits
            total = limits.total_seconds
            wire = Wire(self._address, min(limits.connect_seconds, total), limits.read_seconds, total)
            adapter = self._mine.adapter = _Adapter(wire)
            self._adapters.append(adapter)
        return adapter
