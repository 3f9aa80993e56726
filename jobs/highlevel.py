"""The only door to the API. No request leaves but through `_call`: the gate is in it, and so is the scrubbing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode, urlsplit

import requests
from requests import PreparedRequest

from jobs.answers import CallFailed, Heard, read_body, read_code, read_page, read_tokens
from jobs.causes import Closes, closes, leaves_in_doubt
from jobs.faults import judge
from jobs.model import Answer, App, Cause, Install, Level, Stage, Tokens
from jobs.pace import Resource, Rests
from jobs.reasons import never_left, reason
from jobs.transport import Limits, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from jobs.secret import Secret

__all__ = ["CallFailed", "Code", "Gate", "HighLevel", "Limits", "Window"]


_MOST_PAGES = 10_000


class Gate(Protocol):
    """Lets requests out, and hears of their answers."""

    def enter(self, *, urgent: bool, resource: Resource) -> int:
        """Return when the request may leave, with its number. Raises Stopped, and Rests where only `resource` waits."""

    def observe(self, number: int, status: int, retry_after: float | None, headers: Mapping[str, str]) -> None:
        """Hear of the answer to a request that left; `status` 0 where none came."""


@dataclass(frozen=True, slots=True)
class Code:
    """An authorization code, whether it is past its time by the server's own clock, and the trace id of its answer."""

    value: Secret
    expired: Callable[[], bool]
    trace_id: str = ""


@dataclass(slots=True)
class Window:
    """When a refresh whose answer is not whole was first sent (monotonic seconds): it is repeated only within 30 seconds.

    Source: HighLevel changelog, "Smarter Refresh Token Handling" (API notes, 4). Five of them are for the way.
    """

    opened: float | None = None
    seconds: float = 25.0

    def left(self, now: float) -> float:
        """Seconds in which the same call may still be sent."""
        return self.seconds if self.opened is None else self.opened + self.seconds - now


class HighLevel:
    """The calls. `clock` gives monotonic seconds, `now` the operator's time in UTC."""

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
        self._gate = gate
        self._clock = clock
        self._now = now
        self._address = urlsplit(base_url).netloc
        headers = {"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "identity"}
        self._reconnect = _blank(f"{base_url}/oauth/reconnect", headers, "application/json")
        self._token = _blank(f"{base_url}/oauth/token", headers, "application/x-www-form-urlencoded")
        self._base_url = base_url
        self._headers = headers
        self._old_location_token = False
        self._heard_last: Heard | None = None
        self._heard_at = 0.0

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def server_time(self) -> float:
        """The server's clock in seconds since 1970, or the operator's before the first answer."""
        said = self._heard_last.server_time if self._heard_last else None
        return said.timestamp() + self._clock() - self._heard_at if said else self._now().timestamp()

    def reconnect(self, app: App, install: Install) -> Code:
        """A new authorization code. Raises CallFailed, Stopped. Source: support article on Reconnect (API notes, 1)."""
        account = "locationId" if install.key.level is Level.SUB_ACCOUNT else "companyId"
        body = {
            "clientKey": app.client_id,
            "clientSecret": app.client_secret.reveal(),
            account: install.key.account_id,
        }
        request = _filled(self._reconnect, json.dumps(body))
        number = self._enter(Stage.RECONNECT, _of(install))
        heard, answer = self._call(number, request, Stage.RECONNECT, (app.client_secret,))
        value, expires, trace_id = read_code(heard, answer)
        server_time, received = heard.server_time, self._clock()

        def expired() -> bool:
            if expires is None or server_time is None:
                return False
            return (expires - server_time).total_seconds() <= self._clock() - received

        return Code(value, expired, trace_id)

    def exchange(self, app: App, install: Install, code: Code) -> Tokens:
        """The token pair for a code, which is spent by it. Raises CallFailed, Stopped.

        Source: OpenAPI description of `POST /oauth/token`; form fields in snake_case.
        """
        form = _grant("authorization_code", app, install) | {"code": code.value.reveal()}
        if app.redirect_uri:
            form["redirect_uri"] = app.redirect_uri
        request = _filled(self._token, urlencode(form))
        number = self._enter(Stage.EXCHANGE, _of(install), urgent=True)
        if code.expired():
            self._gate.observe(number, 0, None, {})
            why = "the code was past its time by the server's clock and was not sent"
            raise CallFailed(Answer(Stage.EXCHANGE, message=why, cause=Cause.CODE_REJECTED))
        heard, answer = self._call(number, request, Stage.EXCHANGE, (app.client_secret, code.value))
        return read_tokens(heard, answer, install)

    def refresh(self, app: App, install: Install, old: Secret, window: Window) -> Tokens:
        """The pair that `old` is spent for. Raises CallFailed, Stopped.

        Where no whole answer came, the same call within `window` answers the same pair; past it nothing is sent.
        """
        form = _grant("refresh_token", app, install) | {"refresh_token": old.reveal()}
        request = _filled(self._token, urlencode(form))
        number = self._enter(Stage.REFRESH, _of(install), urgent=window.opened is not None)
        left = window.left(self._clock())
        if left <= 0:
            self._gate.observe(number, 0, None, {})
            why = "the answer was lost, and the time for asking again was over"
            raise CallFailed(Answer(Stage.REFRESH, message=why, cause=Cause.REFRESH_UNKNOWN))
        is_first = window.opened is None
        window.opened = self._clock() if is_first else window.opened
        try:
            # Half of the time, so that a call that hangs can be repeated.
            heard, answer = self._call(number, request, Stage.REFRESH, (app.client_secret, old), within=left / 2)
            return read_tokens(heard, answer, install)
        except CallFailed as failed:
            if is_first and not leaves_in_doubt(failed.answer):
                window.opened = None
            raise

    def location_token(self, install: Install, company_id: str, bearer: Secret) -> Tokens:
        """A pair for a sub-account by its agency's access token; its refresh token may be empty. Raises CallFailed, Stopped.

        Source: OpenAPI description, v3 `POST /oauth/location-token`, and the older `/oauth/locationToken` where the
        first is not known; which one is, is remembered.
        """
        form = {"companyId": company_id, "locationId": install.key.account_id}
        for old in (False, True) if not self._old_location_token else (True,):
            path, version = ("locationToken", "2021-07-28") if old else ("location-token", "v3")
            request = self._with_bearer("POST", f"/oauth/{path}", version, bearer, data=form)
            number = self._enter(Stage.LOCATION_TOKEN, Resource(install.key.client_id, company_id, bearer=True))
            try:
                heard, answer = self._call(number, request, Stage.LOCATION_TOKEN, (bearer,))
            except CallFailed as failed:
                if old or closes(failed.answer) is not Closes.RUN:
                    raise
                continue
            self._old_location_token = old
            break
        return read_tokens(heard, answer, install, agency=company_id)

    def installed_locations(self, client_id: str, company_id: str, bearer: Secret) -> Iterator[dict[str, str]]:
        """The names of an agency's locations that have the app, by id, a page at a time. Raises CallFailed, Stopped.

        Source: OpenAPI description, v3 `GET /oauth/installed-locations`.
        """
        query = {
            "companyId": company_id,
            "appId": client_id.partition("-")[0],
            "isInstalled": "true",
            "pageSize": "100",
        }
        seen: set[str] = set()
        while True:
            request = self._with_bearer("GET", "/oauth/installed-locations", "v3", bearer, params=query)
            number = self._enter(Stage.INSTALLED_LOCATIONS, Resource(client_id, company_id, bearer=True))
            heard, answer = self._call(number, request, Stage.INSTALLED_LOCATIONS, (bearer,))
            page, next_page = read_page(heard, answer)
            yield page
            if not next_page:
                return
            if next_page in seen or len(seen) >= _MOST_PAGES:
                raise heard.failed(answer, Cause.MALFORMED_ANSWER, "HighLevel's list of locations has no end")
            seen.add(next_page)
            query["pageToken"] = next_page

    def _with_bearer(self, method: str, path: str, version: str, bearer: Secret, **more: Any) -> PreparedRequest:
        headers = {**self._headers, "Version": version, "Authorization": f"Bearer {bearer.reveal()}"}
        return requests.Request(method, f"{self._base_url}{path}", headers=headers, **more).prepare()

    def _enter(self, stage: Stage, resource: Resource, *, urgent: bool = False) -> int:
        """The number of a request that may leave now. Raises Stopped, and CallFailed where its resource alone waits."""
        try:
            return self._gate.enter(urgent=urgent, resource=resource)
        except Rests as rests:
            answer = Answer(stage, message=rests.why, retry_after=rests.seconds, cause=Cause.RATE_LIMITED)
            raise CallFailed(answer) from None

    def _call(
        self,
        number: int,
        request: PreparedRequest,
        stage: Stage,
        secrets: tuple[Secret, ...],
        within: float | None = None,
    ) -> tuple[Heard, dict[str, Any]]:
        try:
            raw = self._transport.send(request, within)
        except Exception as error:
            cause = judge(type(error))
            if cause is None:
                raise
            self._gate.observe(number, 0, None, {})
            why = reason(error, self._address)
            answer = Answer(stage, message=why, exception=type(error), cause=cause, never_left=never_left(error))
            raise CallFailed(answer) from None
        heard = Heard(raw, stage, secrets, self._now(), self._transport.close_mine)
        self._heard_last, self._heard_at = heard, self._clock()
        self._gate.observe(number, heard.status, heard.retry_after, raw.headers)
        return heard, read_body(heard)


def _of(install: Install) -> Resource:
    """What a call with the app's credentials is for."""
    return Resource(install.key.client_id, install.key.account_id)


def _grant(grant_type: str, app: App, install: Install) -> dict[str, str]:
    """What every token call says beside what it is granted for."""
    return {
        "client_id": app.client_id,
        "client_secret": app.client_secret.reveal(),
        "grant_type": grant_type,
        "user_type": install.key.level.value,
    }


def _blank(url: str, headers: Mapping[str, str], content_type: str) -> PreparedRequest:
    return requests.Request("POST", url, headers={**headers, "Content-Type": content_type}).prepare()


def _filled(blank: PreparedRequest, body: str) -> PreparedRequest:
    """A request with this body, which is ASCII. What all requests of a call share was worked out once, for the blank one."""
    request = PreparedRequest()
    request.method, request.url, request.headers = blank.method, blank.url, blank.headers.copy()
    request.headers["Content-Length"] = str(len(body))
    request.body = body
    return request
