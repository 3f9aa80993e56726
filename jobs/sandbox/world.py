"""The world of a sandbox: its clients, its installs and how each behaves, its limit, its clock."""

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
    """An install as HighLevel sees it. It behaves badly for `heals_after` tries, or for ever (None)."""

    behaviour: str = "recovered"
    level: Literal["Location", "Company"] = "Location"
    company_id: str = ""
    heals_after: int | None = None


@dataclass(frozen=True)
class Limit:
    """So many requests in so many seconds; above it 429, with a Retry-After in `seconds` or as a `date`, or none.

    The window slides, or begins anew each time (`fixed`). `shown`: answers carry X-RateLimit headers. Others use
    `others` requests a second of it, from `others_after` seconds on. `a_day`: requests until the day is spent.
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

    `faults` are behaviours that strike any install at random, each with its share of the calls; `seed` repeats them.
    `location_token` says which call for a location's token there is: `v3`, the `old` one, or `none`;
    `location_refresh_token` whether its answer holds a refresh token. `agency_limits` are limits of single companies,
    for calls with their bearer; these do not count against `limit`. A connection is closed that had no request for
    `keep_alive_seconds`.
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
        """How this account behaves."""
        return self.installs.get(account_id) or Place(self.default)

    def company_of(self, location_id: str) -> str:
        """The company of a location; one made of its own id where the world names none."""
        return self.place(location_id).company_id or f"Company{location_id[:12]}"


def load_world(file: Path) -> World:
    """The world that a JSON file describes. Raises ValueError, in one line, for what it does not understand."""
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        values.pop("about", None)
        clients = {client["client_id"]: client["client_secret"] for client in values.pop("clients")}
        installs = {account: Place(**place) for account, place in values.pop("installs", {}).items()}
        limit = values.pop("limit", None)
        limits = {company: Limit(**one) for company, one in values.pop("agency_limits", {}).items()}
        world = World(clients, installs, limit=Limit(**limit) if limit else None, agency_limits=limits, **values)
        convert(asdict(world), World)  # The names are right by now; this looks at the types.
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror}): give a world file") from None
    except (ValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file}: is no world ({error}): see data/sandbox.example.json") from None
    if not clients:
        raise ValueError(f"{file}: names no client: see data/sandbox.example.json")
    named = {account: place.behaviour for account, place in world.installs.items()}
    for account, behaviour in [
        *named.items(),
        ("default", world.default),
        *(("faults", name) for name in world.faults),
    ]:
        if behaviour not in BEHAVIOURS:
            raise ValueError(f"{file}: {account} has the unknown behaviour {behaviour}: see BEHAVIOURS") from None
    return world
