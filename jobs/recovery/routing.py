"""The way of an install: which route it takes next, what closes a route, and what is reported where none brings it back.

One thread walks all ways; nothing here sends or writes anything by itself. What an answer means stands in `causes`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from jobs.core.causes import Closes, closes, diagnose, leaves_in_doubt
from jobs.core.model import (
    Answer,
    Cause,
    Failed,
    Install,
    Level,
    Recovered,
    RefreshState,
    Route,
    RouteResult,
    Stage,
    Tokens,
    Unfinished,
)
from jobs.highlevel.api import Pages
from jobs.highlevel.jwt_claims import why_useless
from jobs.recovery.agency_tokens import AgencyKey
from jobs.recovery.attempt import Listing, Task, is_refused_by_pace
from jobs.recovery.failure import verdict
from jobs.recovery.progress import OWN_LIMIT, Exhausted, InstallProgress, RunNow, Step, WaitFor, WaitUntil

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobs.recovery.agency_answers import AgencyAnswers
    from jobs.recovery.agency_tokens import Agency, AgencyTokens
    from jobs.recovery.attempt import RetryPolicy, Tried

# Seconds between two calls for one agency, whatever the pace of all: it is one resource, and a resource is given
# 100 requests in 10 seconds (API notes, 3).
_SPACING = 0.1
_LISTING_TRIES = 3
_SECOND = 1.0
_NO_REFRESH_TOKEN = "HighLevel gave no refresh token with it: this access token is all there is"  # noqa: S105


class Router:
    """Walks installs along their routes.

    `closed` are the answers that closed routes for the run; `reconnect_closed` gives the one that closed Reconnect for an
    app, if one did; `look_again` is told of an app for which a route was closed; `agency_answers` knows the agencies' pairs that
    come for sub-accounts; `clock` is monotonic seconds, `now` the time as UTC ISO 8601, `server_time` the server's clock in
    seconds since 1970; `say` tells a person once.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        retry_policy: RetryPolicy,
        bearers: AgencyTokens,
        closed: dict[Route, Answer],
        *,
        reconnect_closed: Callable[[str], Answer | None],
        look_again: Callable[[str], None],
        clock: Callable[[], float],
        now: Callable[[], str],
        server_time: Callable[[], float],
        agency_answers: AgencyAnswers,
        say: Callable[[str], None],
    ) -> None:
        self._routes = routes
        self._retry_policy = retry_policy
        self._bearers = bearers
        self._closed = closed
        self._reconnect_closed = reconnect_closed
        self._look_again = look_again
        self._clock = clock
        self._now = now
        self._server_time = server_time
        self._agency_answers = agency_answers
        self._came: list[tuple[InstallProgress, Recovered]] = []
        self._say = say
        self._agencies_under_way: set[AgencyKey] = set()
        self._told: set[tuple[str, ...]] = set()

    def begin(self, install: Install) -> InstallProgress:
        """The way of an install that is handed out now."""
        if install.key.level is Level.AGENCY:
            self._agencies_under_way.add(AgencyKey(install.key.client_id, install.key.account_id))
        return InstallProgress(install, list(self._routes), self._retry_policy.begin(), install.company_id)

    def ended(self, install: Install) -> list[AgencyKey]:
        """The outcome of an install is on disk. Returns the places where others may have waited for it."""
        key = AgencyKey(install.key.client_id, install.key.account_id)
        if install.key.level is not Level.AGENCY:
            return []
        self._agencies_under_way.discard(key)
        return [key, AgencyKey(key.client_id, "")]

    def _say_once(self, about: tuple[str, ...], words: str) -> None:
        if about not in self._told:
            self._told.add(about)
            self._say(words)

    # -- what comes next ---------------------------------------------------------------------------------------

    def step(self, progress: InstallProgress) -> Step:
        """What comes next for an install. Routes that cannot serve it are left behind."""
        look = {Route.RECONNECT: self._at_reconnect, Route.AGENCY: self._at_agency, Route.REFRESH: self._at_refresh}
        while progress.left and self._agency_answers.back(progress.install) is None:
            found = look[progress.left[0]](progress)
            if not isinstance(found, Exhausted):
                return found
            self._leave(progress)
        return Exhausted()

    def _leave(self, progress: InstallProgress) -> None:
        del progress.left[:1]
        progress.retry_state, progress.agency, progress.slot = self._retry_policy.begin(), None, None

    def _at_reconnect(self, progress: InstallProgress) -> Step:
        client_id = progress.install.key.client_id
        closed = self._reconnect_closed(client_id)
        if closed is not None:
            self._say_once((client_id,), f"the route reconnect is closed for {client_id}: {closed.message}")
        closed = closed or self._agency_answers.closed(progress.install)
        if closed is None:
            return RunNow()
        progress.met.append(RouteResult(Route.RECONNECT, closed, asked=False))
        return Exhausted()

    def _at_agency(self, progress: InstallProgress) -> Step:
        install = progress.install
        client_id = install.key.client_id
        if install.key.level is Level.AGENCY or Route.AGENCY in self._closed:
            return self._shut(progress, self._closed.get(Route.AGENCY))
        if progress.company_id:
            key = AgencyKey(client_id, progress.company_id)
            if key in self._agencies_under_way:
                return WaitFor(key)
            agency = self._bearers.of(*key)
        else:
            if any(key.client_id == client_id for key in self._agencies_under_way):
                return WaitFor(AgencyKey(client_id, ""))
            agency = self._bearers.unlisted(client_id) or self._bearers.that_lists(client_id, install.key.account_id)
        if agency is None or not agency.tokens or agency.rests:
            return self._shut(progress, agency.rests or agency.closed if agency else None)
        return self._by_agency(progress, agency)

    def _by_agency(self, progress: InstallProgress, agency: Agency) -> Step:
        if agency.busy:
            return WaitFor(agency.key)
        if agency.held_until > self._clock():
            progress.slot = None
            return WaitUntil(agency.held_until)
        if (
            agency.lists
            and self._bearers.that_lists(agency.key.client_id, progress.install.key.account_id) is not agency
        ):
            why = "the app is not installed there, as its agency lists it"
            not_there = Answer(Stage.INSTALLED_LOCATIONS, message=why, cause=Cause.NOT_INSTALLED)
            progress.met.append(RouteResult(Route.AGENCY, not_there, asked=False))
            progress.left.clear()
            return Exhausted()
        if progress.slot is None:
            progress.slot = max(agency.free_at, self._clock())
            agency.free_at = progress.slot + _SPACING
        if progress.slot > self._clock():
            return WaitUntil(progress.slot)
        progress.agency = agency
        return RunNow()

    def _at_refresh(self, progress: InstallProgress) -> Step:
        install = progress.install
        if install.old is None or Route.REFRESH in self._closed:
            return self._shut(progress, self._closed.get(Route.REFRESH))
        if install.doubtful:
            why = "the old token was sent in an earlier run and may be spent by it; only --force sends it again"
            return self._shut(progress, Answer(Stage.REFRESH, message=why, cause=Cause.REFRESH_UNKNOWN))
        if not progress.looked:
            why = why_useless(install.old, install.key, self._server_time())
            if why:
                return self._shut(progress, Answer(Stage.REFRESH, message=why, cause=Cause.REFRESH_INVALID))
            progress.looked = True
        return RunNow()

    @staticmethod
    def _shut(progress: InstallProgress, why: Answer | None) -> Exhausted:
        if why is not None:
            progress.met.append(RouteResult(progress.left[0], why, asked=False))
        return Exhausted()

    def claim(self, progress: InstallProgress) -> Task:
        """The try that goes out now."""
        route, agency = progress.left[0], progress.agency
        if route is Route.REFRESH:
            progress.before, progress.refresh_state = progress.refresh_state, RefreshState.UNKNOWN
        if route is Route.AGENCY and agency is not None:
            agency.busy, progress.slot = not (agency.listed and agency.proven), None
            if not agency.listed and agency.pages is None:
                agency.pages = Pages(*agency.key)
            return Task(
                progress.install, route, progress.window, agency.key, self._bearers.token_of(agency), agency.pages
            )
        return Task(progress.install, route, progress.window)

    # -- what came back ----------------------------------------------------------------------------------------

    def heard(self, progress: InstallProgress, task: Task, tried: Tried) -> list[AgencyKey]:
        """Take note of how a try ended. Returns the places where others may have waited for it."""
        if isinstance(tried, Answer) and closes(tried) is Closes.RUN and task.route not in self._closed:
            self._closed[task.route] = tried
            self._say(f"the route {task.route} is closed for this run: {tried.message}")
            self._look_again(progress.install.key.client_id)
        if isinstance(tried, Tokens) and task.route is Route.RECONNECT:
            self._agency_answers.right_one_came(progress.install)
        if task.route is Route.REFRESH:
            progress.refresh_state = _refresh_state(progress.before, tried)
        if task.route is not Route.AGENCY or progress.agency is None:
            return []
        agency, progress.agency = progress.agency, None
        agency.busy = False
        if task.pages is not None and not task.pages.failures:
            progress.retry_state = (
                self._retry_policy.begin()
            )  # The tries are those of a page, not of the whole listing.
        if isinstance(tried, Listing):
            self._bearers.keep_listing(agency, tried.locations, whole=tried.whole)
            if tried.locations is None:
                self._say(f"the agency {agency.key.company_id} does not list its locations: each is asked for")
        elif isinstance(tried, Answer):
            self._heard_refusal(agency, task, tried)
        elif isinstance(tried, Tokens):
            agency.proven, agency.refusals, agency.refused_since = True, 0, None
        return [agency.key, AgencyKey(agency.key.client_id, "")]

    def _keep_stray(self, progress: InstallProgress, answer: Answer) -> Answer:
        """What to report of an answer that may have brought an agency's pair, which `take_strays` gives then."""
        if answer.stray is None:
            return answer
        answer, found = self._agency_answers.came(progress.install, progress.left[0], answer)
        if found is not None:
            install, outcome = found
            progress.company_id = install.key.account_id
            self._came.append((self.begin(install), outcome))
        return answer

    def take_strays(self) -> list[tuple[InstallProgress, Recovered]]:
        """The agencies that came back in answer to other installs since the last time: to be recorded like any outcome."""
        came, self._came = self._came, []
        return came

    def _heard_refusal(self, agency: Agency, task: Task, answer: Answer) -> None:
        if is_refused_by_pace(answer):
            self._hold(agency, answer)
            return
        if answer.status:
            agency.refusals, agency.refused_since = 0, None
        if task.pages is not None:
            task.pages.failures += 1
            if task.pages.failures >= _LISTING_TRIES:
                self._bearers.keep_listing(agency, None)
        elif closes(answer) is Closes.AGENCY and task.bearer is not None:
            if self._bearers.refused(agency, task.bearer, answer):
                self._say(f"the route agency is closed for {agency.key.company_id}: {answer.message}")
                self._look_again(agency.key.client_id)
        elif answer.status:
            agency.proven = True

    def _hold(self, agency: Agency, answer: Answer) -> None:
        """Ask nothing of an agency for a while; where that is longer than the run's patience, nothing more in this run."""
        now, was_sent = self._clock(), bool(answer.status)
        agency.refusals += was_sent
        if agency.refused_since is None and was_sent:
            agency.refused_since = now
        wait = answer.retry_after or self._retry_policy.backoff(agency.refusals)
        refused_for = 0.0 if agency.refused_since is None else now - agency.refused_since
        if max(wait, refused_for) < self._retry_policy.patience:
            agency.held_until = max(agency.held_until, now + wait)
        elif agency.rests is None:
            agency.rests = answer
            self._say(f"nothing more is asked of the agency {agency.key.company_id} in this run: {answer.message}")

    def wait_refused(self, progress: InstallProgress, answer: Answer) -> float | None:
        """Seconds until an install that was refused with 429 is tried again; None: patience with it alone has run out.

        It waits by itself, so that others go before it; for the sake of its agency `step` lets it wait.
        """
        if progress.left[0] is Route.AGENCY:
            return 0.0
        now, patience = self._clock(), self._retry_policy.patience
        progress.refused_since = progress.refused_since if progress.refusals else now
        progress.refusals += 1
        if progress.refusals == OWN_LIMIT:
            self._say_once(
                (),
                f"HighLevel refused {progress.install.key.account_id} with 429 {OWN_LIMIT} times in a row: it waits by itself "
                f"and holds nobody, {patience:g} seconds at most. Others like it are not named",
            )
        wait = answer.retry_after or self._retry_policy.backoff(progress.refusals)
        left = progress.refused_since + patience - now
        if left > 0 and (answer.retry_after or 0.0) <= left:
            return min(wait, left)
        progress.met.append(RouteResult(progress.left[0], answer))
        self._leave(progress)
        return None

    def wait_after(self, progress: InstallProgress, answer: Answer) -> float | None:
        """Seconds until the next try on the same route, or None where this route is over for the install."""
        if closes(answer) is Closes.AGENCY and self._has_another_bearer(progress):
            return 0.0
        wait = self._retry_policy.wait_after(progress.retry_state, answer)
        if wait is not None and progress.left[0] is Route.REFRESH and progress.window.opened is not None:
            left = progress.window.left(self._clock()) - _SECOND
            wait = min(wait, left) if left > 0 else None
        if wait is None:
            progress.met.append(RouteResult(progress.left[0], self._keep_stray(progress, answer)))
            self._leave(progress)
        return wait

    def _has_another_bearer(self, progress: InstallProgress) -> bool:
        """Whether the agency of an install has a token left after one was refused."""
        client_id, _, account_id = progress.install.key
        known = self._bearers.of(client_id, progress.company_id)
        agency = known or self._bearers.that_lists(client_id, account_id)
        return agency is not None and agency.tokens > 0

    # -- how it ends -------------------------------------------------------------------------------------------

    def recovered(self, progress: InstallProgress, tokens: Tokens) -> Recovered:
        """The outcome of an install that is back by the route it was on."""
        notes = [] if tokens.refresh_token.reveal() else [_NO_REFRESH_TOKEN]
        listed = progress.install.company_id
        if listed and tokens.company_id and tokens.company_id != listed:
            moved = f"HighLevel says {tokens.company_id}, which is what the reports say"
            notes.append(f"the list names the company {listed} for it; {moved}")
            self._say_once(
                (listed, tokens.company_id),
                f"the list names the company {listed} for {progress.install.key.account_id}; {moved} (told once for these companies)",
            )
        message, renews = "; ".join(notes), self._agency_answers.back(progress.install) is not None
        return Recovered(
            tokens,
            progress.left[0],
            progress.tries,
            self._now(),
            message,
            tuple(progress.met),
            progress.refresh_state,
            renews=renews,
        )

    def unfinished(self, progress: InstallProgress) -> Unfinished:
        """The outcome of an install whose way was cut short."""
        return Unfinished(progress.tries, progress.refresh_state)

    def over(self, progress: InstallProgress) -> Failed | Recovered:
        """The outcome of an install that no route brought back; an agency may be back by the pair that came for another."""
        back = self._agency_answers.back(progress.install)
        if back is None:
            self._agency_answers.failed(progress.install)
            return verdict(progress, self._routes, self._now())
        return replace(
            back,
            attempts=progress.tries,
            met=tuple(progress.met),
            refresh_state=progress.refresh_state,
            stray=False,
            renews=True,
        )


def _refresh_state(before: RefreshState, tried: Tried) -> RefreshState:
    """What is known of an old token after one more try to spend it."""
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
