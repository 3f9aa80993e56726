"""The claims of a token. HighLevel's tokens are JWTs, whose payload can be read without the key that signed them.

Source of the names: API notes, section 4 (`authClass`, `authClassId`, `sourceId`, `exp`). Source of `oauthMeta.scopes`:
payloads that people have shown in public. Source of the lengths: RFC 7518.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.core.model import InstallKey
    from jobs.core.secret import Secret

EXPIRED = "the token has expired"
_BEGINS_AS_JSON = "eyJ"
_PARTS = 3
_SHORTEST_SIGNATURE = 43
_SIGNATURES = {"HS384": 64, "HS512": 86, "RS256": 342, "RS384": 342, "RS512": 342, "PS256": 342, "ES256": 86}
# The end of the year 9999. A later time does not fit into a date.
_LATEST = 253_402_300_799
_SENDABLE = re.compile(r"[\x21-\x7e]{1,16384}")


@dataclass(frozen=True, slots=True)
class Claims:
    """Whose token it is. A missing claim is empty. `expires` is in seconds since 1970, up to the year 9999, or None.

    `scopes`: what the token may do, or None if it does not say.
    """

    level: str
    account_id: str
    client_id: str
    expires: float | None
    scopes: frozenset[str] | None = None


def read_claims(token: Secret) -> Claims | None:
    """The claims in the payload of `token`, or None if it cannot be read."""
    parts = token.reveal().split(".")
    payload = _part(parts[1]) if len(parts) == _PARTS else None
    if payload is None:
        return None
    return Claims(
        _text(payload, "authClass"),
        _text(payload, "authClassId"),
        _text(payload, "sourceId"),
        _moment(payload.get("exp")),
        _scopes(payload.get("oauthMeta")),
    )


def names_another(token: Secret, key: InstallKey) -> str:
    """Why `token` is not one of the install `key`, by its claims. Empty if nothing in them speaks against it."""
    claims = read_claims(token)
    if claims is None:
        return ""
    if claims.client_id not in ("", key.client_id):
        return "the token belongs to another app"
    if claims.level not in ("", key.level) or claims.account_id not in ("", key.account_id):
        return "the token belongs to another install"
    return ""


def why_useless(token: Secret, key: InstallKey, now: float) -> str:
    """Why no server would accept `token` for the install `key`. Empty if nothing speaks against it. `now` is in
    seconds since 1970.
    """
    text = token.reveal()
    parts = text.split(".")
    claims = read_claims(token)
    if not _SENDABLE.fullmatch(text):
        return "the token holds characters that no token has"
    if claims is None:
        cut = text.startswith(_BEGINS_AS_JSON) and len(parts) < _PARTS
        return "the token is cut off: a part of it is missing" if cut else ""
    algorithm = _text(_part(parts[0]) or {}, "alg")
    checks = (
        (
            len(parts[-1]) < _SIGNATURES.get(algorithm, _SHORTEST_SIGNATURE),
            "the token is cut off: its signature is short",
        ),
        (foreign := names_another(token, key), foreign),
        (claims.expires is not None and claims.expires <= now, EXPIRED),
    )
    return next((words for wrong, words in checks if wrong), "")


def _part(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(payload: dict[str, Any], name: str) -> str:
    value = payload.get(name)
    return value if isinstance(value, str) else ""


def _scopes(meta: Any) -> frozenset[str] | None:
    found = meta.get("scopes") if isinstance(meta, dict) else None
    return frozenset(one for one in found if isinstance(one, str)) if isinstance(found, list) else None


def _moment(value: Any) -> float | None:
    """Seconds since 1970, or None if `value` is not a finite number in range."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= _LATEST else None
