"""Installs out to workers, outcomes back; who goes next.

The caller's loop is the barrier: a worker takes another install only when the caller comes back for more, and by
then it has written down what it was given. A wait between tries holds no worker.
"""

from __future__ import annotations

import heapq
import itertools
import math
import queue
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from jobs.attempt import Errand, Listing, Tried, is_refused_by_pace
from jobs.model import Install, Met, Outcome, Recovered, Tokens
from jobs.steps import OWN_LIMIT, Go, Over, Park, Until, Way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Executor, Future

    from jobs.bearers import AgencyKey
    from jobs.breaker import Breaker
    from jobs.ways import Ways

_LOOK_UP_SECONDS = 0.2
_MOST_WAITING = 10_000
# A disk that takes longer to sync is not one to run on; and a ledger that was held for a minute is none that is slow.
_LONGEST_AWAY = 5.0


@dataclass(frozen=True, slots=True)
class Means:
    """What the scheduler works with.

    `under_way` tells how many requests have left and are not answered. Without `fixed` workers, so many others are
    kept ready (`at_gate`, or more where the caller is slow to write down what has ended) that no slot passes unused: as
    many are out as the pace and the answers' time need, up to `slots`.
    """

    executor: Executor
    slots: int
    fixed: bool
    try_once: Callable[[Errand], Tried]
    ways: Ways
    breaker: Breaker
    under_way: Callable[[], int]
    out_of_patience: Callable[[], bool]
    stopping: Callable[[], bool]
    clock: Callable[[], float]
    look_up: float = _LOOK_UP_SECONDS
    at_gate: int = 2
    requests_per_second: float = 0.0


class Round(NamedTuple):
    """What has ended since the last round (often nothing), how many installs a worker has, how many wait between tries."""

    ended: list[tuple[Install, Outcome]]
    in_flight: int
    waiting: int


@dataclass(slots=True)
class _Lane:
    """One app's installs: those to come, and how many are on their way."""

    todo: Iterator[Install]
    under_way: int = 0
    empty: bool = False


@dataclass(slots=True)
class _Floor:
    lanes: dict[str, _Lane]
    done: queue.SimpleQueue[tuple[Way, Errand, Future[Tried]]] = field(default_factory=queue.SimpleQueue)
    waiting: list[tuple[float, int, Way]] = field(default_factory=list)
    parked: dict[AgencyKey, list[Way]] = field(default_factory=dict)
    ended: list[tuple[Install, Outcome]] = field(default_factory=list)
    order: Iterator[int] = field(default_factory=itertools.count)
    out: int = 0
    away: float = 0.0

    @property
    def waits(self) -> int:
        """How many installs wait: for a moment, or for an agency."""
        return len(self.waiting) + sum(map(len, self.parked.values()))

    def wait_until(self, moment: float, way: Way) -> None:
        """Try it again then."""
        heapq.heappush(self.waiting, (moment, next(self.order), way))

    def caller_was_away(self, seconds: float) -> None:
        """The caller took so long to write down a round: so long nobody hands out anything the next time, too."""
        self.away = min(_LONGEST_AWAY, max(seconds, self.away / 2))

    def ready(self, means: Means) -> int:
        """How many installs are to stand at the gate, so that it lets one out whenever it may until the caller is back."""
        return max(means.at_gate, math.ceil(self.away * means.requests_per_second))

    def at_gate(self, means: Means) -> int:
        """How many installs stand there. What has ended does not, collected or not."""
        return self.out - self.done.qsize() - means.under_way()

    def release(self, keys: list[AgencyKey], now: float) -> None:
        """What was waited for at these agencies has ended."""
        for key in keys:
            for way in self.parked.pop(key, ()):
                self.wait_until(now, way)


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
        _give_up_waiting(floor, means, everybody=bug is not None or _stops(means))
        if not floor.ended and not floor.out and not floor.waiting:
            break
        for way, errand, future in _collect(floor, means) if floor.out or floor.waiting else ():
            floor.out -= 1
            bug = bug or future.exception()
            if future.exception():
                floor.ended.append((way.install, means.ways.unfinished(way)))
            else:
                _judge(floor, way, errand, future.result(), means)
        ended, floor.ended = floor.ended, []
        _take_note(floor, ended, means)
        left = means.clock()
        yield Round(ended, floor.out, floor.waits)
        floor.caller_was_away(means.clock() - left)
        for install, _ in ended:
            floor.release(means.ways.ended(install), means.clock())
    if bug is not None:
        raise bug


def _take_note(floor: _Floor, ended: list[tuple[Install, Outcome]], means: Means) -> None:
    for install, outcome in ended:
        if isinstance(outcome, Recovered) and outcome.stray:
            continue  # It was not handed out, and says nothing that its answer has not said.
        floor.lanes[install.key.client_id].under_way -= 1
        means.breaker.observe(install.key.client_id, outcome)


def _stops(means: Means) -> bool:
    return means.stopping() or means.out_of_patience()


def _hand_out(floor: _Floor, means: Means) -> None:
    while floor.out < means.slots and len(floor.ended) < means.slots and not _stops(means):
        if not means.fixed and floor.at_gate(means) >= floor.ready(means):
            return
        way = _next(floor, means)
        if way is None:
            return
        if not _may_go(floor, way, means):
            continue
        errand = means.ways.claim(way)
        floor.out += 1
        future = means.executor.submit(means.try_once, errand)
        future.add_done_callback(partial(_put, floor.done, way, errand))


def _put(
    done: queue.SimpleQueue[tuple[Way, Errand, Future[Tried]]], way: Way, errand: Errand, ended: Future[Tried]
) -> None:
    done.put((way, errand, ended))


def _may_go(floor: _Floor, way: Way, means: Means) -> bool:
    """Whether the way's next try goes out now; if not, it waits, or it is over."""
    step = means.ways.step(way)
    if isinstance(step, Park):
        floor.parked.setdefault(step.key, []).append(way)
    elif isinstance(step, Until):
        floor.wait_until(step.moment, way)
    elif isinstance(step, Over):
        floor.ended.append((way.install, means.ways.failed(way)))
    return isinstance(step, Go)


def _next(floor: _Floor, means: Means) -> Way | None:
    if floor.waiting and floor.waiting[0][0] <= means.clock():
        return heapq.heappop(floor.waiting)[2]
    if floor.waits >= _MOST_WAITING:
        return None
    for client_id, lane in floor.lanes.items():
        if lane.empty or means.breaker.tripped(client_id):
            continue
        if lane.under_way and means.breaker.goes_alone(client_id) and lane.under_way > _aside(floor, client_id):
            continue
        install = next(lane.todo, None)
        if install is None:
            lane.empty = True
            continue
        lane.under_way += 1
        floor.lanes[client_id] = floor.lanes.pop(client_id)  # The next app has the next turn.
        return means.ways.begin(install)
    return None


def _aside(floor: _Floor, client_id: str) -> int:
    """How many installs of an app wait for a limit of their own: none of them is the first that the others wait for."""
    waiting = (way for _, _, way in floor.waiting if way.refusals >= OWN_LIMIT)
    return sum(way.install.key.client_id == client_id for way in waiting)


def _collect(floor: _Floor, means: Means) -> Iterator[tuple[Way, Errand, Future[Tried]]]:
    """Whatever has ended; waits for the first, but not past the next try that is due, nor where others have ended."""
    patience = 0.0 if floor.ended else means.look_up
    if floor.waiting:
        patience = min(patience, max(0.0, floor.waiting[0][0] - means.clock()))
    try:
        yield floor.done.get(timeout=patience)
        while True:
            yield floor.done.get_nowait()
    except queue.Empty:
        return


def _judge(floor: _Floor, way: Way, errand: Errand, tried: Tried, means: Means) -> None:
    """Where a way goes on after a try, or how it ends."""
    floor.release(means.ways.heard(way, errand, tried), means.clock())
    if tried is None:
        _cut_short(floor, way, means)
        return
    if isinstance(tried, Listing):
        floor.wait_until(means.clock(), way)
        return
    if isinstance(tried, Tokens):
        way.tries += 1
        floor.ended.append((way.install, means.ways.recovered(way, tried)))
        return
    way.last = tried
    if is_refused_by_pace(tried):
        wait = means.ways.wait_refused(way, tried)
        if wait is not None:
            floor.wait_until(means.clock() + wait, way)
            return
    else:
        way.refusals = 0
        wait = means.ways.wait_after(way, tried)
    floor.ended += [(agency.install, back) for agency, back in means.ways.take_strays()]
    way.tries += 1
    if wait is None and isinstance(means.ways.step(way), Over):
        floor.ended.append((way.install, means.ways.failed(way)))
    elif means.stopping() or means.breaker.tripped(way.install.key.client_id):
        floor.ended.append((way.install, means.ways.unfinished(way)))
    else:
        floor.wait_until(means.clock() + (wait or 0.0), way)


def _cut_short(floor: _Floor, way: Way, means: Means) -> None:
    """Where patience with 429 ran out, that is the failure of those which met it; else the install is as it was."""
    if means.out_of_patience() and is_refused_by_pace(way.last) and way.last is not None:
        way.tries += 1
        way.met.append(Met(way.left[0], way.last))
        floor.ended.append((way.install, means.ways.failed(way)))
    else:
        floor.ended.append((way.install, means.ways.unfinished(way)))


def _give_up_waiting(floor: _Floor, means: Means, *, everybody: bool) -> None:
    """End the waits that make no sense any more: all of them, or those of an app that is stopped."""

    def given_up(way: Way) -> bool:
        return everybody or means.breaker.tripped(way.install.key.client_id) is not None

    if not everybody and not any(means.breaker.tripped(client_id) for client_id in floor.lanes):
        return
    ways = [entry[2] for entry in sorted(floor.waiting) if given_up(entry[2])]
    ways += [way for parked in floor.parked.values() for way in parked if given_up(way)]
    if not ways:
        return
    floor.waiting = [entry for entry in floor.waiting if not given_up(entry[2])]
    heapq.heapify(floor.waiting)
    floor.parked = {key: [way for way in parked if not given_up(way)] for key, parked in floor.parked.items()}
    for way in ways:
        _cut_short(floor, way, means)
