"""The calls that an access token is good for by itself: its location, its company, the locations that have the app.

Shapes, scopes and the `Version` header are those of HighLevel's published descriptions of these three calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import request

from jobs.sandbox.agencies import bearer, refuse_bearer
from jobs.sandbox.behaviours import NO_SCOPE, PROOF, Behaviour, Reply, error
from jobs.sandbox.tokens import read

if TYPE_CHECKING:
    from jobs.sandbox.world import World

_VERSION = "2021-07-28"
_LOCATION_SCOPE, _COMPANY_SCOPE, _LISTING_SCOPE = "locations.readonly", "companies.readonly", "oauth.readonly"


def location(world: World, location_id: str, behaviour: Behaviour) -> Reply:
    """A location, for its own token or its agency's."""
    claims = read(bearer(), "access") or {}
    mine = location_id if claims.get("authClass") == "Location" else world.company_of(location_id)
    no_access = claims.get("authClassId") != mine
    refused = _refused(_LOCATION_SCOPE, behaviour)
    if not refused and no_access:
        refused = error(403, "The token does not have access to this location.", "Forbidden")
    shown = {"id": location_id, "companyId": world.company_of(location_id), "name": f"Business {location_id}"}
    return refused or _good({"location": shown | {"email": "owner@example.com", "country": "US"}}, behaviour)


def company(company_id: str, behaviour: Behaviour) -> Reply:
    """A company, for its own token."""
    shown = {"id": company_id, "name": f"Agency {company_id}", "email": "agency@example.com", "locationCount": 1}
    return _refused(_COMPANY_SCOPE, behaviour) or refuse_bearer(company_id) or _good({"company": shown}, behaviour)


def installed_locations(world: World, company_id: str, behaviour: Behaviour) -> Reply:
    """Locations of a company that have the app, for the company's own token."""
    refused = _refused(_LISTING_SCOPE, behaviour) or refuse_bearer(company_id)
    missing = [name for name in ("companyId", "appId") if not request.args.get(name)]
    if refused or missing:
        return refused or error(422, [f"{name} should not be empty" for name in missing], "Unprocessable Entity")
    mine = [
        {"_id": account, "name": f"Business {account}", "address": "", "isInstalled": True}
        for account in world.locations_of(company_id)
    ]
    skip, limit = (int(request.args.get(name, usual)) for name, usual in (("skip", "0"), ("limit", "20")))
    page = {"locations": mine[skip : skip + limit], "count": len(mine), "installToFutureLocations": False}
    return _good(page, behaviour)


def _refused(scope: str, behaviour: Behaviour) -> Reply | None:
    """How this request is refused before its account is looked at, if it is."""
    version = request.headers.get("Version", "")
    if version != _VERSION:
        words = "version header is invalid" if version else "version header was not found."
        return error(401, words, "UnAuthorized!")
    claims = read(bearer(), "access")
    if claims is None:
        return error(401, "Invalid JWT", "UnAuthorized!")
    if fault := behaviour.instead(PROOF, {"bearer": bearer()}):
        return fault
    if scope not in claims["oauthMeta"]["scopes"]:
        return error(401, NO_SCOPE, "UnAuthorized!")
    return None


def _good(body: dict[str, object], behaviour: Behaviour) -> Reply:
    return behaviour.good(PROOF, body | {"traceId": "sandbox-trace-2"})
