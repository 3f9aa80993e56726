"""Decides when a request may leave, from the pace that was set, from limits in answers, and from 429s.

It takes values and returns decisions: no clock, no thread, no sleep. Times are monotonic seconds. `utc` is wall clock time.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from jobs.core.clock import A_YEAR
from jobs.pace.adaptive import AdaptiveLimit
from jobs.pace.server_limits import Budget, read_limits
from jobs.pace.spacing import Schedule, window
from jobs.pace.usage import LIMIT_SECONDS, LONGEST, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from jobs.pace.server_limits import Said

_TOO_MANY_REQUESTS = 429
_OWN_AFTER = 3  # So many 429s for one account, while others pass, mean that the limit is its own.
_BUDGETS = 1_000  # How many agencies to remember. A forgotten one tells its limits again with its next answer.
_REFUSED = 10_000  # For how many accounts to count 429s.
_RECENT = 20_000  # How many requests to remember by app, for the next run.
_TOLD = 2_000  # How many of an app's requests the next run is told of. No window needs more (see `spacing`).


class Resource(NamedTuple):
    """What a request is for: an `account` (a location or a company) of an app.

    `bearer` means that it carries the account's own token. Then its answer tells that account's limits, otherwise the app's.
    """

    app: str = ""
    account: str = ""
    bearer: bool = False

    @property
    def told(self) -> tuple[str, str]:
        """Whose limits the answer tells."""
        return (self.app, self.account if self.bearer else "")


@dataclass(frozen=True, slots=True)
class Held:
    """Nothing is sent before `until` (monotonic seconds), because the server answered with `status`. If that is 0, it is
    because an earlier run was cut off, and nobody knows what it sent last.
    """

    until: float
    status: int


@dataclass(frozen=True, slots=True)
class Lowered:
    """The pace is `rate` requests a second, slower than set. `why` is `told_limit` or `too_many_requests`."""

    rate: float
    why: str


class _Flight(NamedTuple):
    """A request that has left: what it is for, its budget, and its number in that budget."""

    resource: Resource
    budget: Budget
    number: int


class Controller:
    """The pace of one run. `backoff(n)` is the hold after the n-th 429 in a row without a Retry-After."""

    def __init__(self, requests_per_second: float, patience: float, backoff: Callable[[int], float]) -> None:
        self._set = window(requests_per_second * LIMIT_SECONDS, LIMIT_SECONDS)
        self._patience = patience
        self._backoff = backoff
        self._schedule = Schedule()
        self._ceiling = AdaptiveLimit(self._set.rate)
        self._of_apps: dict[str, Budget] = {}
        self._of_accounts: OrderedDict[Resource, Budget] = OrderedDict()
        self._flights: dict[int, _Flight] = {}
        self._recent: deque[tuple[float, str]] = deque(maxlen=_RECENT)
        self._passed = 0
        self._refusals: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()
        self._refused_in_a_row = 0
        self._refused_since: float | None = None
        self._alone: int | None = None
        self._withdrawn = 0
        self.rate_limited = 0
        self.held = Held(float("-inf"), 0)
        self.enough = ""
        self.out_of_patience = False

    @property
    def requests(self) -> int:
        """How many requests have left."""
        return len(self._schedule) - self._withdrawn

    @property
    def under_way(self) -> int:
        """How many requests have left and have no answer yet."""
        return len(self._flights)

    def begin_within(self, used: Mapping[str, Usage], now: float, utc: datetime) -> None:
        """Count what each app used in an earlier run. Call it before the first request."""
        before = sorted((now - age, app) for app, usage in used.items() for age in usage.left)
        self._recent.extend(before)
        self._schedule.remember([left for left, _ in before])
        for app, usage in used.items():
            if usage.held and usage.status:
                self._hold(now, usage.held, usage.status, utc)
            elif usage.held:
                self._hold_until(now + usage.held, 0)
            if usage.today is not None:
                next_day = utc + timedelta(seconds=min(usage.next_day, A_YEAR))
                self._of_apps.setdefault(app, Budget()).begin_day(usage.today, next_day)

    def usage(self, now: float, utc: datetime) -> dict[str, Usage]:
        """What each app has used by now, for the next run."""
        left: dict[str, list[float]] = {app: [] for app in self._of_apps}
        for at, app in self._recent:
            if now - at < LONGEST:
                left.setdefault(app, []).append(round(now - at, 3))
        held = max(0.0, self.held.until - now)
        status = self.held.status if held else 0
        days = {app: budget.day(utc) for app, budget in self._of_apps.items()}
        return {
            app: Usage(tuple(ages[-_TOLD:]), held, status, *days.get(app, (None, 0.0))) for app, ages in left.items()
        }

    def due(self, now: float, resource: Resource = Resource()) -> float:  # noqa: B008 - a value
        """When the next request for `resource` may leave, as far as known. Infinite while an answer must come first."""
        due = self.due_for_all(now)
        return max(due, self.free_at(max(now, due), resource)) if due < math.inf else due

    def due_for_all(self, now: float) -> float:
        """When the next request for anything may leave, by the pace that was set, by 429s, and by holds."""
        if self._alone is not None and self._alone < len(self._schedule):
            return float("inf")
        return max(self._schedule.due(self._rate(now), self._set), self.held.until)

    def free_at(self, now: float, resource: Resource) -> float:
        """When the limits of `resource` let a request leave, without all other limits."""
        budget = self._known(resource)
        return budget.free_at(now) if budget else now

    def _known(self, resource: Resource) -> Budget | None:
        return self._of_accounts.get(resource) if resource.bearer else self._of_apps.get(resource.app)

    def _budget(self, resource: Resource) -> Budget:
        """The budget of `resource`. It is remembered from now on."""
        if not resource.bearer:
            return self._of_apps.setdefault(resource.app, Budget())
        budget = self._of_accounts.setdefault(resource, Budget())
        self._of_accounts.move_to_end(resource)
        if len(self._of_accounts) > _BUDGETS:
            self._of_accounts.popitem(last=False)
        return budget

    def _rate(self, now: float) -> float:
        return min(self._set.rate, self._ceiling.rate_at(now))

    def lowered(self, now: float) -> Lowered | None:
        """How far the pace is below the one that was set, and why. None if it is not."""
        limits = [(self._ceiling.rate_at(now), "too_many_requests")]
        limits += [(budget.rate(now), "told_limit") for budget in self._of_apps.values()]
        rate, why = min(limits)
        return Lowered(rate, why) if rate < self._set.rate * 0.99 else None

    def leave(self, now: float, resource: Resource = Resource()) -> int:  # noqa: B008 - a value
        """The number of a request for `resource` that leaves now."""
        budget = self._budget(resource)
        number = self._schedule.leave(now, self._rate(now))
        self._recent.append((now, resource.app))
        while self._recent[0][0] < now - LONGEST:
            self._recent.popleft()
        self._flights[number] = _Flight(resource, budget, budget.leave(now))
        return number

    def withdrawn(self, number: int) -> None:
        """Note that request `number` did not leave."""
        self._withdrawn += 1
        self._flights.pop(number)
        if number == self._alone:
            self._alone = len(self._schedule)

    def answered(
        self, number: int, now: float, status: int, retry_after: float | None, headers: Mapping[str, str], utc: datetime
    ) -> None:
        """Note the answer to request `number` (`status` 0: no answer will come)."""
        flight = self._flights.pop(number)
        sent = self._schedule.left_at(number)
        if status:
            self._schedule.answered(number, now)
        if number == self._alone:
            self._alone = None
        said = read_limits(headers, utc) if headers else None
        flight.budget.hear(said, flight.number, now, arrived=bool(status))
        asked_for = _bounded(retry_after)
        if status == _TOO_MANY_REQUESTS:
            self.rate_limited += 1
            if not self._is_its_own(flight, now, asked_for, said):
                self._refused(sent, now, asked_for, utc)
            return
        if status:
            self._passed += 1
            self._refusals.pop(flight.resource[:2], None)
            self._refused_in_a_row, self._refused_since = 0, None
            self._ceiling.accepted(sent, now)
        if asked_for is not None:
            self._hold(now, asked_for, status, utc)

    def _is_its_own(self, flight: _Flight, now: float, asked_for: float | None, said: Said | None) -> bool:
        """Whether a 429 concerns only this account, or only this app since its day is used up.

        For a call with the account's own token, the headers say so, or a pause that would end the run. Otherwise it shows
        when other requests pass between its 429s, again and again.
        """
        resource = flight.resource
        count, passed = self._refusals.get(resource[:2], (0, -1))
        count += self._passed > passed
        self._refusals[resource[:2]] = count, self._passed
        if len(self._refusals) > _REFUSED:
            self._refusals.popitem(last=False)
        day = said is not None and said.today == 0
        told = day or (said is not None and said.most > 0 and said.remaining == 0)
        own = count >= _OWN_AFTER or day or (resource.bearer and (told or (asked_for or 0.0) > self._patience))
        if own and resource.bearer and asked_for:
            flight.budget.rest(now + asked_for)
        return own

    def _refused(self, sent: float, now: float, retry_after: float | None, utc: datetime) -> None:
        under_way = sent < self.held.until
        self._refused_in_a_row += not under_way or not self._refused_in_a_row
        if self._refused_since is None:
            self._refused_since = now
        if retry_after:
            self._hold(now, retry_after, _TOO_MANY_REQUESTS, utc)
        elif not under_way:
            left = max(0.0, self._patience - (now - self._refused_since))
            self._hold(now, min(self._backoff(self._refused_in_a_row), left), _TOO_MANY_REQUESTS, utc)
        if not retry_after or under_way or self._refused_in_a_row > 1:
            self._alone = len(self._schedule)  # It is not chance, or the hold is a guess: the next request goes alone.
        self._ceiling.refused(now, self.held.until)

    def _hold(self, now: float, seconds: float, status: int, utc: datetime) -> None:
        refused_for = now - self._refused_since if self._refused_since is not None else 0.0
        if seconds > self._patience:
            self.out_of_patience, self.enough = True, _asked_for(seconds, status, utc)
        elif refused_for >= self._patience:
            self.out_of_patience, self.enough = True, "HighLevel kept answering 429 (too many requests)"
        self._hold_until(now + seconds, status)

    def _hold_until(self, until: float, status: int) -> None:
        if until > self.held.until:
            self.held = Held(until, status)
            self._schedule.pause(until)

    def left_today(self, resource: Resource) -> int | None:
        """How many requests are left today for `resource`, or None if the server did not say."""
        budget = self._known(resource)
        return budget.left_today if budget else None

    def day_is_spent(self, resource: Resource, utc: datetime) -> tuple[float, str]:
        """The seconds until the next day of `resource` (infinite: not known), and the words that today's requests are used up."""
        budget = self._known(resource)
        next_day = budget.next_day if budget else None
        again = _again_after(next_day) if next_day else "run the same command again tomorrow"
        whose = f" for {resource.account if resource.bearer else f'the app {resource.app}'}"
        seconds = max(0.0, (next_day - utc).total_seconds()) if next_day else math.inf
        return seconds, f"HighLevel's daily limit of requests{whose} is used up; {again}"


def _bounded(seconds: float | None) -> float | None:
    """The seconds that a server asked to wait, within sane bounds. None if it did not ask or sent NaN."""
    if seconds is None or math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), A_YEAR)


def _asked_for(seconds: float, status: int, utc: datetime) -> str:
    what = f"HighLevel answered {status} and asked for a pause longer than pace.patience_seconds"
    return what if seconds >= A_YEAR else f"{what}; {_again_after(utc + timedelta(seconds=seconds))}"


def _again_after(moment: datetime) -> str:
    return f"run the same command again after {moment:%Y-%m-%dT%H:%M:%SZ}"
