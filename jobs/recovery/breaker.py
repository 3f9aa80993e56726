"""When to stop an app: its canary and its circuit breaker.

The first install of an app goes alone, and while it is refused the next one does too. Answers count when they come,
whatever their installs do next. Three in a row that say that the API is gone, or that the credentials are wrong,
close Reconnect for the app; they stop its rows if no other route is left for any of them. The same refusal five times
in a row, whatever it says, stops them too. So do many installs in a row that fail for a passing cause, and a network
that stays away. `causes.ADVICE` says what an answer shows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.core.causes import ADVICE, Shows, diagnose
from jobs.core.model import Answer, Cause, Failed, Recovered, Route, Tokens, Unfinished

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.core.model import Outcome, Stage

REFUSALS_IN_A_ROW = 3
_SAME_IN_A_ROW = 5
_LONGEST_WORD = 15  # Letters; a longer run of letters is an id and not a word.
_WORD = re.compile(r"[\w.:/-]+")


@dataclass(frozen=True, slots=True)
class Trip:
    """Why an app's rows are left pending: a `stopped_because` of the summary, and what the run met in words."""

    because: str
    met: str


def _form(answer: Answer) -> tuple[Stage, int, str]:
    """The form of a refusal: the call, the status, and the text without ids and numbers. Several installs may meet
    the same one.
    """
    return answer.stage, answer.status, _WORD.sub(_unless_id, answer.says).lower()


def _unless_id(word: re.Match[str]) -> str:
    text = word[0]
    return "#" if len(text) > _LONGEST_WORD or any(sign.isdigit() for sign in text) else text


@dataclass(slots=True)
class SameRefusal:
    """How many refusals of the same form have come in a row."""

    times: int = 0
    form: tuple[Stage, int, str] | None = None

    def came(self, answer: Answer) -> bool:
        """Count a refusal. Returns whether the same one has come so often that it says something about all installs."""
        found = _form(answer)
        self.times, self.form = (self.times + 1 if found == self.form else 1), found
        return self.times >= _SAME_IN_A_ROW


@dataclass(slots=True)
class _Seen:
    """What was seen of one app. `worked_at`: how many tries had begun when an answer last showed it at work. `works`:
    Reconnect has worked.
    """

    gone: int = 0
    same: SameRefusal = field(default_factory=SameRefusal)
    transient: int = 0
    worked_at: int = 0
    first_is_back: bool = False
    works: bool = False
    closed: Answer | None = None
    trip: Trip | None = None


class Breaker:
    """Hears the answers and outcomes of every app. `transient_installs` in a row are an outage. `route_left` tells
    whether another route than Reconnect may serve any install of an app.
    """

    def __init__(self, transient_installs: int, route_left: Callable[[str], bool]) -> None:
        self._transient_installs = transient_installs
        self._route_left = route_left
        self._apps: dict[str, _Seen] = {}
        self._reached = False
        self._of_all: Trip | None = None

    def hear(self, client_id: str, route: Route, tried: Tokens | Answer, tries: int) -> None:
        """Take account of a try's answer at once. `tries` have begun by now."""
        seen = self._apps.setdefault(client_id, _Seen())
        self._reached = self._reached or isinstance(tried, Tokens) or bool(tried.status)
        shows = Shows.AT_WORK if isinstance(tried, Tokens) else ADVICE[diagnose(tried)].shows
        if shows is Shows.AT_WORK:
            seen.first_is_back, seen.worked_at, seen.same.times, seen.transient = True, tries, 0, 0
            if route is Route.RECONNECT:
                seen.works, seen.gone = True, 0
        elif isinstance(tried, Answer) and shows is Shows.REFUSED and route is Route.RECONNECT:
            self._gone(seen, client_id, tried)
        elif isinstance(tried, Answer) and diagnose(tried) is Cause.REQUEST_REFUSED:
            self._refused(seen, tried)

    def _gone(self, seen: _Seen, client_id: str, answer: Answer) -> None:
        seen.first_is_back = True
        if seen.closed is None:
            seen.gone += 1
            if seen.gone >= REFUSALS_IN_A_ROW:
                seen.closed = answer
                self.look_again(client_id)

    def _refused(self, seen: _Seen, answer: Answer) -> None:
        """Count a refusal that says nothing about other installs. Five of the same form in a row do."""
        seen.first_is_back = True
        if seen.same.came(answer):
            seen.trip = seen.trip or Trip("refused", answer.message)

    def observe(self, client_id: str, outcome: Outcome, first_try: int) -> None:
        """Take account of an outcome. `first_try` is the number of its install's first try."""
        if isinstance(outcome, Unfinished):
            return
        seen = self._apps.setdefault(client_id, _Seen())
        seen.first_is_back = True
        if first_try <= seen.worked_at:
            return  # A straggler: the app has been at work since its first try.
        all_shows = {ADVICE[diagnose(met.answer)].shows for met in outcome.met if met.asked}
        if isinstance(outcome, Recovered) or Shows.TRANSIENT not in all_shows or Shows.AT_WORK in all_shows:
            seen.transient = 0
            return
        seen.transient += 1
        if isinstance(outcome, Failed) and (seen.transient >= self._transient_installs or not self._reached):
            self._outage(seen, outcome.message)

    def _outage(self, seen: _Seen, met: str) -> None:
        if not self._reached:
            self.stop_all(Trip("outage", met))
        seen.trip = seen.trip or Trip("outage", met)

    def stop_app(self, client_id: str, trip: Trip) -> None:
        """Stop the rows of one app."""
        seen = self._apps.setdefault(client_id, _Seen())
        seen.trip = seen.trip or trip

    def stop_all(self, trip: Trip) -> None:
        """Stop the rows of every app."""
        self._of_all = self._of_all or trip

    def look_again(self, client_id: str) -> None:
        """Look again after a route was closed: stop the app's rows if Reconnect is closed and no other route is left."""
        seen = self._apps.get(client_id)
        if seen and seen.closed and not seen.trip and not self._route_left(client_id):
            seen.trip = Trip(diagnose(seen.closed).value, seen.closed.message)

    def reconnect_closed(self, client_id: str) -> Answer | None:
        """The answer that closed Reconnect for an app, or None."""
        seen = self._apps.get(client_id)
        return seen.closed if seen else None

    def goes_alone(self, client_id: str) -> bool:
        """Whether the app's next install waits for the one before it."""
        seen = self._apps.get(client_id)
        if seen is None or not seen.first_is_back:
            return True
        return bool(seen.gone or seen.same.times) and not seen.works and seen.closed is None

    def tripped(self, client_id: str) -> Trip | None:
        """Why the app's rows are stopped, or None."""
        seen = self._apps.get(client_id)
        return (seen.trip if seen else None) or self._of_all
