"""What the user asked of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.core.model import Route

if TYPE_CHECKING:
    from jobs.core.model import Cause

USUAL_ROUTES = (Route.RECONNECT, Route.AGENCY)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked of one run; `max_duration` in seconds.

    What was recovered before `recovered_before` (UTC, ISO 8601) is to be recovered again; empty: what is recovered is left
    alone. `force`: also old refresh tokens that may be spent are sent.
    """

    limit: int | None = None
    max_duration: float | None = None
    causes: tuple[Cause, ...] = ()
    force: bool = False
    routes: tuple[Route, ...] = USUAL_ROUTES
    recovered_before: str = ""
