"""One HTTP request with limits that hold: on the time of the whole answer, and on its size. It retries nothing."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests import Response
from requests.adapters import HTTPAdapter
from urllib3.util import Timeout

from jobs.egress import proxies, trusted
from jobs.wire import POOLS, end_by, left_a_rest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest

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
    """Of one address: what `requests` works out anew for every request is worked out once for each connection."""

    def __init__(self) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)
        self._pool: Any = None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **kwargs)
        return self._pool

    def add_headers(self, request: PreparedRequest, **_how: Any) -> None:
        request.headers.setdefault("Host", urlsplit(str(request.url)).netloc.rpartition("@")[2])

    def request_url(self, request: PreparedRequest, _proxies: Any) -> str:
        # Through a proxy it is https alone, in a tunnel: the address is never part of it.
        return request.path_url

    def build_response(self, req: PreparedRequest, resp: Any) -> Response:
        response = Response()
        response.request, response.raw = req, resp
        response.status_code, response.headers = resp.status, resp.headers
        return response

    def close(self) -> None:
        self._pool = None
        super().close()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager


class Transport:
    """Sends prepared requests to one address; each thread keeps a connection of its own."""

    def __init__(self, base_url: str, limits: Limits, environment: Mapping[str, str]) -> None:
        self._limits = limits
        self._proxies = proxies(base_url, environment)
        self._verify = trusted(environment)
        self._timeout = Timeout(connect=min(limits.connect_seconds, limits.total_seconds), read=limits.read_seconds)
        self._mine = threading.local()
        self._adapters: list[_Adapter] = []

    def send(self, request: PreparedRequest, within: float | None = None) -> Raw:
        """The answer to `request`, however bad, `within` seconds where that is less than the limit of all.

        Raises what the libraries raise where none came.
        """
        limits = self._limits
        timeout, total_seconds = self._timeout, limits.total_seconds
        if within is not None and within < total_seconds:
            timeout, total_seconds = Timeout(min(within, limits.connect_seconds), limits.read_seconds), within
        end_by(time.monotonic() + total_seconds, limits.read_seconds)
        adapter = self._adapter()
        try:
            response = adapter.send(
                request,
                stream=True,
                timeout=timeout,  # type: ignore[arg-type]  # its types do not say that it takes one
                verify=self._verify,
                proxies=self._proxies,
            )
        except BaseException:
            adapter.close()
            raise
        body, whole, fault = b"", True, None
        try:
            while len(body) <= limits.max_answer_bytes and (chunk := response.raw.read(_CHUNK, decode_content=True)):
                body += chunk
            whole = len(body) <= limits.max_answer_bytes
        except Exception as error:  # noqa: BLE001 - whatever ends a body early, its caller judges it by class
            whole, fault = False, type(error)
        except BaseException:
            self.close_mine()
            raise
        raw = Raw(response.status_code, response.headers, body if whole else b"", whole, fault)
        if not whole or left_a_rest() or raw.status not in range(200, 600) or raw.status in range(202, 400):
            self.close_mine()
        return raw

    def close_mine(self) -> None:
        """Close this thread's connection: after an answer that was not whole and expected, its rest may still come."""
        self._adapter().close()

    def close(self) -> None:
        """Close all connections."""
        for adapter in self._adapters:
            adapter.close()

    def _adapter(self) -> _Adapter:
        adapter: _Adapter | None = getattr(self._mine, "adapter", None)
        if adapter is None:
            adapter = self._mine.adapter = _Adapter()
            self._adapters.append(adapter)
        return adapter
