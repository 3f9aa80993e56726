"""What an agency's token can do: get a token for one of its locations, and list its locations that have the app."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import request

from jobs.sandbox.behaviours import LISTING, LOCATION_TOKEN, Behaviour, Reply, as_json, camel, error
from jobs.sandbox.tokens import pair, read

if TYPE_CHECKING:
    from jobs.sandbox.world import World

_MOST_ON_A_PAGE = 100
_OLD_VERSION = "2021-07-28"


def bearer() -> str:
    """The token that the request came with."""
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def wrong_version(world: World) -> Reply | None:
    """The refusal of a location token call with a path or version that this world does not have, or None."""
    path, version = request.path, request.headers.get("Version", "")
    hyphenated = path.endswith("-token")
    if not version:
        return error(401, "version header was not found.", "UnAuthorized!")
    if not hyphenated and version == "v3":
        return error(400, "This API is not available. This endpoint was removed in version v3, see the docs.")
    known = world.location_token == ("v3" if hyphenated else "old")
    if not known or version != ("v3" if hyphenated else _OLD_VERSION):
        return error(404, f"Cannot POST {path}", "Not Found")
    return None


def refuse_bearer(company_id: str) -> Reply | None:
    """The refusal of this request's token for a company, or None."""
    claims = read(bearer(), "access")
    if claims is None:
        return error(401, "Invalid JWT", "UnAuthorized!")
    if claims["authClass"] != "Company":
        return error(401, "Token's user type mismatch!", "UnAuthorized!")
    if claims["authClassId"] != company_id:
        return error(403, "The token does not have access to this company.", "Forbidden")
    return None


def location_token(world: World, company_id: str, location_id: str, behaviours: tuple[Behaviour, Behaviour]) -> Reply:
    """A new pair for a location, in the shape of the call. The agency and the location decide how it behaves."""
    for one in behaviours:
        if fault := one.instead(LOCATION_TOKEN, {"bearer": bearer()}):
            return fault
    if location_id not in world.installs or world.company_of(location_id) != company_id:
        return error(403, "The token does not have access to this location.", "Forbidden")
    claims = read(bearer(), "access") or {}
    answer = pair("Location", location_id, claims["sourceId"], company_id)
    if not world.location_refresh_token:
        del answer["refresh_token"]
    hyphenated = request.path.endswith("-token")
    shown = camel(answer) if hyphenated else answer
    return behaviours[1].good(LOCATION_TOKEN, shown, 200 if hyphenated else 201)


def listing(world: World, company_id: str, behaviour: Behaviour) -> Reply:
    """A page of the company's locations. As in real life, some of them do not have the app."""
    if fault := behaviour.instead(LISTING, {"bearer": bearer()}):
        return fault
    if request.headers.get("Version") != "v3":
        return error(401, "version header is invalid", "UnAuthorized!")
    app_id = (read(bearer(), "access") or {})["sourceId"].partition("-")[0]
    if request.args.get("appId") != app_id:
        return error(400, "Invalid parameter: appId")
    mine = [
        {"_id": account, "name": account, "address": "", "isInstalled": place.behaviour != "not_installed"}
        for account, place in world.locations_of(company_id).items()
    ]
    size = min(int(request.args.get("pageSize", "20")), _MOST_ON_A_PAGE)
    begin = int(request.args.get("pageToken") or "0")
    more = begin + size < len(mine)
    page = mine[begin : begin + size]
    pagination: dict[str, object] = {"hasNextPage": more, "hasPrevPage": begin > 0, "currentPageSize": len(page)}
    pagination |= {"nextPageToken": str(begin + size)} if more else {}
    return as_json(200, {"items": page, "pagination": pagination})
