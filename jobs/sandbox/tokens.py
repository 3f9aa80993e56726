"""Token pairs as HighLevel makes them: signed JWTs, so that one sandbox accepts the tokens of another.

The sandbox remembers the pair that each refresh token was spent for. The same call within the window gets the same pair.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

# This is not a secret: the server exists only for the user who started it.
_KEY = b"the sandbox signs with this"
_YEAR = 31_536_000
_DAY = 86_399
SCOPES = {
    "Location": "contacts.readonly contacts.write locations.readonly",
    "Company": "companies.readonly contacts.readonly contacts.write locations.readonly oauth.readonly oauth.write",
}
# A real refresh token is over 512 characters long.
_FILLING = "sandbox " * 50


def mint(
    kind: str, level: str, account_id: str, client_id: str, company_id: str, lifetime: float, scope: str | None = None
) -> str:
    """A signed token of one `kind` (access or refresh) that is valid for `lifetime` seconds. `scope` replaces that of its level."""
    now = int(time.time())
    granted = SCOPES[level] if scope is None else scope
    claims = {
        "kind": kind, "authClass": level, "authClassId": account_id, "primaryAuthClassId": account_id,
        "source": "INTEGRATION", "sourceId": client_id, "channel": "OAUTH", "company": company_id,
        "oauthMeta": {"scopes": granted.split(), "client": client_id.partition("-")[0]},
        "iat": now, "exp": int(now + lifetime), "jti": secrets.token_hex(8), "filling": _FILLING,
    }  # fmt: skip
    signed = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims)}"
    return f"{signed}.{_signature(signed)}"


def read(token: str, kind: str) -> dict[str, Any] | None:
    """The claims of a valid token of that `kind`, or None for any other text."""
    signed, _, signature = token.rpartition(".")
    if not hmac.compare_digest(_signature(signed), signature):
        return None
    middle = signed.partition(".")[2]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return claims if claims["kind"] == kind and claims["exp"] > time.time() else None


def pair(level: str, account_id: str, client_id: str, company_id: str) -> dict[str, Any]:
    """The token answer for an account, in snake_case."""
    answer = {
        "access_token": mint("access", level, account_id, client_id, company_id, _DAY),
        "refresh_token": mint("refresh", level, account_id, client_id, company_id, _YEAR),
        "token_type": "Bearer",
        "expires_in": _DAY,
        "scope": SCOPES[level],
        "userType": level,
        "companyId": company_id,
        "userId": "SandboxUser000000001",
        "traceId": secrets.token_hex(8),
    }
    return answer | ({"locationId": account_id} if level == "Location" else {})


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _signature(signed: str) -> str:
    return base64.urlsafe_b64encode(hmac.digest(_KEY, signed.encode(), hashlib.sha256)).rstrip(b"=").decode()


@dataclass(frozen=True)
class Spend:
    """A refresh token that was sent, and how that ended (`spent`, `repeated`, `refused`). `at` is monotonic seconds."""

    token: str
    account_id: str
    how: str
    at: float


@dataclass
class Refreshes:
    """Every refresh token that was sent, and the pair that each spent one was spent for."""

    window_seconds: float = 30.0
    sent: list[Spend] = field(default_factory=list)
    answers: dict[str, tuple[float, str, dict[str, Any]]] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def repeated(self, token: str, client_id: str) -> dict[str, Any] | None:
        """The pair that `token` was spent for, if the same client asks again within the window."""
        at, client, answer = self.answers.get(token, (float("-inf"), "", {}))
        return answer if client == client_id and time.monotonic() - at <= self.window_seconds else None

    def lives(self, token: str) -> bool:
        """Whether the token is neither spent nor revoked."""
        return token not in self.answers and token not in self.revoked

    def spend(self, token: str, client_id: str, answer: dict[str, Any]) -> None:
        """Spend `token` for the pair of `answer`."""
        self.answers[token] = (time.monotonic(), client_id, answer)

    def note(self, token: str, how: str) -> None:
        """Remember that `token` was sent."""
        claims = read(token, "refresh") or {}
        self.sent.append(Spend(token, str(claims.get("authClassId", "")), how, time.monotonic()))

    @property
    def sent_after_their_end(self) -> list[str]:
        """Accounts whose spent token was sent again after the window."""
        spent: set[str] = set()
        late = []
        for one in self.sent:
            if one.how == "spent":
                spent.add(one.token)
            elif one.how == "refused" and one.token in spent:
                late.append(one.account_id)
        return late
