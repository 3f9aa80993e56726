"""Puts together the routes of a run: which agencies have a valid pair at its start, and whether a route is left."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import select

from jobs.core.clock import Clocks, utc, utc_now
from jobs.core.model import Answer, Level, Recovered, Route, Status
from jobs.ledger.engines import Purpose
from jobs.ledger.tables import installs
from jobs.recovery.agency_answers import AgencyAnswers
from jobs.recovery.agency_route import AgencyRoute
from jobs.recovery.agency_tokens import AgencyTokens, Bearer
from jobs.recovery.breaker import Breaker
from jobs.recovery.closed_routes import ClosedRoutes
from jobs.recovery.coverage import known_bearers, may_serve
from jobs.recovery.notes import Notes
from jobs.recovery.routing import Router

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from jobs.config.settings import StopSettings
    from jobs.core.model import Install, Outcome
    from jobs.ledger.ledger import Ledger
    from jobs.recovery.agency_tokens import AgencyKey
    from jobs.recovery.attempt import RetryPolicy
    from jobs.recovery.stop import Stop
    from jobs.start import RunOptions


def bearers_at_start(ledger: Ledger, options: RunOptions) -> AgencyTokens:
    """The agencies with a valid pair, from the manifest and the ledger, if the run's routes may use them."""
    bearers = AgencyTokens(ledger.scratch)
    if Route.AGENCY in options.routes:
        ledger.ask(
            lambda connection: bearers.add_all(known_bearers(connection, ledger.scratch, utc(), options.opener)),
            Purpose.ONE_MOMENT,
        )
    return bearers


def keep_bearers(bearers: AgencyTokens, recorded: Iterable[tuple[Install, Outcome]], routes: Sequence[Route]) -> None:
    """Let new pairs of agencies serve as bearers at once. They are on disk already."""
    for install, outcome in recorded:
        if Route.AGENCY in routes and install.key.level is Level.AGENCY and isinstance(outcome, Recovered):
            client_id, _, account_id = install.key
            tokens = outcome.tokens
            bearers.add(Bearer(client_id, account_id, tokens.access_token, sealed=tokens.sealed is not None))


@dataclass(frozen=True, slots=True)
class RouteParts:
    """The parts that walk a run's installs along its routes, and the notes for a person."""

    router: Router
    breaker: Breaker
    bearers: AgencyTokens
    notes: Notes


def open_routes(
    ledger: Ledger,
    options: RunOptions,
    retry_policy: RetryPolicy,
    settings: StopSettings,
    stop: Stop,
    server_time: Callable[[], float],
) -> RouteParts:
    """The routes of a run as they are at its start."""
    routes, bearers, for_run, notes = options.routes, bearers_at_start(ledger, options), dict[Route, Answer](), Notes()
    breaker = Breaker(settings.transient_installs, partial(_route_left, ledger, options, bearers, for_run))
    closed = ClosedRoutes(for_run, breaker, notes)
    agency_route = AgencyRoute(bearers, closed, retry_policy, stop.clock, notes)
    agency_answers = AgencyAnswers(partial(_standing, ledger), utc_now, notes.add)
    clocks = Clocks(stop.clock, utc_now, server_time)
    router = Router(routes, retry_policy, closed, agency_route, agency_answers, clocks, notes)
    return RouteParts(router, breaker, bearers, notes)


def _route_left(
    ledger: Ledger, options: RunOptions, bearers: AgencyTokens, closed: Mapping[Route, Answer], client_id: str
) -> bool:
    """Whether another route than Reconnect may serve any install that is lined up for an app."""
    routes = options.routes
    companies = bearers.companies(client_id) if Route.AGENCY in routes and Route.AGENCY not in closed else []
    refresh = Route.REFRESH in routes and Route.REFRESH not in closed
    return ledger.ask(
        lambda connection: may_serve(
            connection, ledger.scratch, client_id, companies, refresh=refresh, opens=options.opener is not None
        ),
        Purpose.ONE_MOMENT,
    )


def _standing(ledger: Ledger, agency: AgencyKey) -> Status | None:
    """The status of an agency in the ledger, or None if it is not an install there."""
    this = (installs.c.client_id == agency.client_id, installs.c.account_id == agency.company_id)
    query = select(installs.c.status).where(*this, installs.c.level == Level.AGENCY.value)
    found = ledger.ask(lambda connection: connection.scalar(query))
    return Status(found) if found else None
