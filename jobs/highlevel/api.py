"""The calls of the API. Every request leaves through `_call`, which holds the gate and the scrubbing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import requests
from requests import PreparedRequest

from jobs.core.causes import Closes, closes, leaves_in_doubt
from jobs.core.model import Answer, App, Cause, Install, InstallKey, Level, Stage, Tokens
from jobs.highlevel.network_errors import judge
from jobs.highlevel.parsing import CallFailed, Heard, read_body, read_code, read_page, read_tokens
from jobs.highlevel.proofs import VERSION, filled, proof_for, read_proof
from jobs.highlevel.reasons import Attempted, of_this_machine, reason, why_unreachable
from jobs.highlevel.transport import Dropped, Limits, NotSent, Transport
from jobs.pace.gate import Resource, Rests, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from jobs.core.secret import Secret
    from jobs.pace.gate import Gate

__all__ = ["CallFailed", "Code", "ConnectionLost", "HighLevel", "Limits", "LocalFailure", "Pages", "Window"]

_MOST_PAGES = 10_000


class LocalFailure(CallFailed):
    """No connection could be made, because this machine lacks something or forbids it.

    That uses up no try, and is not an outage.
    """


class ConnectionLost(CallFailed):
    """A request was sent on a kept connection that turned out to be closed. That uses up no try, but a code is gone."""


@dataclass(frozen=True, slots=True)
class Code:
    """An authorization code, whether it has expired by the server's own clock, and the trace id of its answer."""

    value: Secret
    expired: Callable[[], bool]
    trace_id: str = ""


@dataclass(slots=True)
class Window:
    """When a refresh without a whole answer was first sent (monotonic seconds). It is repeated only within 30
    seconds.

    `seconds` leaves five of them for the network. `intended`: it is on disk that it will be sent. Source: HighLevel
    changelog, "Smarter Refresh Token Handling" (API notes, 4).
    """

    opened: float | None = None
    seconds: float = 25.0

    intended: bool = False

    def left(self, now: float) -> float:
        """How many seconds the same call may still be sent for."""
        return self.seconds if self.opened is None else self.opened + self.seconds - now


@dataclass(frozen=True, slots=True)
class _Call:
    """How a request is sent: its stage, whose limits it counts against, and its secrets. A call with a code in hand
    is `urgent`. Some calls go only `once`, or only on a `fresh` connection.
    """

    stage: Stage
    resource: Resource
    secrets: tuple[Secret, ...]
    urgent: bool = False
    once: bool = False
    fresh: bool = False


def _any_time() -> None:
    """Do nothing just before the request leaves. It may take any time."""


@dataclass(slots=True)
class Pages:
    """How far an agency's list of locations was read: the names `found` by id, and which page comes next.

    A page that fails is asked for again, and the pages before it are kept. `failures` counts those of the current
    page.
    """

    client_id: str
    company_id: str
    found: dict[str, str] = field(default_factory=dict)
    whole: bool = False
    failures: int = 0
    next_page: str = ""
    seen: set[str] = field(default_factory=set)


class HighLevel:
    """The calls. `clock` gives monotonic seconds, `now` the operator's time in UTC."""

    def __init__(
        self,
        *,
        base_url: str,
        transport: Transport,
        gate: Gate,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        user_agent: str,
    ) -> None:
        self._transport = transport
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

    @property
    def connecting(self) -> int:
        """How many requests are waiting for their connection."""
        return self._transport.connecting

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
        heard, answer = self._call(request, _Call(Stage.RECONNECT, _of(install), (app.client_secret,)))
        value, expires, trace_id = read_code(heard, answer)
        server_time, received = heard.server_time, self._clock()

        def expired() -> bool:
            if expires is None or server_time is None:
                return False
            return (expires - server_time).total_seconds() <= self._clock() - received

        return Code(value, expired, trace_id)

    def exchange(self, app: App, install: Install, code: Code, *, fresh: bool = False) -> Tokens:
        """The token pair for a code, which is spent by it. Raises CallFailed, Stopped; and ConnectionLost unless
        `fresh`.

        Source: OpenAPI description of `POST /oauth/token`; form fields in snake_case.
        """
        form = _grant("authorization_code", app, install) | {"code": code.value.reveal()}
        if app.redirect_uri:
            form["redirect_uri"] = app.redirect_uri

        def unless_expired() -> None:
            if code.expired():
                why = "the code had expired by the server's clock and was not sent"
                raise CallFailed(Answer(Stage.EXCHANGE, message=why, cause=Cause.CODE_REJECTED))

        call = _Call(Stage.EXCHANGE, _of(install), (app.client_secret, code.value), urgent=True, once=True, fresh=fresh)
        heard, answer = self._call(_filled(self._token, urlencode(form)), call, unless_expired)
        return read_tokens(heard, answer, install)

    def refresh(
        self, app: App, install: Install, old: Secret, window: Window, intend: Callable[[Install], bool]
    ) -> Tokens:
        """The pair that `old` is spent for. Raises CallFailed, Stopped.

        `intend` puts on disk that the token is about to be sent; if it cannot (False), nothing is sent. If no whole
        answer came, the same call within `window` gives the same pair. After that nothing is sent.
        """
        form = _grant("refresh_token", app, install) | {"refresh_token": old.reveal()}
        is_first = window.opened is None

        def in_time_and_on_disk() -> float:
            if window.left(self._clock()) <= 0:
                why = "the answer was lost, and the time for asking again was over"
                raise CallFailed(Answer(Stage.REFRESH, message=why, cause=Cause.REFRESH_UNKNOWN))
            if not window.intended and not intend(install):
                raise Stopped
            window.intended = True
            window.opened = window.opened if window.opened is not None else self._clock()
            return window.left(self._clock()) / 2  # Only half of the time, so that a call that hangs can be repeated.

        # A firewall may have forgotten an idle connection. A request sent over it would be lost, and its result
        # unknown.
        call = _Call(Stage.REFRESH, _of(install), (app.client_secret, old), urgent=not is_first, once=True, fresh=True)
        try:
            heard, answer = self._call(_filled(self._token, urlencode(form)), call, in_time_and_on_disk)
            return read_tokens(heard, answer, install)
        except CallFailed as failed:
            if is_first and not leaves_in_doubt(failed.answer):
                window.opened = None
            raise

    def location_token(self, install: Install, company_id: str, bearer: Secret) -> Tokens:
        """A pair for a sub-account by its agency's access token. Its refresh token may be empty. Raises CallFailed, Stopped.

        The older `/oauth/locationToken` is called if the server does not know `/oauth/location-token`. Which one works is
        remembered. Source: OpenAPI description, v3 and 2021-07-28.
        """
        form = {"companyId": company_id, "locationId": install.key.account_id}
        call = _Call(Stage.LOCATION_TOKEN, Resource(install.key.client_id, company_id, bearer=True), (bearer,))
        for old in (False, True) if not self._old_location_token else (True,):
            path, version = ("locationToken", "2021-07-28") if old else ("location-token", "v3")
            request = self._with_bearer("POST", f"/oauth/{path}", version, bearer, data=form)
            try:
                heard, answer = self._call(request, call)
            except CallFailed as failed:
                if old or closes(failed.answer) is not Closes.RUN:
                    raise
                continue
            self._old_location_token = old
            break
        return read_tokens(heard, answer, install, agency=company_id)

    def installed_locations(self, pages: Pages, bearer: Secret) -> None:
        """Read the next page of an agency's locations that have the app into `pages`. Raises CallFailed, Stopped.

        Source: OpenAPI description, v3 `GET /oauth/installed-locations`.
        """
        query = {
            "companyId": pages.company_id,
            "appId": pages.client_id.partition("-")[0],
            "isInstalled": "true",
            "pageSize": "100",
        } | ({"pageToken": pages.next_page} if pages.next_page else {})
        request = self._with_bearer("GET", "/oauth/installed-locations", "v3", bearer, params=query)
        resource = Resource(pages.client_id, pages.company_id, bearer=True)
        heard, answer = self._call(request, _Call(Stage.INSTALLED_LOCATIONS, resource, (bearer,)))
        page, next_page = read_page(heard, answer)
        if next_page in pages.seen or len(pages.seen) >= _MOST_PAGES:
            raise heard.failed(answer, Cause.MALFORMED_ANSWER, "HighLevel's list of locations has no end")
        pages.seen.add(next_page)
        pages.found |= page
        pages.next_page, pages.whole, pages.failures = next_page, not next_page, 0

    def prove(self, key: InstallKey, token: Secret, scopes: Collection[str] | None) -> None:
        """Return where HighLevel answers `token` with the account that it is of. Raises CallFailed, Stopped.

        It spends nothing. `scopes` choose the call; None: they are not known. Source: see `proofs`.
        """
        proof = proof_for(key.level, scopes)
        path, query = filled(proof, key)
        request = self._with_bearer("GET", path, VERSION, token, params=query)
        resource = Resource(key.client_id, key.account_id, bearer=True)
        heard, answer = self._call(request, _Call(Stage.PROOF, resource, (token,)))
        read_proof(heard, answer, proof, key.account_id)

    def _with_bearer(self, method: str, path: str, version: str, bearer: Secret, **more: Any) -> PreparedRequest:
        headers = {**self._headers, "Version": version, "Authorization": f"Bearer {bearer.reveal()}"}
        return requests.Request(method, f"{self._base_url}{path}", headers=headers, **more).prepare()

    def _call(
        self, request: PreparedRequest, call: _Call, about_to_leave: Callable[[], float | None] = _any_time
    ) -> tuple[Heard, dict[str, Any]]:
        """The answer to a request, which is first connected, then let out by the gate, then sent.

        `about_to_leave` is called when it may leave, and gives the seconds within which the answer must come. If it
        raises, the request is not sent. If a kept connection turns out to be closed, the request is sent once more,
        unless it may go only once.
        """
        try:
            return self._sent(request, call, about_to_leave)
        except ConnectionLost:
            if call.once:
                raise
        return self._sent(request, call, about_to_leave)

    def _sent(
        self, request: PreparedRequest, call: _Call, about_to_leave: Callable[[], float | None]
    ) -> tuple[Heard, dict[str, Any]]:
        number, within = self._let_out(call, about_to_leave)
        try:
            raw = self._transport.send(request, within)
        except NotSent:  # This process slept after the gate had let the request out.
            self._gate.withdraw(number)
            return self._sent(request, call, about_to_leave)
        except Exception as error:
            self._gate.observe(number, 0, None, {})  # Whatever happened, others may be waiting for this request.
            cause = Cause.NETWORK_ERROR if isinstance(error, Dropped) else judge(type(error))
            if cause is None:
                raise
            answer = Answer(call.stage, message=reason(error, self._address), exception=type(error), cause=cause)
            was_kept = isinstance(error, Dropped) and not call.fresh
            raise ConnectionLost(answer) if was_kept else CallFailed(answer) from None
        heard = Heard(raw, call.stage, call.secrets, self._now(), self._transport.close_mine)
        self._heard_last, self._heard_at = heard, self._clock()
        self._gate.observe(number, heard.status, heard.retry_after, raw.headers)
        return heard, read_body(heard)

    def _let_out(self, call: _Call, about_to_leave: Callable[[], float | None]) -> tuple[int, float | None]:
        """The number of a request that leaves now, and within how many seconds its answer must come."""
        number, within = self._turn(call, about_to_leave)
        if not self._transport.wire.is_fit:  # It was closed meanwhile, or idle for too long.
            self._gate.withdraw(number)
            number, within = self._turn(call, about_to_leave)
        return number, within

    def _turn(self, call: _Call, about_to_leave: Callable[[], float | None]) -> tuple[int, float | None]:
        self._connect(call)
        number = self._enter(call)
        try:
            return number, about_to_leave()
        except BaseException:
            self._gate.withdraw(number)
            raise

    def _enter(self, call: _Call) -> int:
        try:
            return self._gate.enter(urgent=call.urgent, resource=call.resource)
        except Rests as rests:
            answer = Answer(call.stage, message=rests.why, retry_after=rests.seconds, cause=Cause.RATE_LIMITED)
            raise CallFailed(answer) from None

    def _connect(self, call: _Call) -> None:
        try:
            self._transport.open(fresh=call.fresh)
        except Exception as error:
            if judge(type(error)) is None:
                raise
            wire = self._transport.wire
            way = Attempted(self._address, wire.address.proxy, wire.reached_proxy, wire.proxy_answered)
            wire.close()
            local = of_this_machine(error, self._address)
            answer = Answer(
                call.stage,
                message=local or why_unreachable(error, way),
                exception=type(error),
                cause=Cause.NETWORK_ERROR,
                never_left=True,
            )
            raise LocalFailure(answer) if local else CallFailed(answer) from None


def _of(install: Install) -> Resource:
    """The resource of a call with the app's credentials."""
    return Resource(install.key.client_id, install.key.account_id)


def _grant(grant_type: str, app: App, install: Install) -> dict[str, str]:
    """The form fields that every token call has."""
    return {
        "client_id": app.client_id,
        "client_secret": app.client_secret.reveal(),
        "grant_type": grant_type,
        "user_type": install.key.level.value,
    }


def _blank(url: str, headers: Mapping[str, str], content_type: str) -> PreparedRequest:
    return requests.Request("POST", url, headers={**headers, "Content-Type": content_type}).prepare()


def _filled(blank: PreparedRequest, body: str) -> PreparedRequest:
    """A request with this ASCII body. The parts that all requests of a call share were prepared once, in `blank`."""
    request = PreparedRequest()
    request.method, request.url, request.headers = blank.method, blank.url, blank.headers.copy()
    request.headers["Content-Length"] = str(len(body))
    request.body = body
    return request
