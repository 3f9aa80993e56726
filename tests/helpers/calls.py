"""Each call of the API, how it is made, and a good answer to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.core.model import App, Install, InstallKey, Level
from jobs.core.secret import Secret
from jobs.highlevel.api import Code, Pages, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.highlevel.api import HighLevel

SECRET = "canary-of-the-bad-server/+"
APP = App("client-1", Secret(SECRET))
INSTALL = Install(InstallKey("client-1", Level.SUB_ACCOUNT, "LocA"), "CoA")


@dataclass(frozen=True)
class Call:
    """A call of the API: how it is made, the body of its good answer, the fields that may be anything, and that may be empty."""

    make: Callable[[HighLevel], object]
    good: dict[str, object]
    optional: frozenset[str]
    may_be_empty: frozenset[str] = frozenset()
    fresh: bool = False  # Each has a connection of its own.
    once: bool = False  # What it spends may be spent though no answer came.


CALLS = {
    "reconnect": Call(
        lambda api: api.reconnect(APP, INSTALL),
        {"authorizationCode": "the-code-1", "expiresAt": "2099-11-24T10:00:30.000Z", "traceId": "trace-1"},
        frozenset({"expiresAt", "traceId"}),
    ),
    "exchange": Call(
        lambda api: api.exchange(APP, INSTALL, Code(Secret("the-code-1"), lambda: False)),
        {
            "access_token": "access.jwt", "refresh_token": "refresh.jwt", "token_type": "Bearer", "expires_in": 86399,
            "scope": "a b", "userType": "Location", "locationId": "LocA", "companyId": "CoA", "userId": "u",
            "traceId": "trace-1",
        },
        frozenset({"token_type", "expires_in", "scope", "companyId", "userId", "traceId"}),
        once=True,
    ),
    "refresh": Call(
        lambda api: api.refresh(APP, INSTALL, Secret("the-code-1"), Window(), lambda _: True),
        {"accessToken": "access.jwt", "refreshToken": "refresh.jwt", "userType": "Location", "locationId": "LocA"},
        frozenset(),
        fresh=True,
        once=True,
    ),
    "location_token": Call(
        lambda api: api.location_token(INSTALL, "CoA", Secret("the-code-1")),
        {"accessToken": "access.jwt", "refreshToken": "refresh.jwt", "locationId": "LocA", "userId": "u"},
        frozenset({"userId"}),
        frozenset({"refreshToken"}),
    ),
    "installed_locations": Call(
        lambda api: api.installed_locations(Pages("client-1", "CoA"), Secret("the-code-1")),
        {"items": [{"_id": "LocA", "name": "A", "isInstalled": True}]},
        frozenset(),
        frozenset({"items"}),
    ),
}  # fmt: skip
HOST = "api.example.test"
GOOD = json.dumps(CALLS["reconnect"].good).encode()
