"""When going on makes no sense: the canary and the breaker of each app.

The first install of an app goes alone, and while it is refused the next does too. Three refusals in a row, or
many installs in a row that end transiently, stop the app's rows. What an outcome tells stands in `causes.ADVICE`.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobs.causes import ADVICE, Shows
from jobs.model import Failed, Outcome, Recovered

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
    trip: Trip | None = None


class Breaker:
    """Observes the outcomes of every app. `transient_installs` is how many in a row make an outage."""

    def __init__(self, transient_installs: int) -> None:
        self._transient_installs = transient_installs
        self._apps: dict[str, _Seen] = {}

    def observe(self, client_id: str, outcome: Outcome) -> None:
        """Take an outcome into account."""
        seen = self._apps.setdefault(client_id, _Seen())
        if isinstance(outcome, Recovered):
            self._works(seen)
        elif isinstance(outcome, Failed):
            seen.first_is_back = True
            shows = ADVICE[outcome.cause].shows
            if shows is Shows.AT_WORK:
                self._works(seen)
            elif shows is Shows.REFUSED:
                seen.refused += 1
                seen.transient = 0
            elif shows is Shows.TRANSIENT:
                seen.transient += 1
            else:
                seen.transient = 0
            seen.trip = seen.trip or self._judge(seen, outcome)

    @staticmethod
    def _works(seen: _Seen) -> None:
        seen.refused = seen.transient = 0
        seen.first_is_back = seen.works = True

    def _judge(self, seen: _Seen, outcome: Failed) -> Trip | None:
        if seen.refused >= REFUSALS_IN_A_ROW:
            return Trip(outcome.cause.value, outcome.message)
        if seen.transient >= self._transient_installs:
            return Trip("outage", outcome.message)
        return None

    def goes_alone(self, client_id: str) -> bool:
        """Whether the app's next install waits for the one before it."""
        seen = self._apps.get(client_id)
        return seen is None or not seen.first_is_back or (bool(seen.refused) and not seen.works)

    def tripped(self, client_id: str) -> Trip | None:
        """Why the app's rows are stopped, if they are."""
        seen = self._apps.get(client_id)
        return seen.trip if seen else None
