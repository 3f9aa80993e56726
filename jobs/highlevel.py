"""The only door to the API. No request leaves but through `_call`: the gate is in it, and so is the scrubbing."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode, urlsplit

import requests
import urllib3.exceptions as u3

from jobs.answers import CallFailed, Heard, read_body, read_code, read_tokens
from jobs.faults import judge
from jobs.model import Answer, App, Cause, Install, Level, Stage, Tokens
from jobs.transport import Limits, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from requests import PreparedRequest

    from jobs.secret import Secret

__all__ = ["CallFailed", "Code", "Gate", "HighLevel", "Limits"]


class Gate(Protocol):
    """Lets requests out, and hears of their answers."""

    def enter(self, *, urgent: bool) -> int:
        """Return when the request may leave, with its number."""

    def observe(self, number: int, status: int, retry_after: float | None, headers: Mapping[str, str]) -> None:
        """Hear of the answer to a request that left; `status` 0 where none came."""


@dataclass(frozen=True, slots=True)
class Code:
    """An authorization code, and whether it is past its time by the server's own clock."""

    value: Secret
    expired: Callable[[], bool]


class HighLevel:
    """The two calls. `clock` gives monotonic seconds, `now` the operator's time in UTC."""

    def __init__(
        self,
        *,
        base_url: str,
        limits: Limits,
        gate: Gate,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        user_agent: str,
        environment: Mapping[str, str],
    ) -> None:
        self._transport = Transport(base_url, limits, environment)
        self._limits = limits
        self._gate = gate
        self._clock = clock
        self._now = now
        self._address = urlsplit(base_url).netloc
        headers = {"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "identity"}
        self._reconnect = _blank(f"{base_url}/oauth/reconnect", headers, "application/json")
        self._token = _blank(f"{base_url}/oauth/token", headers, "application/x-www-form-urlencoded")

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def reconnect(self, app: App, install: Install) -> Code:
        """A new authorization code. Raises CallFailed, Stopped. Source: support article on Reconnect (API notes, 1)."""
        account = "locationId" if install.key.level is Level.SUB_ACCOUNT else "companyId"
        body = {
            "clientKey": app.client_id,
            "clientSecret": app.client_secret.reveal(),
            account: install.key.account_id,
        }
        request = _filled(self._reconnect, json.dumps(body))
        number = self._gate.enter(urgent=False)
        heard, answer = self._call(number, request, Stage.RECONNECT, (app.client_secret,))
        value, expires = read_code(heard, answer)
        server_time, received = heard.server_time, self._clock()

        def expired() -> bool:
            if expires is None or server_time is None:
                return False
            return (expires - server_time).total_seconds() <= self._clock() - received

        return Code(value, expired)

    def exchange(self, app: App, install: Install, code: Code) -> Tokens:
        """The token pair for a code, which is spent by it. Raises CallFailed, Stopped.

        Source: OpenAPI description of `POST /oauth/token`; form fields in snake_case.
        """
        form = {
            "client_id": app.client_id,
            "client_secret": app.client_secret.reveal(),
            "grant_type": "authorization_code",
            "code": code.value.reveal(),
            "user_type": install.key.level.value,
        }
        if app.redirect_uri:
            form["redirect_uri"] = app.redirect_uri
        request = _filled(self._token, urlencode(form))
        number = self._gate.enter(urgent=True)
        if code.expired():
            self._gate.observe(number, 0, None, {})
            why = "the code was past its time by the server's clock and was not sent"
            raise CallFailed(Answer(Stage.EXCHANGE, message=why, cause=Cause.CODE_REJECTED))
        heard, answer = self._call(number, request, Stage.EXCHANGE, (app.client_secret, code.value))
        return read_tokens(heard, answer, install)

    def _call(
        self, number: int, request: PreparedRequest, stage: Stage, secrets: tuple[Secret, ...]
    ) -> tuple[Heard, dict[str, Any]]:
        try:
            raw = self._transport.send(request)
        except Exception as error:
            cause = judge(type(error))
            if cause is None:
                raise
            self._gate.observe(number, 0, None, {})
            answer = Answer(stage, message=self._reason(error), exception=type(error), cause=cause)
            raise CallFailed(answer) from None
        heard = Heard(raw, stage, secrets, self._now())
        self._gate.observe(number, raw.status, heard.retry_after, raw.headers)
        try:
            return heard, read_body(heard)
        except CallFailed as failed:
            if not failed.answer.says:
                self._transport.close_mine()
            raise

    def _reason(self, error: BaseException) -> str:
        """Why no answer came, in our words: those of the libraries may hold what was sent."""
        chain = _chain(error)
        for kinds, words in _REASONS:
            if any(isinstance(met, kinds) for met in chain):
                return words.format(address=self._address)
        return f"no usable answer from {self._address} ({type(error).__name__})"


def _blank(url: str, headers: Mapping[str, str], content_type: str) -> PreparedRequest:
    return requests.Request("POST", url, headers={**headers, "Content-Type": content_type}).prepare()


def _filled(blank: PreparedRequest, body: str) -> PreparedRequest:
    """A request with this body, which is ASCII. What all requests of a call share was worked out once, for the blank one."""
    request = blank.copy()
    request.body = body
    request.headers["Content-Length"] = str(len(body))
    return request


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


_REASONS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((ssl.SSLCertVerificationError,), "{address} showed a certificate that is not accepted"),
    ((u3.NameResolutionError, socket.gaierror), "{address} is an unknown host"),
    ((ConnectionRefusedError,), "{address} refused the connection"),
    ((ConnectionResetError, BrokenPipeError), "{address} closed the connection without an answer"),
    ((requests.exceptions.ConnectTimeout, u3.ConnectTimeoutError), "{address} could not be reached in time"),
    ((requests.exceptions.Timeout, u3.ReadTimeoutError, TimeoutError), "no whole answer from {address} in time"),
)
