"""What each exception of the HTTP libraries means: no answer came, or it could not be read.

Every exception of `requests` and `urllib3` has its own row; a test fails when one of them grows another.
"""

from __future__ import annotations

import ssl
from http.client import HTTPException
from typing import TYPE_CHECKING

import requests.exceptions as rq
import urllib3.exceptions as u3

from jobs.core.model import Cause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs.core.model import Answer

_LOST = Cause.NETWORK_ERROR
_UNREADABLE = Cause.MALFORMED_ANSWER

EXCEPTIONS: Mapping[type[BaseException], Cause] = {
    rq.RequestException: _LOST,
    rq.InvalidJSONError: _UNREADABLE,
    rq.JSONDecodeError: _UNREADABLE,
    rq.HTTPError: _LOST,
    rq.ConnectionError: _LOST,
    rq.ProxyError: _LOST,
    rq.SSLError: _LOST,
    rq.Timeout: _LOST,
    rq.ConnectTimeout: _LOST,
    rq.ReadTimeout: _LOST,
    rq.URLRequired: _LOST,
    rq.TooManyRedirects: _UNREADABLE,
    rq.MissingSchema: _LOST,
    rq.InvalidSchema: _LOST,
    rq.InvalidURL: _LOST,
    rq.InvalidHeader: _UNREADABLE,
    rq.InvalidProxyURL: _LOST,
    rq.ChunkedEncodingError: _UNREADABLE,
    rq.ContentDecodingError: _UNREADABLE,
    rq.StreamConsumedError: _UNREADABLE,
    rq.RetryError: _LOST,
    rq.UnrewindableBodyError: _LOST,
    u3.HTTPError: _LOST,
    u3.PoolError: _LOST,
    u3.RequestError: _LOST,
    u3.SSLError: _LOST,
    u3.ProxyError: _LOST,
    u3.DecodeError: _UNREADABLE,
    u3.ProtocolError: _LOST,
    u3.ConnectionError: _LOST,
    u3.MaxRetryError: _LOST,
    u3.HostChangedError: _LOST,
    u3.TimeoutStateError: _LOST,
    u3.TimeoutError: _LOST,
    u3.ReadTimeoutError: _LOST,
    u3.ConnectTimeoutError: _LOST,
    u3.NewConnectionError: _LOST,
    u3.NameResolutionError: _LOST,
    u3.EmptyPoolError: _LOST,
    u3.FullPoolError: _LOST,
    u3.ClosedPoolError: _LOST,
    u3.LocationValueError: _LOST,
    u3.LocationParseError: _UNREADABLE,
    u3.URLSchemeUnknown: _LOST,
    u3.ResponseError: _UNREADABLE,
    u3.ResponseNotChunked: _UNREADABLE,
    u3.BodyNotHttplibCompatible: _UNREADABLE,
    u3.IncompleteRead: _UNREADABLE,
    u3.InvalidChunkLength: _UNREADABLE,
    u3.InvalidHeader: _UNREADABLE,
    u3.ProxySchemeUnknown: _LOST,
    u3.ProxySchemeUnsupported: _LOST,
    u3.HeaderParsingError: _UNREADABLE,
    u3.UnrewindableBodyError: _LOST,
    HTTPException: _UNREADABLE,
    OSError: _LOST,
    ValueError: _UNREADABLE,
    RecursionError: _UNREADABLE,
}


def judge(exception: type[BaseException]) -> Cause | None:
    """The cause in the most specific row for an exception class. None if it is not an error of the network."""
    return next((EXCEPTIONS[base] for base in exception.__mro__ if base in EXCEPTIONS), None)


TIME_OUTS = (rq.Timeout, u3.TimeoutError, TimeoutError)
"""The errors of an answer, or of a connection, that did not come in time."""
CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""The errors that show that the other side has closed a connection."""


def is_late(answer: Answer) -> bool:
    """Whether no answer came because the time for it, or for the connection, was over."""
    return not answer.status and answer.exception is not None and issubclass(answer.exception, TIME_OUTS)


def is_unreachable(answer: Answer) -> bool:
    """Whether no answer came at all, for a reason of the network."""
    return not answer.status and answer.exception is not None and answer.cause is Cause.NETWORK_ERROR
