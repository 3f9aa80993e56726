"""The route by an agency's token: what a sub-account does next on it, and what an agency's answers mean.

Until one call has worked for an agency, its calls go out one at a time: first its list of locations, then its first
token. After that they leave evenly. An agency that answers 429 is held back by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.core.causes import ADVICE, Closes, closes, diagnose
from jobs.core.model import Answer, Cause, Level, Route, RouteResult, Stage, Tokens
from jobs.highlevel.api import Pages
from jobs.recovery.agency_tokens import AgencyKey
from jobs.recovery.attempt import Listing, Task, is_refused_by_pace
from jobs.recovery.progress import Exhausted, RunNow, WaitFor, WaitUntil

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.core.model import Install
    from jobs.recovery.agency_tokens import Agency, AgencyTokens
    from jobs.recovery.attempt import RetryPolicy, Tried
    from jobs.recovery.closed_routes import ClosedRoutes
    from jobs.recovery.notes import Notes
    from jobs.recovery.progress import InstallProgress, Step

# Seconds between two calls for one agency, whatever the pace of the run. An agency is one resource, and HighLevel
# gives each resource 100 requests in 10 seconds (API notes, 3).
_SPACING = 0.1
_LISTING_TRIES = 3


class AgencyRoute:
    """Walks sub-accounts along the route by their agencies. `clock` gives monotonic seconds."""

    def __init__(
        self,
        bearers: AgencyTokens,
        closed: ClosedRoutes,
        retry_policy: RetryPolicy,
        clock: Callable[[], float],
        notes: Notes,
    ) -> None:
        self._bearers = bearers
        self._closed = closed
        self._retry_policy = retry_policy
        self._clock = clock
        self._notes = notes
        self._under_way: set[AgencyKey] = set()

    def begin(self, install: Install) -> None:
        """Take note of an install that is handed out. The sub-accounts of an agency wait for its own new pair."""
        if install.key.level is Level.AGENCY:
            self._under_way.add(AgencyKey(install.key.client_id, install.key.account_id))

    def ended(self, install: Install) -> list[AgencyKey]:
        """Take note that the outcome of an install is on disk. Returns the agencies whose sub-accounts may have
        waited for it.
        """
        if install.key.level is not Level.AGENCY:
            return []
        key = AgencyKey(install.key.client_id, install.key.account_id)
        self._under_way.discard(key)
        return [key, AgencyKey(key.client_id, "")]

    def step(self, progress: InstallProgress) -> Step:
        """What comes next for an install on this route."""
        install = progress.install
        client_id, closed = install.key.client_id, self._closed.other(Route.AGENCY)
        if install.key.level is Level.AGENCY or closed is not None:
            return progress.not_served(closed)
        if progress.company_id:
            key = AgencyKey(client_id, progress.company_id)
            if key in self._under_way:
                return WaitFor(key)
            agency = self._bearers.of(*key)
        else:
            if any(key.client_id == client_id for key in self._under_way):
                return WaitFor(AgencyKey(client_id, ""))
            agency = self._bearers.unlisted(client_id) or self._bearers.that_lists(client_id, install.key.account_id)
        if agency is None or not agency.tokens or agency.rests:
            return progress.not_served(self._why_not(agency, progress))
        return self._step_at(agency, progress)

    def _why_not(self, agency: Agency | None, progress: InstallProgress) -> Answer | None:
        """Why no agency serves an install: the answer that another one got, or a pair that cannot be read."""
        company_id = agency.key.company_id if agency is not None else progress.company_id
        unread = self._bearers.unread(progress.install.key.client_id, company_id)
        if unread is not None:
            self._notes.add_once((unread.why,), f"{unread.words}: its sub-accounts are not recovered by it (told once)")
        if agency is not None:
            return agency.rests or agency.closed
        # It is not known whether the install belongs to that agency, so a failure that passes by itself says more.
        passes = any(ADVICE[diagnose(met.answer)].again for met in progress.met)
        return None if unread is None or passes else unread.answer

    def _step_at(self, agency: Agency, progress: InstallProgress) -> Step:
        if agency.busy:
            return WaitFor(agency.key)
        if agency.held_until > self._clock():
            progress.slot = None
            return WaitUntil(agency.held_until)
        account_id = progress.install.key.account_id
        if agency.lists and self._bearers.that_lists(agency.key.client_id, account_id) is not agency:
            why = "its agency lists the locations that have the app, and this one is not among them"
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

    def claim(self, progress: InstallProgress) -> Task:
        """The try that goes out now, for an install whose `step` was RunNow."""
        agency = progress.agency
        assert agency is not None
        agency.busy, progress.slot = not (agency.listed and agency.proven), None
        if not agency.listed and agency.pages is None:
            agency.pages = Pages(*agency.key)
        bearer = self._bearers.token_of(agency)
        return Task(progress.install, Route.AGENCY, progress.window, agency.key, bearer, agency.pages)

    def hear(self, progress: InstallProgress, task: Task, tried: Tried) -> list[AgencyKey]:
        """Take note of how a try ended. Returns the agencies whose sub-accounts may have waited for it."""
        agency, progress.agency = progress.agency, None
        assert agency is not None
        agency.busy = False
        if task.pages is not None and not task.pages.failures:
            progress.tries_here = 0  # Tries are counted for each page.
        if isinstance(tried, Listing):
            self._bearers.keep_listing(agency, tried.locations, whole=tried.whole)
            if tried.locations is None:
                self._notes.add(
                    f"the agency {agency.key.company_id} does not list its locations: each one is asked for by itself"
                )
        elif isinstance(tried, Answer):
            self._hear_refusal(agency, task, tried)
        elif isinstance(tried, Tokens):
            agency.proven, agency.refusals, agency.refused_since = True, 0, None
        return [agency.key, AgencyKey(agency.key.client_id, "")]

    def _hear_refusal(self, agency: Agency, task: Task, answer: Answer) -> None:
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
                self._closed.agency_closed(*agency.key, answer)
        elif answer.status:
            agency.proven = True

    def _hold(self, agency: Agency, answer: Answer) -> None:
        """Hold back the requests for an agency: for a while, or for the rest of the run if the run's patience is shorter."""
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
            self._notes.add(f"no more requests for the agency {agency.key.company_id} in this run: {answer.message}")

    def has_another_bearer(self, progress: InstallProgress) -> bool:
        """Whether the agency of an install has a token left after one was refused."""
        agency = self._agency_of(progress)
        return agency is not None and agency.tokens > 0

    def with_unread(self, progress: InstallProgress, answer: Answer) -> Answer:
        """The answer that closed the agency of an install, to report (see `AgencyTokens`)."""
        agency = self._agency_of(progress)
        return answer if agency is None else self._bearers.with_unread(agency, answer)

    def _agency_of(self, progress: InstallProgress) -> Agency | None:
        client_id, _, account_id = progress.install.key
        known = self._bearers.of(client_id, progress.company_id)
        return known or self._bearers.that_lists(client_id, account_id)
