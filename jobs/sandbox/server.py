"""The calls over real HTTP: how each request is answered, and a record of all requests."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g, request

from jobs.sandbox import accounts, agencies
from jobs.sandbox.behaviours import (
    BEHAVIOURS,
    LISTING,
    LOCATION_TOKEN,
    PROOF,
    RECONNECT,
    REFRESH,
    TOKEN,
    Behaviour,
    Reply,
    as_json,
    error,
)
from jobs.sandbox.connections import NO_ANSWER, Server, serving
from jobs.sandbox.limits import Meter
from jobs.sandbox.oauth import Code, Codes, server_for
from jobs.sandbox.tokens import Refreshes, pair, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs.sandbox.world import World

_FORM = {"client_id", "client_secret", "grant_type", "code", "refresh_token", "user_type", "redirect_uri"}


@dataclass(frozen=True)
class Seen:
    """A request as the server saw it. `at` is monotonic seconds."""

    at: float
    call: str
    account_id: str
    status: int
    path: str = ""


@dataclass
class Sandbox:
    """A running sandbox: its address, the world that it plays (which may be replaced), and everything that it saw.

    `connections` are the origins of all connections that were opened. `hear` is given the body of each answer before it leaves.
    """

    world: World
    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    connections: list[tuple[str, int]] = field(default_factory=list)
    hear: Callable[[bytes], None] | None = None
    codes: Codes = field(default_factory=Codes)
    refreshes: Refreshes = field(default_factory=Refreshes)
    tries: Counter[str] = field(default_factory=Counter)
    meters: dict[str, Meter] = field(default_factory=dict)
    random: Random = field(default_factory=Random)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def codes_sent_twice(self) -> list[str]:
        """Codes that were sent more than once."""
        return [code for code, times in Counter(self.codes.sent).items() if times > 1]

    def old_pair(self, account_id: str, level: str = "Location", client_id: str = "") -> dict[str, Any]:
        """A pair that this account had before the incident and that is still valid."""
        company = account_id if level == "Company" else self.world.company_of(account_id)
        return pair(level, account_id, client_id or next(iter(self.world.clients)), company)


def make_app(sandbox: Sandbox) -> Flask:
    """The web application of a sandbox."""
    app = Flask("sandbox")
    sandbox.refreshes.window_seconds = sandbox.world.refresh_window_seconds
    oauth = server_for(app, sandbox.world, sandbox.codes, sandbox.refreshes)

    @app.post("/oauth/reconnect")
    def reconnect() -> Response:
        sent = request.get_json(silent=True)
        sent = sent if isinstance(sent, dict) else {}
        account = str(sent.get("locationId") or sent.get("companyId") or "")
        return _answered(sandbox, RECONNECT, account, _reconnect(sandbox, sent, account))

    @app.post("/oauth/token")
    def token() -> Response:
        if request.form.get("grant_type") == "refresh_token":
            claims = read(request.form.get("refresh_token", ""), "refresh") or {}
            account = str(claims.get("authClassId", ""))
            return _answered(sandbox, REFRESH, account, _refresh(sandbox, oauth, account))
        code = sandbox.codes.live.get(request.form.get("code", ""))
        account = code.account_id if code else ""
        return _answered(sandbox, TOKEN, account, _token(sandbox, oauth, account))

    _agency_calls(app, sandbox)
    _account_calls(app, sandbox)

    @app.errorhandler(404)
    def unknown(_: object) -> Response:
        return _out(error(404, f"Cannot {request.method} {request.path}", "Not Found"))

    return app


def _agency_calls(app: Flask, sandbox: Sandbox) -> None:
    @app.post("/oauth/location-token")
    @app.post("/oauth/locationToken")
    def location_token() -> Response:
        location = request.form.get("locationId", "")
        company = request.form.get("companyId", "")
        reply = _refused(sandbox, company) or agencies.wrong_version(sandbox.world) or agencies.refuse_bearer(company)
        if not reply:
            with sandbox.lock:
                sandbox.tries[location] += 1
            behaviours = (_as_it_is(sandbox, company), _behaviour(sandbox, location, LOCATION_TOKEN))
            reply = agencies.location_token(sandbox.world, company, location, behaviours)
        return _answered(sandbox, LOCATION_TOKEN, location, reply)

    @app.get("/oauth/installed-locations")
    def installed_locations() -> Response:
        company = request.args.get("companyId", "")
        refused = _refused(sandbox, company) or agencies.refuse_bearer(company)
        reply = refused or agencies.listing(sandbox.world, company, _behaviour(sandbox, company, LISTING))
        return _answered(sandbox, LISTING, company, reply)


def _account_calls(app: Flask, sandbox: Sandbox) -> None:
    def behaviour(account: str) -> Behaviour:
        with sandbox.lock:
            sandbox.tries[account] += 1
        return _behaviour(sandbox, account, PROOF)

    @app.get("/locations/<location_id>")
    def location(location_id: str) -> Response:
        reply = _refused(sandbox) or accounts.location(sandbox.world, location_id, behaviour(location_id))
        return _answered(sandbox, PROOF, location_id, reply)

    @app.get("/companies/<company_id>")
    def company(company_id: str) -> Response:
        reply = _refused(sandbox, company_id) or accounts.company(company_id, behaviour(company_id))
        return _answered(sandbox, PROOF, company_id, reply)

    @app.get("/oauth/installedLocations")
    def locations_of_company() -> Response:
        company_id = request.args.get("companyId", "")
        refused = _refused(sandbox, company_id)
        reply = refused or accounts.installed_locations(sandbox.world, company_id, behaviour(company_id))
        return _answered(sandbox, PROOF, company_id, reply)


def _answered(sandbox: Sandbox, call: str, account: str, reply: Reply) -> Response:
    if sandbox.world.latency_seconds:
        time.sleep(sandbox.world.latency_seconds)
    with sandbox.lock:
        if sandbox.hear:
            sandbox.hear(reply.body)
        sandbox.seen.append(Seen(time.monotonic(), call, account, 0 if reply.drop else reply.status, request.path))
    return _out(replace(reply, headers=(*reply.headers, *g.shown)))


def _reconnect(sandbox: Sandbox, sent: dict[str, Any], account: str) -> Reply:
    world = sandbox.world
    if refused := _refused(sandbox):
        return refused
    if world.reconnect_removed:
        return error(400, "API endpoint has been removed")
    ids = [name for name in ("locationId", "companyId") if sent.get(name)]
    if len(ids) != 1:
        return error(400, "Missing parameter: one of locationId, companyId")
    if world.clients.get(sent.get("clientKey", "")) != sent.get("clientSecret"):
        return error(401, "Invalid client credentials!", "UnAuthorized!")
    with sandbox.lock:
        sandbox.tries[account] += 1
    behaviour = _behaviour(sandbox, account, RECONNECT)
    if fault := behaviour.instead(RECONNECT, {"secret": str(sent["clientSecret"])}):
        return fault
    lifetime = 0.0 if behaviour.at(RECONNECT) else world.code_lifetime_seconds
    level = "Location" if ids == ["locationId"] else "Company"
    code = sandbox.codes.hand_out(Code(sent["clientKey"], account, level, time.monotonic() + lifetime))
    expires = datetime.now(UTC) + timedelta(seconds=lifetime + world.clock_skew_seconds)
    shown = expires.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return as_json(200, {"authorizationCode": code, "expiresAt": shown, "traceId": f"trace-{account}"})


def _token(sandbox: Sandbox, oauth: Any, account: str) -> Reply:  # noqa: PLR0911 - one for each answer
    if refused := _refused(sandbox):
        return refused
    unknown = sorted(set(request.form) - _FORM)
    if unknown:
        return error(422, [f"property {name} should not exist" for name in unknown], "Unprocessable Entity")
    missing = sorted({"client_id", "client_secret", "grant_type", "code", "user_type"} - set(request.form))
    if missing:
        return error(400, f"Missing parameter: {missing[0]}")
    behaviour = _behaviour(sandbox, account, TOKEN) if account else Behaviour()
    secrets = {"secret": request.form["client_secret"], "code": request.form["code"]}
    if fault := behaviour.instead(TOKEN, secrets):
        sandbox.codes.spend(request.form["code"])
        return fault
    answer = oauth.create_token_response()
    body = answer.get_json()
    if body.get("error") == "invalid_client":
        return error(401, "Invalid client credentials!", "UnAuthorized!")
    if answer.status_code >= 400:  # noqa: PLR2004 - the client errors begin here
        return as_json(400, {**body, "error_description": "Invalid grant: authorization code is invalid"})
    return behaviour.good(TOKEN, body)


def _refresh(sandbox: Sandbox, oauth: Any, account: str) -> Reply:
    if refused := _refused(sandbox):
        return refused
    missing = sorted({"client_id", "client_secret", "refresh_token", "user_type"} - set(request.form))
    if missing:
        return error(400, f"Missing parameter: {missing[0]}")
    token = request.form["refresh_token"]
    with sandbox.refreshes.lock:
        sandbox.tries[account] += 1
        behaviour = _behaviour(sandbox, account, REFRESH) if account else Behaviour()
        if fault := behaviour.instead(REFRESH, {"secret": request.form["client_secret"], "old": token}):
            return fault
        body = sandbox.refreshes.repeated(token, request.form["client_id"])
        how = "repeated" if body else "spent"
        if not body:
            answer = oauth.create_token_response()
            body = answer.get_json()
            if answer.status_code >= 400:  # noqa: PLR2004 - the client errors begin here
                sandbox.refreshes.note(token, "refused")
                if body.get("error") == "invalid_client":
                    return error(401, "Invalid client credentials!", "UnAuthorized!")
                return error(400, "Invalid grant: refresh token is invalid")
        sandbox.refreshes.note(token, how)
    return behaviour.good(REFRESH, body)


def _refused(sandbox: Sandbox, company: str = "") -> Reply | None:
    """The refusal of a call that is too fast, or None. A call for a `company` with its own limit counts against that."""
    own = sandbox.world.agency_limits.get(company)
    with sandbox.lock:
        now = time.monotonic()
        meter = sandbox.meters.setdefault(company if own else "", Meter(own or sandbox.world.limit))
        refused = meter.take(now)
        g.shown = meter.shown(now)
    return refused


def _behaviour(sandbox: Sandbox, account: str, call: str) -> Behaviour:
    """How this call behaves: a random fault, or else as the account does."""
    with sandbox.lock:
        drawn = sandbox.random.random()
    for name, share in sandbox.world.faults.items():
        fault = BEHAVIOURS[name]
        if fault.call == call or fault.reply:
            drawn -= share
            if drawn < 0:
                return replace(fault, call=call)
    return _as_it_is(sandbox, account)


def _as_it_is(sandbox: Sandbox, account: str) -> Behaviour:
    place = sandbox.world.place(account)
    healed = place.heals_after is not None and sandbox.tries[account] > place.heals_after
    return BEHAVIOURS["recovered" if healed else place.behaviour]


def _out(reply: Reply) -> Response:
    if reply.drop:
        return Response(status=NO_ANSWER)
    response = Response(reply.body, reply.status, [*reply.headers], content_type=reply.content_type)
    if reply.length is not None:
        response.headers["Content-Length"] = str(reply.length)
        response.headers["Connection"] = "close"
    return response


@contextmanager
def running(world: World, port: int = 0) -> Iterator[Sandbox]:
    """A sandbox on this machine's loopback address, during the block. Raises OSError if the port is taken."""
    sandbox = Sandbox(world, random=Random(world.seed))
    server = Server(world, port, make_app(sandbox), sandbox.connections)
    sandbox.url = f"http://127.0.0.1:{server.port}"
    with serving(server):
        yield sandbox
