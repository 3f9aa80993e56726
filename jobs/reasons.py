"""Why no answer came, in our words: those of the libraries may hold what was sent."""

from __future__ import annotations

import socket
import ssl

import requests
import urllib3.exceptions as u3


def reason(error: BaseException, address: str) -> str:
    """What was met on the way to `address`, for a person."""
    chain = _chain(error)
    for kinds, words in _REASONS:
        if any(isinstance(met, kinds) for met in chain):
            return words.format(address=address)
    return f"no usable answer from {address} ({type(error).__name__})"


def never_left(error: BaseException) -> bool:
    """Whether no connection was made, so that no server can have seen the request."""
    return any(isinstance(met, _NEVER_LEFT) for met in _chain(error))


def _chain(error: BaseException) -> list[BaseException]:
    """An exception and all that it was made from."""
    chain: list[BaseException] = []
    more: list[object] = [error]
    while more:
        met = more.pop()
        if isinstance(met, BaseException) and met not in chain:
            chain.append(met)
            more += [*met.args, getattr(met, "reason", None), met.__cause__, met.__context__]
    return chain


_NEVER_LEFT = (
    u3.NewConnectionError,
    u3.ConnectTimeoutError,
    requests.exceptions.ConnectTimeout,
    ssl.SSLCertVerificationError,
    ConnectionRefusedError,
    socket.gaierror,
)

_REASONS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((ssl.SSLCertVerificationError,), "{address} showed a certificate that is not accepted"),
    ((u3.NameResolutionError, socket.gaierror), "{address} is an unknown host"),
    ((ConnectionRefusedError,), "{address} refused the connection"),
    ((ConnectionResetError, BrokenPipeError), "{address} closed the connection without an answer"),
    ((requests.exceptions.ConnectTimeout, u3.ConnectTimeoutError), "{address} could not be reached in time"),
    ((requests.exceptions.Timeout, u3.ReadTimeoutError, TimeoutError), "no whole answer from {address} in time"),
)
