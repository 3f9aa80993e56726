"""Which route an install takes next, and what is reported if no route recovers it.

One thread walks all installs. Nothing here sends or writes. What an answer means is in `core.causes`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from jobs.core.causes import Closes, closes, diagnose, leaves_in_doubt
from jobs.core.model import (
    Answer,
    Cause,
    Failed,
    Recovered,
    RefreshState,
    Route,
    RouteResult,
    Stage,
    Tokens,
    Unfinished,
)
from jobs.highlevel.jwt_claims import why_useless
from jobs.recovery.attempt import Task
from jobs.recovery.failure import verdict
from jobs.recovery.progress import OWN_LIMIT, Exhausted, InstallProgress, RunNow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.core.clock import Clocks
    from jobs.core.model import Install
    from jobs.recovery.agency_answers import AgencyAnswers
    from jobs.recovery.agency_route import AgencyRoute
    from jobs.recovery.agency_tokens import AgencyKey
    from jobs.recovery.attempt import RetryPolicy, Tried
    from jobs.recovery.closed_routes import ClosedRoutes
    from jobs.recovery.notes import Notes
    from jobs.recovery.progress import Step

_SECOND = 1.0
_NO_REFRESH_TOKEN = "HighLevel gave no refresh token with it, only this access token"  # noqa: S105


class Router:
    """Walks installs along `routes`, in that order. `agency_answers` knows which agencies' pairs came for sub-accounts."""

    def __init__(
        self,
        routes: Sequence[Route],
        retry_policy: RetryPolicy,
        closed: ClosedRoutes,
        agency_route: AgencyRoute,
        agency_answers: AgencyAnswers,
        clocks: Clocks,
        notes: Notes,
    ) -> None:
        self._routes = routes
        self._retry_policy = retry_policy
        self._closed = closed
        self._agency_route = agency_route
        self._agency_answers = agency_answers
        self._clocks = clocks
        self._notes = notes
        self._came: list[tuple[InstallProgress, Recovered]] = []

    def begin(self, install: Install) -> InstallProgress:
        """The progress of an install that is handed out now."""
        self._agency_route.begin(install)
        return InstallProgress(install, list(self._routes), install.company_id)

    def ended(self, install: Install) -> list[AgencyKey]:
        """Take note that the outcome of an install is on disk. Returns the agencies whose sub-accounts may have
        waited for it.
        """
        return self._agency_route.ended(install)

    # -- what comes next ---------------------------------------------------------------------------------------

    def step(self, progress: InstallProgress) -> Step:
        """What comes next for an install. Routes that cannot serve it are skipped."""
        look = {
            Route.RECONNECT: self._at_reconnect,
            Route.AGENCY: self._agency_route.step,
            Route.REFRESH: self._at_refresh,
        }
        while progress.left and self._agency_answers.back(progress.install) is None:
            found = look[progress.left[0]](progress)
            if not isinstance(found, Exhausted):
                return found
            self._leave(progress)
        return Exhausted()

    def _leave(self, progress: InstallProgress) -> None:
        del progress.left[:1]
        progress.tries_here, progress.agency, progress.slot = 0, None, None

    def _at_reconnect(self, progress: InstallProgress) -> Step:
        closed = self._closed.reconnect(progress.install.key.client_id) or self._agency_answers.closed(progress.install)
        return RunNow() if closed is None else progress.not_served(closed)

    def _at_refresh(self, progress: InstallProgress) -> Step:
        install, closed = progress.install, self._closed.other(Route.REFRESH)
        if install.unread and closed is None:
            sealed = Answer(Stage.REFRESH, message=install.unread, cause=Cause.REQUEST_REFUSED, unread=True)
            return progress.not_served(sealed)
        if install.old is None or closed is not None:
            return progress.not_served(closed)
        if install.doubtful:
            why = "an earlier run sent the old token, which may be spent; only --force sends it again"
            return progress.not_served(Answer(Stage.REFRESH, message=why, cause=Cause.REFRESH_UNKNOWN))
        if not progress.looked:
            why = why_useless(install.old, install.key, self._clocks.server())
            if why:
                return progress.not_served(Answer(Stage.REFRESH, message=why, cause=Cause.REFRESH_INVALID))
            progress.looked = True
        return RunNow()

    def claim(self, progress: InstallProgress) -> Task:
        """The try that goes out now."""
        route = progress.left[0]
        if route is Route.AGENCY:
            return self._agency_route.claim(progress)
        if route is Route.REFRESH:
            progress.before, progress.refresh_state = progress.refresh_state, RefreshState.UNKNOWN
        return Task(progress.install, route, progress.window)

    # -- what came back ----------------------------------------------------------------------------------------

    def heard(self, progress: InstallProgress, task: Task, tried: Tried) -> list[AgencyKey]:
        """Take note of how a try ended. Returns the agencies whose sub-accounts may have waited for it."""
        self._closed.hear(progress.install.key.client_id, task.route, tried)
        if isinstance(tried, Tokens) and task.route is Route.RECONNECT:
            self._agency_answers.right_one_came(progress.install)
        if task.route is Route.REFRESH:
            progress.refresh_state = _refresh_state(progress.before, tried)
        return self._agency_route.hear(progress, task, tried) if task.route is Route.AGENCY else []

    def _keep_stray(self, progress: InstallProgress, answer: Answer) -> Answer:
        """The answer to report. If it brought an agency's pair, `take_strays` returns that."""
        if answer.stray is None:
            return answer
        answer, found = self._agency_answers.came(progress.install, progress.left[0], answer)
        if found is not None:
            install, outcome = found
            progress.company_id = install.key.account_id
            self._came.append((self.begin(install), outcome))
        return answer

    def take_strays(self) -> list[tuple[InstallProgress, Recovered]]:
        """The agencies whose pairs came for other installs since the last call. They are recorded like any other outcome."""
        came, self._came = self._came, []
        return came

    def wait_refused(self, progress: InstallProgress, answer: Answer) -> float | None:
        """Seconds until an install that got 429 is tried again, or None if patience with it has run out.

        It waits by itself, so that others go first. On the route by its agency, `step` makes it wait.
        """
        if progress.left[0] is Route.AGENCY:
            return 0.0
        wait = progress.wait_refused(answer, self._clocks.monotonic(), self._retry_policy)
        if progress.refusals == OWN_LIMIT:
            self._notes.add_once(
                (),
                f"HighLevel refused {progress.install.key.account_id} with 429 {OWN_LIMIT} times in a row: it waits by itself "
                f"for {self._retry_policy.patience:g} seconds at most, and the others go on. Further installs like it are not named",
            )
        if wait is None:
            progress.met.append(RouteResult(progress.left[0], answer))
            self._leave(progress)
        return wait

    def wait_after(self, progress: InstallProgress, answer: Answer) -> float | None:
        """Seconds until the next try on the same route, or None if the install is done with this route."""
        if closes(answer) is Closes.AGENCY:
            if self._agency_route.has_another_bearer(progress):
                return 0.0
            answer = self._agency_route.with_unread(progress, answer)
        progress.tries_here += 1
        wait = self._retry_policy.wait_after(progress.tries_here, answer)
        if wait is not None and progress.left[0] is Route.REFRESH and progress.window.opened is not None:
            left = progress.window.left(self._clocks.monotonic()) - _SECOND
            wait = min(wait, left) if left > 0 else None
        if wait is None:
            progress.met.append(RouteResult(progress.left[0], self._keep_stray(progress, answer)))
            self._leave(progress)
        return wait

    # -- how it ends -------------------------------------------------------------------------------------------

    def recovered(self, progress: InstallProgress, tokens: Tokens) -> Recovered:
        """The outcome of an install that its route recovered."""
        notes = [] if tokens.refresh_token.reveal() else [_NO_REFRESH_TOKEN]
        listed = progress.install.company_id
        if listed and tokens.company_id and tokens.company_id != listed:
            moved = f"HighLevel says {tokens.company_id}, which is what the reports say"
            notes.append(f"the list names the company {listed} for it; {moved}")
            self._notes.add_once(
                (listed, tokens.company_id),
                f"the list names the company {listed} for {progress.install.key.account_id}; {moved} (told once for these companies)",
            )
        message, renews = "; ".join(notes), self._agency_answers.back(progress.install) is not None
        return Recovered(
            tokens,
            progress.left[0],
            progress.tries,
            self._clocks.now(),
            message,
            tuple(progress.met),
            progress.refresh_state,
            renews=renews,
        )

    def unfinished(self, progress: InstallProgress) -> Unfinished:
        """The outcome of an install that is cut short."""
        return Unfinished(progress.tries, progress.refresh_state)

    def over(self, progress: InstallProgress) -> Failed | Recovered:
        """The outcome of an install that no route recovered. An agency may be recovered by a pair that came for
        another install.
        """
        back = self._agency_answers.back(progress.install)
        if back is None:
            self._agency_answers.failed(progress.install)
            return verdict(progress, self._routes, self._clocks.now())
        return replace(
            back,
            attempts=progress.tries,
            met=tuple(progress.met),
            refresh_state=progress.refresh_state,
            stray=False,
            renews=True,
        )


def _refresh_state(before: RefreshState, tried: Tried) -> RefreshState:
    """What is known about an old token after one more try to spend it."""
    if tried is None:
        return before
    if isinstance(tried, Answer):
        cause = diagnose(tried)
        if cause in (Cause.WRONG_ACCOUNT, Cause.WRONG_USER_TYPE):
            return RefreshState.SPENT
        if cause is Cause.REFRESH_INVALID:
            return RefreshState.UNTOUCHED
        return RefreshState.UNKNOWN if leaves_in_doubt(tried) else before
    return RefreshState.SPENT
