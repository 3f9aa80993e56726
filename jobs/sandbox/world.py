"""The world of a sandbox: its clients, its installs and their behaviour, its limit, its clock."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from msgspec import ValidationError, convert

from jobs.sandbox.behaviours import BEHAVIOURS

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Place:
    """An install as HighLevel sees it. It behaves badly for `heals_after` tries, or forever (None)."""

    behaviour: str = "recovered"
    level: Literal["Location", "Company"] = "Location"
    company_id: str = ""
    heals_after: int | None = None


@dataclass(frozen=True)
class Limit:
    """At most `requests` in `seconds`. Above that a 429, with Retry-After in `seconds`, as a `date`, or without it.

    The window slides, unless it is `fixed`. With `shown`, answers have X-RateLimit headers. Others use `others` requests a
    second, from `others_after` seconds on. `a_day` is the limit of requests for the day.
    """

    requests: int
    seconds: float
    retry_after: Literal["", "seconds", "date"] = ""
    fixed: bool = False
    shown: bool = False
    others: float = 0.0
    others_after: float = 0.0
    a_day: int | None = None


@dataclass(frozen=True)
class World:
    """Everything that a sandbox plays. `default` is the behaviour of ids that `installs` does not name.

    - `faults` are behaviours that hit any install at random, each with its share of the calls. `seed` repeats them.
    - `location_token` says which call for a location's token exists: `v3`, the `old` one, or `none`.
    - `location_refresh_token` says whether the answer of that call has a refresh token.
    - `agency_limits` are the limits of single companies. Calls with a company's token count against these, not `limit`.
    - A connection that had no request for `keep_alive_seconds` is closed.
    """

    clients: dict[str, str]
    installs: dict[str, Place] = field(default_factory=dict)
    default: str = "not_installed"
    limit: Limit | None = None
    agency_limits: dict[str, Limit] = field(default_factory=dict)
    latency_seconds: float = 0.0
    keep_alive_seconds: float = 75.0
    code_lifetime_seconds: float = 60.0
    clock_skew_seconds: float = 0.0
    faults: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    reconnect_removed: bool = False
    refresh_window_seconds: float = 30.0
    location_token: Literal["v3", "old", "none"] = "v3"  # noqa: S105 - the name of a call
    location_refresh_token: bool = True

    def place(self, account_id: str) -> Place:
        """The install of this account, or one with the default behaviour."""
        return self.installs.get(account_id) or Place(self.default)

    def locations_of(self, company_id: str) -> dict[str, Place]:
        """The locations that the world names for this company."""
        return {
            account: place
            for account, place in self.installs.items()
            if place.level == "Location" and place.company_id == company_id
        }

    def company_of(self, location_id: str) -> str:
        """The company of a location. If the world does not name it, it is made from the location's id."""
        return self.place(location_id).company_id or f"Company{location_id[:12]}"


def _object(read: Any) -> dict[str, Any]:
    if not isinstance(read, dict):
        message = "it is not an object"
        raise TypeError(message)
    return read


def _clients(read: Any) -> dict[str, str]:
    """The secret of each client id."""
    try:
        return {client["client_id"]: client["client_secret"] for client in read}
    except (TypeError, KeyError):
        message = "clients is not a list of objects with client_id and client_secret"
        raise ValueError(message) from None


def load_world(file: Path) -> World:
    """The world that a JSON file describes. Raises ValueError with one line if the file is not valid."""
    try:
        values = _object(json.loads(file.read_text(encoding="utf-8")))
        values.pop("about", None)
        clients = _clients(values.pop("clients", None))
        installs = {account: Place(**place) for account, place in values.pop("installs", {}).items()}
        limit = values.pop("limit", None)
        limits = {company: Limit(**one) for company, one in values.pop("agency_limits", {}).items()}
        world = World(clients, installs, limit=Limit(**limit) if limit else None, agency_limits=limits, **values)
        convert(asdict(world), World)  # The names are right here. This checks the types.
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror}): use a world file") from None
    except (ValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file}: is not a valid world ({error}): see data/sandbox.example.json") from None
    if not clients:
        raise ValueError(f"{file}: has no clients: see data/sandbox.example.json")
    named = {account: place.behaviour for account, place in world.installs.items()}
    for account, behaviour in [
        *named.items(),
        ("default", world.default),
        *(("faults", name) for name in world.faults),
    ]:
        if behaviour not in BEHAVIOURS:
            raise ValueError(f"{file}: {account} has the unknown behaviour {behaviour}: see BEHAVIOURS") from None
    return world
