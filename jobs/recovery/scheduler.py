"""Hands installs to workers, takes their outcomes back, and decides which install goes next.

The caller's loop is the barrier: an install is handed out only when the caller comes back for more, and by then it
has written down the outcomes it was given. A wait between tries holds no worker. The loop runs when a try is back or may
go out, and otherwise once a second to keep people informed. So waiting costs almost nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from jobs.core.model import Install, Outcome, Recovered
from jobs.recovery.judgement import give_up_waiting, settle_last, take_in
from jobs.recovery.progress import OWN_LIMIT, Exhausted, RunNow, WaitFor, WaitUntil
from jobs.recovery.state import Queue, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jobs.recovery.progress import InstallProgress
    from jobs.recovery.state import Parts

MOST_WAITING = 10_000


class Round(NamedTuple):
    """The outcomes since the last round (often none), how many installs are being tried, and how many wait between
    tries.
    """

    ended: list[tuple[Install, Outcome]]
    in_flight: int
    waiting: int


def outcomes(todo: Mapping[str, Iterator[Install]], parts: Parts) -> Iterator[Round]:
    """Yields the outcomes since the last round, until nothing is left to hand out and every try is back.

    It yields at least every `look_up` seconds, so that a person can be told about a run in which nothing ends. `todo`
    has the installs of each app, in order. Raises what a worker raised, after the others have ended.
    """
    state = State({client_id: Queue(installs) for client_id, installs in todo.items()})
    bug: BaseException | None = None
    until = math.inf
    while True:
        give_up_waiting(state, parts, everybody=bug is not None or _stops(parts))
        if bug is None:
            try:
                until = _hand_out(state, parts)
            except Exception as error:  # noqa: BLE001 - it is raised when what is in flight is back
                bug = error
                continue
        if not parts.dispatcher.out:
            settle_last(state, parts)
        if not state.ended and not parts.dispatcher.out and not state.waits:
            break
        # Outcomes are written down first.
        patience = 0.0 if state.ended else min(parts.look_up, max(0.0, until - parts.clock()))
        for finished in parts.dispatcher.take(patience):
            met = take_in(state, finished, parts)
            bug = bug or met
        yield from _yield(state, parts)
    if bug is not None:
        raise bug


def _yield(state: State, parts: Parts) -> Iterator[Round]:
    ended, state.ended = state.ended, []
    for install, outcome, first_try in ended:
        if isinstance(outcome, Recovered) and outcome.stray:
            continue  # It was not handed out, and its answer has already been heard.
        state.queues[install.key.client_id].under_way -= 1
        parts.breaker.observe(install.key.client_id, outcome, first_try)
    left, waiting = parts.clock(), state.waits + len(parts.connectivity.unsettled)
    yield Round([(install, outcome) for install, outcome, _ in ended], parts.dispatcher.out, waiting)
    parts.dispatcher.caller_was_away(parts.clock() - left)
    for install, _, _ in ended:
        state.release(parts.router.ended(install), parts.clock())


def _stops(parts: Parts) -> bool:
    return parts.stop.met() or parts.stop.out_of_patience


def _hand_out(state: State, parts: Parts) -> float:
    """Hand out installs. Returns when more may go out, even if nothing comes back by then."""
    while len(state.ended) < parts.dispatcher.slots and not _stops(parts):
        if parts.dispatcher.is_full:
            return math.inf
        not_before = parts.connectivity.not_before()
        if not_before > parts.clock():
            return not_before
        if not parts.dispatcher.has_thread(parts.stop.no_thread, parts.notes):
            return math.inf
        progress = _next(state, parts)
        if progress is None:
            return state.waiting.next_due
        try:
            task = parts.router.claim(progress) if _may_go(state, progress, parts) else None
        except BaseException:
            state.end(progress, parts.router.unfinished(progress))
            raise
        if task is not None:
            parts.dispatcher.send(progress, task)
            parts.connectivity.goes(progress.last_try)
    return math.inf


def _may_go(state: State, progress: InstallProgress, parts: Parts) -> bool:
    """Whether the install's next try goes out now. Otherwise the install waits or ends."""
    step = parts.router.step(progress)
    if isinstance(step, WaitFor):
        state.parked.setdefault(step.key, []).append(progress)
    elif isinstance(step, WaitUntil):
        state.waiting.add(step.moment, progress)
    elif isinstance(step, Exhausted):
        state.end(progress, parts.router.over(progress))
    return isinstance(step, RunNow)


def _next(state: State, parts: Parts) -> InstallProgress | None:
    if (due := state.waiting.take_due(parts.clock())) is not None:
        return due
    if state.waits >= MOST_WAITING:
        return None
    for client_id, queued in state.queues.items():
        if parts.breaker.tripped(client_id):
            continue
        # What the breaker says is known at once. Those aside are counted.
        if parts.breaker.goes_alone(client_id) and queued.under_way > _aside(state, client_id):
            continue
        install = next(queued.todo, None)
        if install is None:
            continue
        queued.under_way += 1
        state.queues[client_id] = state.queues.pop(client_id)  # The next app gets the next turn.
        return parts.router.begin(install)
    return None


def _aside(state: State, client_id: str) -> int:
    """How many installs of an app wait for a limit of their own. The others do not wait for these."""
    waiting = (progress for progress in state.waiting if progress.refusals >= OWN_LIMIT)
    return sum(progress.install.key.client_id == client_id for progress in waiting)
