"""When going on makes no sense: the canary and the breaker of each app.

The first install of an app goes alone, and while Reconnect refuses it the next does too. Three refusals in a row
close Reconnect for the app, and stop its rows where no other route is left for any of them; so do many installs in a
row that end transiently. What an answer tells stands in `causes.ADVICE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.causes import ADVICE, Shows, diagnose
from jobs.model import Answer, Failed, Outcome, Recovered, Route, Unfinished

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSALS_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class Trip:
    """Why an app's rows are left pending: a `stopped_because` of the summary, and what was met, in words."""

    because: str
    met: str


@dataclass(slots=True)
class _Seen:
    refused: int = 0
    transient: int = 0
    first_is_back: bool = False
    works: bool = False
    closed: Answer | None = None
    trip: Trip | None = None


class Breaker:
    """Observes the outcomes of every app. `transient_installs` is how many in a row make an outage.

    `route_left` tells whether another route than Reconnect may serve any install of an app.
    """

    def __init__(self, transient_installs: int, route_left: Callable[[str], bool]) -> None:
        self._transient_installs = transient_installs
        self._route_left = route_left
        self._apps: dict[str, _Seen] = {}

    def observe(self, client_id: str, outcome: Outcome) -> None:
        """Take an outcome into account."""
        if isinstance(outcome, Unfinished):
            return
        seen = self._apps.setdefault(client_id, _Seen())
        seen.first_is_back = True
        answers = [(met.route, met.answer, ADVICE[diagnose(met.answer)].shows) for met in outcome.met if met.asked]
        for route, answer, shows in answers:
            if route is Route.RECONNECT:
                self._at_reconnect(seen, client_id, answer, shows)
        if isinstance(outcome, Recovered) and outcome.route is Route.RECONNECT:
            seen.refused, seen.works = 0, True
        all_shows = {shows for _, _, shows in answers}
        if isinstance(outcome, Recovered) or Shows.AT_WORK in all_shows or Shows.TRANSIENT not in all_shows:
            seen.transient = 0
        else:
            seen.transient += 1
        if isinstance(outcome, Failed) and seen.transient >= self._transient_installs:
            seen.trip = seen.trip or Trip("outage", outcome.message)

    def _at_reconnect(self, seen: _Seen, client_id: str, answer: Answer, shows: Shows) -> None:
        """What Reconnect answered; only what shows it at work starts the count of refusals again."""
        if shows is Shows.AT_WORK:
            seen.refused, seen.works = 0, True
        elif shows is Shows.REFUSED and seen.closed is None:
            seen.refused += 1
            if seen.refused >= REFUSALS_IN_A_ROW:
                seen.closed = answer
                self.look_again(client_id)

    def look_again(self, client_id: str) -> None:
        """A route was closed: stop the app's rows where Reconnect is closed and no other route is left for any."""
        seen = self._apps.get(client_id)
        if seen and seen.closed and not seen.trip and not self._route_left(client_id):
            seen.trip = Trip(diagnose(seen.closed).value, seen.closed.message)

    def reconnect_closed(self, client_id: str) -> Answer | None:
        """The answer that closed Reconnect for an app, if one did."""
        seen = self._apps.get(client_id)
        return seen.closed if seen else None

    def goes_alone(self, client_id: str) -> bool:
        """Whether the app's next install waits for the one before it."""
        seen = self._apps.get(client_id)
        if seen is None or not seen.first_is_back:
            return True
        return bool(seen.refused) and not seen.works and seen.closed is None

    def tripped(self, client_id: str) -> Trip | None:
        """Why the app's rows are stopped, if they are."""
        seen = self._apps.get(client_id)
        return seen.trip if seen else None
