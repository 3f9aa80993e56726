"""The manifest against the ledger: what a run would do, as numbers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from jobs.core.causes import ADVICE
from jobs.core.errors import Problem, UserError
from jobs.core.model import Broken, Cause, Level, Row, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jobs.apps import Apps
    from jobs.ledger import StagedGroup


@dataclass(frozen=True, slots=True)
class Plan:
    """How INPUT's installs stand before a run, how many of them it would try, and how many each route can serve.

    `recovered` are left alone, `recovered_again` are to be recovered again. (`unplaced` among the routes: how many an
    agency may serve besides, which name no company.) `warnings` are what a
    person should know before a run.
    """

    rows: int
    installs: int
    duplicates: int
    duplicate_lines: list[int] = field(default_factory=list)
    broken_lines: int = 0
    recovered: int = 0
    recovered_again: int = 0
    unknown_app: int = 0
    never_tried: int = 0
    failed_before: dict[str, int] = field(default_factory=dict)
    agencies_to_do: int = 0
    to_do: int = 0
    routes: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def with_apps(rows: Iterable[Row | Broken], apps: Apps) -> Iterator[Row | Broken]:
    """`rows` with the only app's client id filled in where a row leaves it out."""
    for row in rows:
        if isinstance(row, Broken) or row.client_id:
            yield row
        elif apps.only:
            yield replace(row, client_id=apps.only)
        else:
            location = row.account_id if row.level is Level.SUB_ACCOUNT else ""
            why = f"line {row.line} names no client id, and several apps are configured"
            yield Broken(row.line, location, row.company_id, "", row.cells, why)


def needed_apps(rows: Iterable[Row | Broken], apps: Apps) -> set[str]:
    """The configured client ids that `rows` need. It reads all of it, so that a bad line is met before anything begins.

    Raises UserError where the secret of one is missing.
    """
    needed = {row.client_id for row in with_apps(rows, apps) if isinstance(row, Row)}
    lacking: list[Problem] = [problem for client_id, problem in apps.missing.items() if client_id in needed]
    if lacking:
        raise UserError(*lacking)
    return needed & set(apps.known)


def make_plan(
    rows: int,
    duplicates: tuple[int, list[int]],
    broken_lines: int,
    groups: Sequence[StagedGroup],
    known: Iterable[str],
    *,
    causes: Sequence[Cause] = (),
) -> Plan:
    """The plan for a staged manifest."""
    apps = set(known)
    failed: dict[str, int] = {}
    recovered = again = unknown = never = agencies = to_do = 0
    for group in groups:
        is_back = group.status == Status.RECOVERED and not group.again
        recovered += group.how_many if is_back else 0
        again += group.how_many if group.again else 0
        if group.client_id not in apps:
            unknown += 0 if is_back else group.how_many
            continue
        wanted = not is_back and (not causes or group.cause in causes)
        if not is_back and group.cause:
            failed[group.cause] = failed.get(group.cause, 0) + group.how_many
        elif not is_back and not group.again:
            never += group.how_many
        to_do += group.how_many if wanted else 0
        agencies += group.how_many if wanted and group.level == Level.AGENCY else 0
    installs = rows - duplicates[0]
    return Plan(rows, installs, *duplicates, broken_lines, recovered, again, unknown, never, failed, agencies, to_do)


def tell(plan: Plan, requests_per_second: float) -> Iterator[str]:
    """The plan in lines for a person. Two requests an install, if nothing fails."""
    for warning in plan.warnings:
        yield f"warning: {warning}"
    yield f"{_counted(plan.to_do, 'install', 'installs')} would be tried, {plan.agencies_to_do:,} of them agencies (these go first)"
    yield f"{plan.never_tried:,} were never tried; {plan.recovered:,} are recovered and left alone"
    if plan.recovered_again:
        yield f"{plan.recovered_again:,} were recovered before the moment given, and are to be recovered again"
    for cause, count in sorted(plan.failed_before.items()):
        yield f"{count:,} failed before with {cause} (next: {ADVICE[Cause(cause)].owner})"
    if plan.unknown_app:
        yield f"{plan.unknown_app:,} belong to an app without a configured secret: they fail as unknown_app"
    if plan.broken_lines:
        yield f"{_counted(plan.broken_lines, 'line', 'lines')} cannot be used, and will be reported as invalid_row"
    if plan.duplicates:
        lines = ", ".join(str(line) for line in plan.duplicate_lines)
        more = ", ..." if plan.duplicates > len(plan.duplicate_lines) else ""
        yield f"{_counted(plan.duplicates, 'line repeats', 'lines repeat')} an install: {lines}{more}"
    for route, count in plan.routes.items():
        if route == "unplaced" and count:
            yield f"{count:,} more name no company: an agency serves those that it lists"
        elif route != "unplaced":
            yield f"the route {route} can serve {count:,} of them, as far as can be seen from here"
    seconds = round(2 * plan.to_do / requests_per_second)
    yield f"about {duration(seconds)} at {requests_per_second:g} requests/s, if nothing fails"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def duration(seconds: int) -> str:
    """Seconds as `2h 5m`, `3m 20s` or `12s`."""
    minutes, rest = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"
