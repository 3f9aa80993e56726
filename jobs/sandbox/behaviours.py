"""A table of how an install can behave. A fault answers a call instead of the server, or changes its good answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.sandbox import tokens

if TYPE_CHECKING:
    from collections.abc import Callable

RECONNECT = "reconnect"
TOKEN = "token"  # noqa: S105 - the name of a call
LOCATION_TOKEN = "location_token"  # noqa: S105 - likewise
LISTING = "installed_locations"
REFRESH = "refresh"
PROOF = "proof"  # What an access token is asked with for its own account.


@dataclass(frozen=True)
class Reply:
    """An answer as it is sent. `length` lies about the body's length. `drop` closes the connection instead."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = None
    drop: bool = False


@dataclass(frozen=True)
class Behaviour:
    """A behaviour at `call`, and at the calls in `also`.

    `reply` replaces the whole answer and spends only a code. `bend` changes the good answer, so the code or the refresh
    token is spent.
    """

    call: str = ""
    reply: Callable[[dict[str, str]], Reply] | None = None
    bend: Callable[[dict[str, Any]], Reply] | None = None
    also: tuple[str, ...] = ()

    def at(self, call: str) -> bool:
        """Whether it shows at this call."""
        return call == self.call or call in self.also

    def instead(self, call: str, sent: dict[str, str]) -> Reply | None:
        """What this call answers instead of doing anything, if it does. `sent` are the secrets that it may echo."""
        return self.reply(sent) if self.reply and self.at(call) else None

    def good(self, call: str, body: dict[str, Any], status: int = 200) -> Reply:
        """The good answer of this call, or what it becomes."""
        return self.bend(body) if self.bend and self.at(call) else as_json(status, body)


def as_json(status: int, body: object) -> Reply:
    """A JSON answer."""
    return Reply(status, json.dumps(body).encode())


def error(status: int, message: object, name: str = "Bad Request") -> Reply:
    """An error in HighLevel's shape."""
    return as_json(status, {"statusCode": status, "message": message, "error": name, "traceId": "sandbox-trace-1"})


def _at(call: str, reply: Reply, also: tuple[str, ...] = ()) -> Behaviour:
    return Behaviour(call, reply=lambda _: reply, also=also)


def _bent(change: Callable[[dict[str, Any]], dict[str, Any]], status: int = 200, call: str = TOKEN) -> Behaviour:
    return Behaviour(call, bend=lambda answer: as_json(status, change(answer)))


def camel(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer with the field names of version v3."""

    def name(snake: str) -> str:
        first, *rest = snake.split("_")
        return first + "".join(part.title() for part in rest)

    return {name(key): value for key, value in answer.items()}


def _agency(answer: dict[str, Any]) -> dict[str, Any]:
    """The agency's pair instead of the sub-account's."""
    company, claims = answer["companyId"], tokens.read(answer["access_token"], "access") or {}
    return tokens.pair("Company", company, claims["sourceId"], company)


def _of_another(answer: dict[str, Any]) -> dict[str, Any]:
    """The account of somebody else, where the answer names one."""
    somebody = {"id": "SomebodyElse00000001", "name": "Somebody else"}
    return {name: somebody if isinstance(value, dict) else value for name, value in answer.items()}


def _echo(sent: dict[str, str]) -> Reply:
    secrets = " ".join(sent.values())
    return as_json(400, {"statusCode": 400, "message": f"cannot read {secrets}", "error": secrets, "traceId": secrets})


def _cut(answer: dict[str, Any]) -> Reply:
    body = json.dumps(answer).encode()
    return Reply(200, body[:200], length=len(body))


_NO_GRANT = {"error": "invalid_grant", "error_description": "Invalid grant: authorization code is invalid"}

NO_SCOPE = "The token is not authorized for this scope."

BEHAVIOURS: dict[str, Behaviour] = {
    "recovered": Behaviour(),
    "recovered_camel_case": _bent(camel),
    "recovered_201": _bent(dict, 201),
    "not_installed": _at(RECONNECT, error(400, "No installation found for this location"), (LOCATION_TOKEN,)),
    "location_inactive": _at(TOKEN, error(400, "Location is not active"), (LOCATION_TOKEN, REFRESH)),
    "reconnect_removed": _at(RECONNECT, error(400, "API endpoint has been removed")),
    "reconnect_gone": _at(RECONNECT, Reply(404, b"<pre>Cannot POST /oauth/reconnect</pre>", "text/html")),
    "credentials_rejected": _at(RECONNECT, error(401, "Invalid client credentials!", "UnAuthorized!")),
    "request_refused": _at(TOKEN, error(422, ["property userType should not exist"], "Unprocessable Entity")),
    "bad_version": _at(RECONNECT, error(401, "version header was not found.", "UnAuthorized!")),
    "code_rejected": _at(TOKEN, as_json(400, _NO_GRANT)),
    "code_not_found": _at(TOKEN, error(401, "Authorization code not found", "UnAuthorized!")),
    "code_expired": Behaviour(RECONNECT),
    "wrong_account": _bent(lambda answer: answer | {"locationId": "SomebodyElse00000001"}),
    "wrong_company": _bent(lambda answer: answer | {"companyId": "SomebodyElse00000001"}),
    "wrong_user_type": _bent(_agency),
    "malformed_html": _at(TOKEN, Reply(200, b"<html>Please wait</html>", "text/html")),
    "malformed_empty": _at(TOKEN, as_json(200, {})),
    "malformed_token": _bent(lambda answer: answer | {"access_token": "bad\x1b[31mtoken"}),
    "malformed_cut": Behaviour(TOKEN, bend=_cut),
    "server_error": _at(RECONNECT, error(500, "Internal server error", "Internal Server Error")),
    "bad_gateway": _at(TOKEN, Reply(502, b"<html>Bad gateway</html>", "text/html")),
    "drop_before": _at(RECONNECT, Reply(drop=True)),
    "drop_after": Behaviour(TOKEN, bend=lambda _: Reply(drop=True)),
    "rate_limited": _at(RECONNECT, Reply(429, b'{"message":"Too many requests"}', headers=(("Retry-After", "1"),))),
    "echo_secrets": Behaviour(TOKEN, reply=_echo, also=(LOCATION_TOKEN, LISTING, REFRESH, PROOF)),
    "no_access": _at(LOCATION_TOKEN, error(403, "The token does not have access to this location.", "Forbidden")),
    "no_oauth_write": _at(LOCATION_TOKEN, error(401, NO_SCOPE, "UnAuthorized!")),
    "no_oauth_readonly": _at(LISTING, error(401, NO_SCOPE, "UnAuthorized!")),
    "location_token_error": _at(LOCATION_TOKEN, Reply(502, b"<html>Bad gateway</html>", "text/html")),
    "location_token_wrong": _bent(lambda answer: answer | {"locationId": "SomebodyElse00000001"}, 200, LOCATION_TOKEN),
    "listing_error": _at(LISTING, Reply(502, b"<html>Bad gateway</html>", "text/html")),
    "refresh_lost": Behaviour(REFRESH, bend=lambda _: Reply(drop=True)),
    "refresh_error": _at(REFRESH, error(500, "Internal server error", "Internal Server Error")),
    "refresh_revoked": _at(REFRESH, error(401, "Invalid client credentials!", "UnAuthorized!")),
    "refresh_wrong_account": _bent(lambda answer: answer | {"locationId": "SomebodyElse00000001"}, 200, REFRESH),
    "pair_dead": _at(PROOF, error(401, "Invalid JWT", "UnAuthorized!")),
    "pair_without_scope": _at(PROOF, error(401, NO_SCOPE, "UnAuthorized!")),
    "pair_of_another": _bent(_of_another, 200, PROOF),
    "proof_error": _at(PROOF, error(500, "Internal server error", "Internal Server Error")),
    "proof_limited": _at(PROOF, Reply(429, b'{"message":"Too many requests"}')),
    "proof_html": _at(PROOF, Reply(200, b"<html>Please wait</html>", "text/html")),
    "proof_firewall": _at(PROOF, Reply(403, b"error code: 1010", "text/plain")),
    "proof_drop": _at(PROOF, Reply(drop=True)),
}
