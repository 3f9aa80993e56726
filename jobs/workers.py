"""Installs out to workers, outcomes back; who goes next.

The caller's loop is the barrier: a worker takes another install only when the caller comes back for more, and by
then it has written down what it was given. A wait between tries holds no worker.
"""

from __future__ import annotations

import heapq
import itertools
import queue
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from jobs.attempt import Tried, is_refused_by_pace
from jobs.causes import diagnose
from jobs.model import Answer, Failed, Install, Outcome, Recovered, Stage, Tokens, Unfinished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Executor, Future

    from tenacity import RetryCallState

    from jobs.attempt import Persistence
    from jobs.breaker import Breaker

_LOOK_UP_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Means:
    """What the scheduler works with.

    `under_way` tells how many requests have left and are not answered. Without `fixed` workers, so many others are
    kept ready (`at_gate`) that no slot passes unused: as many are out as the pace and the answers' time need, up to
    `slots`.
    """

    executor: Executor
    slots: int
    fixed: bool
    try_once: Callable[[Install], Tried]
    persistence: Persistence
    breaker: Breaker
    under_way: Callable[[], int]
    out_of_patience: Callable[[], bool]
    stopping: Callable[[], bool]
    clock: Callable[[], float]
    now: Callable[[], str]
    look_up: float = _LOOK_UP_SECONDS
    at_gate: int = 2


class Round(NamedTuple):
    """What has ended since the last round (often nothing), how many installs a worker has, how many wait between tries."""

    ended: list[tuple[Install, Outcome]]
    in_flight: int
    waiting: int


@dataclass(slots=True)
class _Job:
    install: Install
    state: RetryCallState
    tries: int = 0
    last: Answer | None = None


@dataclass(slots=True)
class _Lane:
    """One app's installs: those to come, and how many are on their way."""

    todo: Iterator[Install]
    under_way: int = 0
    empty: bool = False


@dataclass(slots=True)
class _Floor:
    lanes: dict[str, _Lane]
    done: queue.SimpleQueue[tuple[_Job, Future[Tried]]] = field(default_factory=queue.SimpleQueue)
    waiting: list[tuple[float, int, _Job]] = field(default_factory=list)
    order: Iterator[int] = field(default_factory=itertools.count)
    out: int = 0


def outcomes(todo: Mapping[str, Iterator[Install]], means: Means) -> Iterator[Round]:
    """Yields what has ended since the last time, until nothing is left to hand out and all that was is back.

    It comes back at least each `look_up`, so that a person can be told of a run in which nothing ends. `todo` are the installs of each app, in order. Raises what a worker raised, after the others have ended.
    """
    floor = _Floor({client_id: _Lane(installs) for client_id, installs in todo.items()})
    bug: BaseException | None = None
    while True:
        if bug is None:
            try:
                _hand_out(floor, means)
            except Exception as error:  # noqa: BLE001 - it is raised when what is in flight is back
                bug = error
        ended = _give_up_waiting(floor, means, everybody=bug is not None or _stops(means))
        if not ended and not floor.out and not floor.waiting:
            break
        for job, future in _collect(floor, means) if floor.out or floor.waiting else ():
            floor.out -= 1
            bug = bug or future.exception()
            outcome = Unfinished(job.tries) if future.exception() else _judge(floor, job, future.result(), means)
            if outcome is not None:
                ended.append((job.install, outcome))
        for install, outcome in ended:
            floor.lanes[install.key.client_id].under_way -= 1
            means.breaker.observe(install.key.client_id, outcome)
        yield Round(ended, floor.out, len(floor.waiting))
    if bug is not None:
        raise bug


def _stops(means: Means) -> bool:
    return means.stopping() or means.out_of_patience()


def _hand_out(floor: _Floor, means: Means) -> None:
    while floor.out < means.slots and not _stops(means):
        if not means.fixed and floor.out - means.under_way() >= means.at_gate:
            return
        job = _next(floor, means)
        if job is None:
            return
        floor.out += 1
        future = means.executor.submit(means.try_once, job.install)
        future.add_done_callback(partial(_put, floor.done, job))


def _put(done: queue.SimpleQueue[tuple[_Job, Future[Tried]]], job: _Job, ended: Future[Tried]) -> None:
    done.put((job, ended))


def _next(floor: _Floor, means: Means) -> _Job | None:
    if floor.waiting and floor.waiting[0][0] <= means.clock():
        return heapq.heappop(floor.waiting)[2]
    for client_id, lane in floor.lanes.items():
        if lane.empty or means.breaker.tripped(client_id):
            continue
        if lane.under_way and means.breaker.goes_alone(client_id):
            continue
        install = next(lane.todo, None)
        if install is None:
            lane.empty = True
            continue
        lane.under_way += 1
        floor.lanes[client_id] = floor.lanes.pop(client_id)  # The next app has the next turn.
        return _Job(install, means.persistence.begin())
    return None


def _collect(floor: _Floor, means: Means) -> Iterator[tuple[_Job, Future[Tried]]]:
    """Whatever has ended; waits for the first, but not past the next try that is due."""
    patience = means.look_up
    if floor.waiting:
        patience = min(patience, max(0.0, floor.waiting[0][0] - means.clock()))
    try:
        yield floor.done.get(timeout=patience)
        while True:
            yield floor.done.get_nowait()
    except queue.Empty:
        return


def _judge(floor: _Floor, job: _Job, tried: Tried, means: Means) -> Outcome | None:
    """The outcome of an install whose try has ended, or None where it is tried again."""
    if tried is None:
        return _unfinished(job, means)
    if is_refused_by_pace(tried):
        job.last = tried if isinstance(tried, Answer) else None
        heapq.heappush(floor.waiting, (means.clock(), next(floor.order), job))
        return None
    job.tries += 1
    if isinstance(tried, Tokens):
        return Recovered(tried, "reconnect", job.tries, means.now())
    job.last = tried
    wait = means.persistence.wait_after(job.state, tried)
    if wait is None:
        return _failed(job, tried, means)
    if means.stopping() or means.breaker.tripped(job.install.key.client_id):
        return Unfinished(job.tries)
    heapq.heappush(floor.waiting, (means.clock() + wait, next(floor.order), job))
    return None


def _failed(job: _Job, answer: Answer, means: Means) -> Failed:
    return Failed(
        diagnose(answer), answer.stage, answer.message, answer.status, answer.trace_id, job.tries, means.now()
    )


def _unfinished(job: _Job, means: Means) -> Outcome:
    """Where patience with 429 ran out, that is the failure of those which met it; else the install is as it was."""
    if means.out_of_patience() and is_refused_by_pace(job.last):
        job.tries += 1
        answer = job.last or Answer(Stage.RECONNECT)
        return _failed(job, answer, means)
    return Unfinished(job.tries)


def _give_up_waiting(floor: _Floor, means: Means, *, everybody: bool) -> list[tuple[Install, Outcome]]:
    """End the waits between tries that make no sense any more: all of them, or those of an app that is stopped."""
    given_up = [entry for entry in floor.waiting if everybody or means.breaker.tripped(entry[2].install.key.client_id)]
    if given_up:
        floor.waiting = [
            entry for entry in floor.waiting if not (everybody or means.breaker.tripped(entry[2].install.key.client_id))
        ]
        heapq.heapify(floor.waiting)
    return [(job.install, _unfinished(job, means)) for _, _, job in given_up]
