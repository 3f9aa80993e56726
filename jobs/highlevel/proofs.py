"""The calls by which an access token proves itself: each asks for the token's own account.

The paths, the `Version` header, the scopes and the place of the account's id in each answer come from HighLevel's OpenAPI
descriptions of `GET /locations/{locationId}`, `GET /oauth/installedLocations` and `GET /companies/{companyId}`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobs.core.model import Cause, Level

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from jobs.core.model import InstallKey
    from jobs.highlevel.parsing import Heard

VERSION = "2021-07-28"


@dataclass(frozen=True, slots=True)
class Proof:
    """A call: its path and query (with `account` and `app` left to fill in), the scope it needs, and what it answers with.

    The answer has what was asked for under the name `holds`. `named` says whether that has the account's id.
    """

    path: str
    scope: str
    holds: str
    named: bool = True
    query: Mapping[str, str] = field(default_factory=dict)


_LISTING = {"companyId": "{account}", "appId": "{app}", "limit": "1"}
PROOFS: Mapping[Level, tuple[Proof, ...]] = {
    Level.SUB_ACCOUNT: (Proof("/locations/{account}", "locations.readonly", "location"),),
    Level.AGENCY: (
        # The answer names no company, but HighLevel gives it only to the token of that company.
        Proof("/oauth/installedLocations", "oauth.readonly", "locations", named=False, query=_LISTING),
        Proof("/companies/{account}", "companies.readonly", "company"),
    ),
}


def proof_for(level: Level, scopes: Collection[str] | None) -> Proof:
    """The first call that these scopes allow. If they allow none, or are not known, it is the first in the table."""
    calls = PROOFS[level]
    return next((one for one in calls if scopes is not None and one.scope in scopes), calls[0])


def filled(proof: Proof, key: InstallKey) -> tuple[str, dict[str, str]]:
    """The path and the query of a call for this install."""
    words = {"account": key.account_id, "app": key.client_id.partition("-")[0]}
    return proof.path.format(**words), {name: value.format(**words) for name, value in proof.query.items()}


def read_proof(heard: Heard, body: dict[str, Any], proof: Proof, account_id: str) -> None:
    """Raises CallFailed if the answer is not for this account. Nothing in the answer is kept."""
    held = body.get(proof.holds)
    if not isinstance(held, dict if proof.named else list):
        raise heard.failed({}, Cause.MALFORMED_ANSWER, f"HighLevel's answer held no {proof.holds}")
    said = held.get("id") if isinstance(held, dict) else account_id
    if not isinstance(said, str) or not said:
        raise heard.failed({}, Cause.MALFORMED_ANSWER, "HighLevel's answer held no usable account id")
    if said != account_id:
        raise heard.failed({}, Cause.WRONG_ACCOUNT, "the answer names another account")
