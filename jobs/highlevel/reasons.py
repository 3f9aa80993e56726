"""Why no answer came, in our own words, since those of the libraries may hold what was sent.

Each reason begins with who is at fault: this machine, the proxy, or the server.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING

import requests
import urllib3.exceptions as u3

from jobs.highlevel.network_errors import CLOSED, TIME_OUTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs.highlevel.proxy import Proxy


@dataclass(frozen=True, slots=True)
class Attempted:
    """How far a connection to `address` got: through which `proxy`, if any, and whether that was reached and
    answered.
    """

    address: str
    proxy: Proxy | None = None
    reached_proxy: bool = False
    proxy_answered: bool = False


def of_this_machine(error: BaseException, address: str) -> str:
    """What this machine lacks for a connection, and what to do. Empty if this machine is not at fault."""
    chain = _chain(error)
    # Errors of TLS and of host names have error numbers of their own.
    met = {
        one.errno for one in chain if isinstance(one, OSError) and not isinstance(one, ssl.SSLError | socket.gaierror)
    }
    if any(isinstance(one, socket.gaierror) for one in chain):
        met.add(_why_no_socket())  # A failed name look-up does not say that it had no descriptor.
    return next((words.format(address=address) for number, words in _LACKING.items() if number in met), "")


def why_unreachable(error: BaseException, way: Attempted) -> str:
    """Why a connection could not be made, and where to look."""
    chain = _chain(error)
    proxy = way.proxy
    if proxy is None:
        return _met(chain, _CONNECTING, way.address, "HIGHLEVEL_BASE_URL")
    refusal = next((found for one in chain if (found := _REFUSED_TUNNEL.search(str(one)))), None)
    if refusal:
        words = _PROXY_STATUSES.get(refusal[1], _PROXY_STATUS)
        return words.format(
            proxy=f"the proxy {proxy.shown}", status=refusal[1], address=way.address, variable=proxy.variable
        )
    if not way.reached_proxy:
        return _met(chain, _CONNECTING, f"the proxy {proxy.shown}", proxy.variable)
    if not way.proxy_answered or any(isinstance(one, HTTPException) for one in chain):
        return _met(chain, _ASKING_PROXY, f"the proxy {proxy.shown}", proxy.variable)
    return f"{_met(chain, _CONNECTING, way.address, 'HIGHLEVEL_BASE_URL')} (through the proxy {proxy.shown})"


def reason(error: BaseException, address: str) -> str:
    """Why `address` gave no answer to a request."""
    return _met(_chain(error), _ANSWERING, address, "HIGHLEVEL_BASE_URL")


def _met(chain: list[BaseException], table: _Table, who: str, variable: str) -> str:
    tls = next((one for one in chain if isinstance(one, ssl.SSLError)), None)
    words = _of_tls(tls) if tls is not None else ""
    if any(isinstance(one, OSError) and one.errno in _NO_WAY for one in chain):
        words = "this machine's network has no way to {who}: check that it is online"
    # `urllib3` reports a failed connection as a timeout; the error behind it says more.
    chain = [one for one in chain if not isinstance(one, u3.NewConnectionError)] or chain
    for kinds, said in table:
        if not words and any(isinstance(one, kinds) for one in chain):
            words = said
    words = words or f"no usable answer from {{who}} ({type(chain[0]).__name__})"
    return words.format(who=who, variable=variable)


def _of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _CERTIFICATES.get(error.verify_code, _CERTIFICATE)
    return next((words for reasons, words in _TLS if error.reason in reasons), "")


def _why_no_socket() -> int | None:
    try:
        socket.socket().close()
    except OSError as error:
        return error.errno
    return None


def _chain(error: BaseException) -> list[BaseException]:
    """An exception and the exceptions behind it."""
    chain: list[BaseException] = []
    more: list[object] = [error]
    while more:
        met = more.pop()
        if isinstance(met, BaseException) and met not in chain:
            chain.append(met)
            more += [*met.args, getattr(met, "reason", None), met.__cause__, met.__context__]
    return chain


_Table = tuple[tuple[tuple[type[BaseException], ...], str], ...]

_DESCRIPTORS = (
    "this machine has no file descriptor left for a connection: raise its limit (ulimit -n), or lower --workers"
)
_MEMORY = "this machine has no memory left for a connection: close other programs, or lower --workers"
_NOT_PERMITTED = "this machine does not permit a connection to {address}: allow it in its firewall, or in the sandbox that confines the job"
_LACKING: Mapping[int | None, str] = {
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: _DESCRIPTORS,
    errno.ENOBUFS: _MEMORY,
    errno.ENOMEM: _MEMORY,
    errno.EADDRNOTAVAIL: "this machine has no local port left for a connection to {address}: close other programs' "
    "connections, or wait some minutes",
    errno.EPERM: _NOT_PERMITTED,
    errno.EACCES: _NOT_PERMITTED,
}

_REFUSED_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})\b")
_PROXY_STATUSES: Mapping[str, str] = {
    "407": "{proxy} asks for a user and a password (407): put the right ones into {variable}, as "
    "http://user:password@host:port",
    "403": "{proxy} does not permit a connection to {address} (403): have it allowed there",
}
_PROXY_STATUS = "{proxy} answered {status} when asked for a connection to {address}: ask those who run it"

_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}

_CONNECTING: _Table = (
    (
        (u3.NameResolutionError, socket.gaierror),
        "{who} is an unknown host: check {variable}, and this machine's network",
    ),
    ((ConnectionRefusedError,), "{who} refused the connection: check {variable}, and that it is up"),
    (CLOSED, "{who} closed the connection before it was ready: check {variable}"),
    (TIME_OUTS, "{who} could not be reached in time: check {variable}, and this machine's network"),
)
_ASKING_PROXY: _Table = (
    (CLOSED, "{who} closed the connection without an answer: check {variable}"),
    ((HTTPException,), "{who} does not answer as a proxy does: check {variable}"),
    (TIME_OUTS, "{who} gave no answer in time: check {variable}, and that it is up"),
)
_ANSWERING: _Table = (
    ((u3.NameResolutionError, socket.gaierror), "{who} is an unknown host"),
    ((ConnectionRefusedError,), "{who} refused the connection"),
    (CLOSED, "{who} closed the connection without an answer"),
    ((requests.exceptions.ConnectTimeout, u3.ConnectTimeoutError), "{who} could not be reached in time"),
    (TIME_OUTS, "no whole answer from {who} in time"),
)

# By OpenSSL's own numbers, X509_V_ERR_*.
_EXPIRED = "{who} showed a certificate that has expired: check this machine's clock; if it is right, the certificate must be renewed there"
_ANOTHER_NAME = "{who} showed a certificate for another name: check {variable}, and what answers in its place"
_UNKNOWN_AUTHORITY = (
    "{who} showed a certificate of an unknown authority: if a firewall or a proxy inspects TLS, "
    "name its certificate's file in REQUESTS_CA_BUNDLE"
)
_CERTIFICATE = "{who} showed a certificate that is not accepted: check {variable}, and what answers in its place"
_CERTIFICATES: Mapping[int, str] = {
    9: "{who} showed a certificate that is not valid yet: check this machine's clock",
    10: _EXPIRED,
    18: _UNKNOWN_AUTHORITY,
    19: _UNKNOWN_AUTHORITY,
    20: _UNKNOWN_AUTHORITY,
    21: _UNKNOWN_AUTHORITY,
    62: _ANOTHER_NAME,
    64: _ANOTHER_NAME,
}
_TLS: tuple[tuple[frozenset[str], str], ...] = (
    (
        frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"}),
        "{who} does not speak TLS at that port, as if it were one for http://: check {variable}",
    ),
    (
        frozenset({"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"}),
        "{who} speaks only a TLS that is too old (1.2 is needed): check {variable}; if it is right, the server must be updated",
    ),
)
