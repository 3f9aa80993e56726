"""The story of `plan`: what a run would do. It sends nothing and writes nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from jobs.core.causes import ADVICE
from jobs.core.clock import duration, utc
from jobs.core.model import Cause
from jobs.core.plurals import counted
from jobs.ledger.deliveries import how_many_wait
from jobs.ledger.engines import Purpose
from jobs.ledger.place import Place
from jobs.ledger.sealed import refuse_mixed
from jobs.ledger.unwritten import notice, pairs_in, refuse_mixed_lines
from jobs.recovery.coverage import served
from jobs.reports.earlier import refuse_unknown_tokens
from jobs.start import plan_of, staged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from jobs.core.model import Route
    from jobs.ledger.ledger import Ledger
    from jobs.start import Plan, Start


def tell(plan: Plan, requests_per_second: float) -> Iterator[str]:
    """The plan in lines for a person. The time assumes two requests for each install and no failures."""
    yield from (f"warning: {warning}" for warning in plan.warnings)
    yield from plan.where_pairs_go
    yield f"{counted(plan.to_do, 'install', 'installs')} would be tried, {plan.agencies_to_do:,} of them agencies (these go first)"
    yield f"{plan.never_tried:,} were never tried; {plan.recovered:,} are recovered and left alone"
    if plan.recovered_again:
        yield f"{plan.recovered_again:,} were recovered before the given time and would be recovered again"
    for cause, count in sorted(plan.failed_before.items()):
        yield f"{count:,} failed before with {cause} (next: {ADVICE[Cause(cause)].owner})"
    if plan.unknown_app:
        yield f"{counted(plan.unknown_app, 'belongs', 'belong')} to an app without a configured secret and would fail with unknown_app"
    if plan.broken_lines:
        yield f"{counted(plan.broken_lines, 'line', 'lines')} cannot be used and would fail with invalid_row"
    if plan.duplicates:
        lines = ", ".join(str(line) for line in plan.duplicate_lines)
        more = ", ..." if plan.duplicates > len(plan.duplicate_lines) else ""
        yield f"{counted(plan.duplicates, 'line repeats', 'lines repeat')} an install: {lines}{more}"
    for route, count in plan.routes.items():
        if route == "unplaced" and count:
            yield f"{count:,} more do not name their company: the route agency can serve those that an agency lists"
        elif route == "sealed":
            yield f"{count:,} more can be served by agencies or old tokens with --identity FILE, since these pairs are sealed"
        elif route != "unplaced":
            yield f"the route {route} can serve {count:,} of them, judging by the list and the ledger"
    yield from _deliveries(plan)
    seconds = round(2 * plan.to_do / requests_per_second)
    yield f"about {duration(seconds)} at {requests_per_second:g} requests/s, if nothing fails"


def _with_deliveries(plan: Plan, start: Start, ledger: Ledger) -> Plan:
    """The plan with where new pairs go, and how many wait to be handed over already."""
    if start.settings.deliver.target is None:
        return plan
    from jobs.outgoing.deliver.opening import where  # slow to import, and needed only with a target

    return replace(
        plan, deliver_to=where(start.settings.deliver), undelivered=ledger.ask(how_many_wait, Purpose.ONE_MOMENT)
    )


def _deliveries(plan: Plan) -> Iterator[str]:
    if plan.deliver_to:
        wait = counted(plan.undelivered, "pair waits", "pairs wait")
        sealed = ", sealed: they need --identity FILE" if plan.undelivered and plan.sealed_for else ""
        yield f"new pairs go to {plan.deliver_to}; {wait} to be delivered already{sealed}"


def preview(start: Start, output: Path, routes: Sequence[Route], before: str = "") -> Plan:
    """What a run by these routes would do. It would recover again what was recovered `before` (see `RunOptions`).

    Raises UserError if the run could not start.
    """
    place = Place(output, start.base_url, start.settings.ledger)
    with place.reading() as ledger:
        if place.exists():
            ledger.ask(partial(refuse_unknown_tokens, folder=output), Purpose.ONE_MOMENT)
            ledger.ask(partial(refuse_mixed, folder=output, seals=bool(start.sealed_for)), Purpose.ONE_MOMENT)
        aside, seals = pairs_in(output, start.base_url), bool(start.sealed_for)
        ledger.ask(partial(refuse_mixed_lines, found=aside, folder=output, seals=seals))
        with ledger.looking_ahead() as manifest:
            plan = plan_of(start, manifest, staged(start, manifest), before)
            companies = start.manifest.with_companies
            reach = served(
                manifest.connection, ledger.scratch, start.needed, routes, utc(), before, with_companies=companies
            )
        warnings = (*start.warnings, *notice(output))
        plan = replace(plan, routes=reach, warnings=warnings, ledger=ledger.last_use, sealed_for=start.sealed_for)
        return _with_deliveries(plan, start, ledger)
