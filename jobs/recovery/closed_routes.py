"""Routes that an answer has closed: for the whole run, or Reconnect for one app."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.core.causes import Closes, closes
from jobs.core.model import Answer, Route

if TYPE_CHECKING:
    from jobs.recovery.attempt import Tried
    from jobs.recovery.breaker import Breaker
    from jobs.recovery.notes import Notes


class ClosedRoutes:
    """Knows which routes are closed, and by which answer. `for_run` holds those that are closed for every app.

    `breaker` closes Reconnect for an app, and stops the app's rows when no route is left.
    """

    def __init__(self, for_run: dict[Route, Answer], breaker: Breaker, notes: Notes) -> None:
        self._for_run = for_run
        self._breaker = breaker
        self._notes = notes

    def reconnect(self, client_id: str) -> Answer | None:
        """The answer that closed Reconnect for an app, or None while it is open."""
        closed = self._breaker.reconnect_closed(client_id)
        if closed is not None:
            self._notes.add_once((client_id,), f"the route reconnect is closed for {client_id}: {closed.message}")
        return closed

    def other(self, route: Route) -> Answer | None:
        """The answer that closed a route other than Reconnect for the whole run, or None while it is open."""
        return self._for_run.get(route)

    def hear(self, client_id: str, route: Route, tried: Tried) -> None:
        """Close the route for the run if the answer to a try says so."""
        if isinstance(tried, Answer) and closes(tried) is Closes.RUN and route not in self._for_run:
            self._for_run[route] = tried
            self._notes.add(f"the route {route} is closed for this run: {tried.message}")
            self._breaker.look_again(client_id)

    def agency_closed(self, client_id: str, company_id: str, answer: Answer) -> None:
        """Take note that the route by an agency is closed, since none of its tokens is accepted."""
        self._notes.add(f"the route agency is closed for {company_id}: {answer.message}")
        self._breaker.look_again(client_id)
