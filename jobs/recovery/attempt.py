"""One try of an install, step by step, and how long to wait before the next one if that may help."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from tenacity import RetryCallState, Retrying, stop_after_attempt, wait_random_exponential

from jobs.core.causes import ADVICE, diagnose
from jobs.core.errors import Exit
from jobs.core.model import Answer, App, Cause, Install, Route, Tokens
from jobs.highlevel.api import CallFailed, ConnectionLost, LocalFailure
from jobs.pace.gate import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.core.secret import Secret
    from jobs.highlevel.api import Code, HighLevel, Pages, Window
    from jobs.recovery.agency_tokens import AgencyKey
    from jobs.recovery.stop import Stop

_MOST_HELD = 10_000
_RETRYING = Retrying()
Brought = TypeVar("Brought")


@dataclass(frozen=True, slots=True)
class Task:
    """One try: the install, its route, and what that route needs. If there are `pages`, the try reads the next ones of
    the agency's list of locations instead.
    """

    install: Install
    route: Route
    window: Window
    agency: AgencyKey | None = None
    bearer: Secret | None = None
    pages: Pages | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Locations of an agency that have the app, or None if it would not tell. `whole`: there are no more."""

    locations: frozenset[str] | None
    whole: bool = True


Tried = Tokens | Listing | Answer | None
"""How a try ended: with a pair or a list, with an answer that gave none, or (None) not at all, since the run stops."""


def by_reconnect(api: HighLevel, app: App, install: Install) -> Tokens:
    """A new pair by reconnect and exchange. The code is sent at most once: every retry starts here again.

    If the token answer has no trace id, the pair gets that of the reconnect answer, which helps HighLevel's support
    as well.
    """
    with suppress(ConnectionLost):
        return _exchanged(api, app, install, api.reconnect(app, install))
    return _exchanged(api, app, install, api.reconnect(app, install), fresh=True)


def _exchanged(api: HighLevel, app: App, install: Install, code: Code, *, fresh: bool = False) -> Tokens:
    try:
        tokens = api.exchange(app, install, code, fresh=fresh)
    except CallFailed as failed:
        failed.answer = replace(failed.answer, trace_id=failed.answer.trace_id or code.trace_id)
        raise
    return replace(tokens, trace_id=tokens.trace_id or code.trace_id)


def read_on(api: HighLevel, pages: Pages, bearer: Secret) -> Listing:
    """Locations of an agency, from the next page on. It stops early rather than hold too many in memory."""
    try:
        while not pages.whole and len(pages.found) < _MOST_HELD:
            api.installed_locations(pages, bearer)
    except CallFailed as failed:
        if ADVICE[diagnose(failed.answer)].again:
            raise
        return Listing(None)
    locations = frozenset(pages.found)
    pages.found.clear()
    return Listing(locations, pages.whole)


def by_its_route(api: HighLevel, app: App, task: Task, intend: Callable[[Install], bool]) -> Tokens | Listing:
    """What one try brings. Raises CallFailed and Stopped.

    `intend` puts on disk that the install's old token will be spent, and returns whether that worked.
    """
    if task.pages and task.bearer:
        return read_on(api, task.pages, task.bearer)
    if task.route is Route.AGENCY:
        assert task.agency is not None
        assert task.bearer is not None
        return api.location_token(task.install, task.agency.company_id, task.bearer)
    if task.route is Route.REFRESH:
        assert task.install.old is not None
        return api.refresh(app, task.install, task.install.old, task.window, intend)
    return by_reconnect(api, app, task.install)


def attempt(call: Callable[[], Brought], stop: Stop) -> Brought | Answer | None:
    """How one try ended: with what `call` brings, with an answer instead, or (None) not at all, since nothing is sent
    any more. Any exception is a bug.

    If this machine cannot make a connection, there is no try, and `stop` is asked to.
    """
    try:
        return call()
    except LocalFailure as error:
        stop.ask("outage", Exit.STOPPED_EARLY, str(error))
        return None
    except CallFailed as failed:
        return failed.answer
    except Stopped:
        return None


def is_refused_by_pace(tried: Tried) -> bool:
    """Whether the try met a 429, which concerns the pace and uses up none of the install's tries."""
    return isinstance(tried, Answer) and diagnose(tried) is Cause.RATE_LIMITED


def _may_help(tried: Tried) -> bool:
    return isinstance(tried, Answer) and ADVICE[diagnose(tried)].again


class RetryPolicy:
    """How often an install is tried, and the waits between: exponential, with full jitter between the two waits.

    `attempts` counts all tries, the first included. The waits are in seconds, and so is the `patience` with 429. It
    holds no state: the caller counts the tries.
    """

    def __init__(self, attempts: int, min_wait: float, max_wait: float, patience: float = 600.0) -> None:
        self.patience = patience
        lowest = min(min_wait, max_wait)
        self._wait = wait_random_exponential(multiplier=2 * lowest or 1, min=lowest, max=max_wait)
        self._stop = stop_after_attempt(attempts)

    def wait_after(self, tries: int, tried: Tried) -> float | None:
        """Seconds until the next try, or None if there is none. `tries` were made, and the last one ended as `tried`."""
        state = _after(tries)
        return self._wait(state) if _may_help(tried) and not self._stop(state) else None

    def backoff(self, refusals: int) -> float:
        """Seconds to hold all requests back after that many 429s in a row that named no time."""
        return self._wait(_after(refusals))


def _after(tries: int) -> RetryCallState:
    """The state that tenacity's strategies look at: how many tries there were."""
    state = RetryCallState(_RETRYING, fn=None, args=(), kwargs={})
    state.attempt_number = tries
    return state
