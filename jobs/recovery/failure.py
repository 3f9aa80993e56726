"""What is reported about an install that no route recovered: the failure that a person can do most about."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from jobs.core.causes import ADVICE, diagnose, most_actionable
from jobs.core.model import Answer, Cause, Failed, RefreshState, Route, RouteResult, Stage
from jobs.core.secret import plain
from jobs.highlevel.parsing import LONGEST_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.recovery.progress import InstallProgress


def verdict(progress: InstallProgress, routes: Sequence[Route], at: str) -> Failed:
    """The failure of `progress`, with what each route answered. `at` is UTC ISO 8601."""
    met = progress.met or [RouteResult(routes[-1], _not_served(routes), asked=False)]
    told = [_in_doubt(progress, one) for one in met]
    chosen = most_actionable(_deciding([diagnose(one) for one in told], last=told[-1]))
    answer = told[chosen]
    share = LONGEST_MESSAGE // len(told) - 2
    parts = [plain(f"{one.route}: {one.answer.message}", share) for one in met]
    message = "; ".join(parts) if len(parts) > 1 else answer.message
    # The answer that closed a route was given to another install, and its trace id leads there.
    trace_id = answer.trace_id if met[chosen].asked else ""
    status = answer.http_status or answer.status
    return Failed(
        diagnose(answer),
        answer.stage,
        message,
        status,
        trace_id,
        progress.tries,
        at,
        tuple(met),
        progress.refresh_state,
    )


def _deciding(causes: list[Cause], last: Answer) -> list[Cause]:
    """The causes to choose from. An old token that cannot be read decides nothing beside a failure that passes by itself."""
    passes = any(ADVICE[cause].again for cause in causes)
    return causes[:-1] if last.unread and last.stage is Stage.REFRESH and passes else causes


def _in_doubt(progress: InstallProgress, met: RouteResult) -> Answer:
    """The answer to report. A refresh that left its token in doubt is reported as that, whatever the last answer was."""
    if met.route is Route.REFRESH and progress.refresh_state is RefreshState.UNKNOWN:
        return replace(met.answer, cause=Cause.REFRESH_UNKNOWN)
    return met.answer


def _not_served(routes: Sequence[Route]) -> Answer:
    """The failure of an install that none of the routes asked for can serve."""
    if Route.REFRESH in routes:
        return Answer(Stage.REFRESH, message="the list holds no refresh token for it", cause=Cause.REFRESH_INVALID)
    return Answer(Stage.LOCATION_TOKEN, message="no agency with a valid pair serves it", cause=Cause.AGENCY_REFUSED)
