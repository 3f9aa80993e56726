"""What is on its way: how its tries went, where an install is on its routes, and what may come next. Only values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from jobs.core.model import Answer, Install, RefreshState, Route, RouteResult
from jobs.highlevel.api import Window

if TYPE_CHECKING:
    from jobs.recovery.agency_tokens import Agency, AgencyKey
    from jobs.recovery.attempt import RetryPolicy

OWN_LIMIT = 3  # After this many 429s in a row, they are taken for the install's own limit. The gate counts as many.


@dataclass(slots=True, kw_only=True)
class OnItsWay:
    """What is tried until it ends: an install, or a question about one.

    `first_try` and `last_try` number its tries among all tries, from 1. `last` is its last answer. `suspect`: it got no
    answer while others did. `refusals` counts 429s in a row, the first of them at `refused_since` (monotonic seconds).
    """

    first_try: int = 0
    last_try: int = 0
    last: Answer | None = None
    suspect: bool = False
    refusals: int = 0
    refused_since: float = 0.0

    def wait_refused(self, answer: Answer, now: float, retry_policy: RetryPolicy) -> float | None:
        """Count one more 429. Returns the seconds until the next try, or None if patience with it has run out."""
        self.refused_since = self.refused_since if self.refusals else now
        self.refusals += 1
        left = self.refused_since + retry_policy.patience - now
        asked_for = answer.retry_after or 0.0
        if left <= 0 or asked_for > left:
            return None
        return min(asked_for or retry_policy.backoff(self.refusals), left)


Item = TypeVar("Item", bound=OnItsWay)


@dataclass(slots=True)
class InstallProgress(OnItsWay):
    """One install in this run: the routes left, all its tries, and the answers it met.

    `tries_here` counts the tries on the current route, or those of one page while an agency's locations are listed.
    `slot` is when its next call for its agency may leave (monotonic seconds), so that these calls leave evenly.
    `company_id` is its agency: the list's, or the one that HighLevel named since. `refresh_state` is what is known
    about its old token, and the worst case while a try to spend it is out; `before` is the state before that try.
    """

    install: Install
    left: list[Route]
    company_id: str = ""
    tries: int = 0
    tries_here: int = 0
    met: list[RouteResult] = field(default_factory=list)
    agency: Agency | None = None
    slot: float | None = None
    window: Window = field(default_factory=Window)
    looked: bool = False
    refresh_state: RefreshState = RefreshState.UNTOUCHED
    before: RefreshState = RefreshState.UNTOUCHED

    def not_served(self, why: Answer | None) -> Exhausted:
        """Take note that the first route cannot serve it. `why` is the answer that another install got, if there was
        one.
        """
        if why is not None:
            self.met.append(RouteResult(self.left[0], why, asked=False))
        return Exhausted()


@dataclass(frozen=True, slots=True)
class RunNow:
    """The next try may go out."""


@dataclass(frozen=True, slots=True)
class WaitFor:
    """It waits until something ends at this agency (`company_id` empty: at any agency of the app)."""

    key: AgencyKey


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """It waits until this moment of the clock."""

    moment: float


@dataclass(frozen=True, slots=True)
class Exhausted:
    """No route is left."""


Step = RunNow | WaitFor | WaitUntil | Exhausted
