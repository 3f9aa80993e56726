"""Installs out to workers, outcomes back; who goes next.

The caller's loop is the barrier: a worker takes another install only when the caller comes back for more, and by
then it has written down what it was given. A wait between tries holds no worker. The loop turns when something has come
back or may go out, and else once in a while for those who look on: waiting costs nothing.
"""

from __future__ import annotations

import heapq
import itertools
import math
import queue
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from jobs.attempt import Errand, Listing, Tried, is_refused_by_pace
from jobs.breaker import Trip
from jobs.core.model import Answer, Install, Met, Outcome, Recovered, Stage, Tokens
from jobs.faults import is_late, is_unreachable
from jobs.steps import OWN_LIMIT, Go, Over, Park, Until, Way
from jobs.width import Width

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jobs.bearers import AgencyKey
    from jobs.breaker import Breaker
    from jobs.contact import Contact
    from jobs.ways import Ways

_LOOK_UP_SECONDS = 1.0
_MOST_WAITING = 10_000
# A disk that takes longer to sync is not one to run on; and a ledger that was held for a minute is none that is slow.
_LONGEST_AWAY = 5.0


class Back(NamedTuple):
    """What a worker brings back: how the try ended, or the bug that ended it."""

    way: Way
    errand: Errand
    tried: Tried
    bug: BaseException | None = None


class Inbox(Protocol):
    """Where what workers bring back comes in, and None, where somebody wants the scheduler to look again."""

    def get(self, *, timeout: float) -> Back | None:
        """Take the first one out, waiting for it. Raises queue.Empty after that many seconds."""

    def get_nowait(self) -> Back | None:
        """Take the first one out. Raises queue.Empty where there is none."""


class Workers(Protocol):
    """The threads that tries are done by."""

    @property
    def lacking(self) -> str:
        """Why there are fewer than were asked for, if there are."""

    @property
    def busy(self) -> int:
        """How many have a try that is not back."""

    def __len__(self) -> int:
        """How many there are."""

    def ready(self) -> bool:
        """Whether one is there for one more try."""

    def do(self, job: Callable[[], Back]) -> None:
        """Have one of them do that. What it gives comes into the inbox."""


@dataclass(frozen=True, slots=True)
class Means:
    """What the scheduler works with.

    `under_way` tells how many requests have left and are not answered. Without `fixed` workers, so many others are
    kept ready (`at_gate`, or more where the caller is slow to write down what has ended) that no slot passes unused: as
    many are out as the pace and the answers' time need, up to `slots`. Where `under_way` grows, None comes into `inbox`.
    `no_worker` is told why no thread can be started at all; `say` tells a person.
    """

    crew: Workers
    inbox: Inbox
    slots: int
    fixed: bool
    try_once: Callable[[Errand], Tried]
    ways: Ways
    breaker: Breaker
    contact: Contact
    under_way: Callable[[], int]
    out_of_patience: Callable[[], bool]
    stopping: Callable[[], bool]
    no_worker: Callable[[str], None]
    say: Callable[[str], None]
    clock: Callable[[], float]
    look_up: float = _LOOK_UP_SECONDS
    at_gate: int = 2
    requests_per_second: float = 0.0


class Round(NamedTuple):
    """What has ended since the last round (often nothing), how many installs a worker has, how many wait between tries."""

    ended: list[tuple[Install, Outcome]]
    in_flight: int
    waiting: int


class _Ended(NamedTuple):
    install: Install
    outcome: Outcome
    first_try: int


@dataclass(slots=True)
class _Lane:
    """One app's installs: those to come, and how many are on their way."""

    todo: Iterator[Install]
    under_way: int = 0
    empty: bool = False


@dataclass(slots=True)
class _Floor:
    """Who is where. `unsettled` got no answer, and it is not known yet whether anybody does; `tries` have begun by now."""

    lanes: dict[str, _Lane]
    width: Width
    waiting: list[tuple[float, int, Way]] = field(default_factory=list)
    parked: dict[AgencyKey, list[Way]] = field(default_factory=dict)
    unsettled: list[tuple[Way, Answer]] = field(default_factory=list)
    ended: list[_Ended] = field(default_factory=list)
    order: Iterator[int] = field(default_factory=itertools.count)
    tries: int = 0
    out: int = 0
    told: bool = False
    away: float = 0.0

    @property
    def waits(self) -> int:
        """How many installs wait: for a moment, for an agency, or for the network."""
        return len(self.waiting) + len(self.unsettled) + sum(map(len, self.parked.values()))

    @property
    def next_due(self) -> float:
        """When the next one that waits is due."""
        return self.waiting[0][0] if self.waiting else math.inf

    def wait_until(self, moment: float, way: Way) -> None:
        """Try it again then."""
        heapq.heappush(self.waiting, (moment, next(self.order), way))

    def caller_was_away(self, seconds: float) -> None:
        """The caller took so long to write down a round: so long nobody hands out anything the next time, too."""
        self.away = min(_LONGEST_AWAY, max(seconds, self.away / 2))

    def ready(self, means: Means) -> int:
        """How many installs are to stand at the gate, so that it lets one out whenever it may until the caller is back."""
        return max(means.at_gate, math.ceil(self.away * means.requests_per_second))

    def release(self, keys: list[AgencyKey], now: float) -> None:
        """What was waited for at these agencies has ended."""
        for key in keys:
            for way in self.parked.pop(key, ()):
                self.wait_until(now, way)

    def end(self, way: Way, outcome: Outcome) -> None:
        """Its way through the run is over."""
        self.ended.append(_Ended(way.install, outcome, way.first_try))

    def take_waiting(self, given_up: Callable[[Way], bool]) -> list[Way]:
        """Take away those who wait and are given up."""
        found = [entry[2] for entry in sorted(self.waiting) if given_up(entry[2])]
        found += [way for way, _ in self.unsettled if given_up(way)]
        found += [way for parked in self.parked.values() for way in parked if given_up(way)]
        self.waiting = [entry for entry in self.waiting if not given_up(entry[2])]
        heapq.heapify(self.waiting)
        self.unsettled = [(way, answer) for way, answer in self.unsettled if not given_up(way)]
        self.parked = {key: [way for way in parked if not given_up(way)] for key, parked in self.parked.items()}
        return found


def outcomes(todo: Mapping[str, Iterator[Install]], means: Means) -> Iterator[Round]:
    """Yields what has ended since the last time, until nothing is left to hand out and all that was is back.

    It comes back at least each `look_up`, so that a person can be told of a run in which nothing ends. `todo` are the installs of each app, in order. Raises what a worker raised, after the others have ended.
    """
    floor = _Floor({client_id: _Lane(installs) for client_id, installs in todo.items()}, Width(means.slots))
    bug: BaseException | None = None
    until = math.inf
    while True:
        _give_up_waiting(floor, means, everybody=bug is not None or _stops(means))
        if bug is None:
            try:
                until = _hand_out(floor, means)
            except Exception as error:  # noqa: BLE001 - it is raised when what is in flight is back
                bug = error
                continue
        if not floor.out:
            _settle_all(floor, means)
        if not floor.ended and not floor.out and not floor.waits:
            break
        for back in _collect(floor, means, until):
            floor.out -= 1
            met = _take_in(floor, back, means)
            bug = bug or met
        yield from _yield(floor, means)
    if bug is not None:
        raise bug


def _yield(floor: _Floor, means: Means) -> Iterator[Round]:
    ended, floor.ended = floor.ended, []
    for install, outcome, first_try in ended:
        if isinstance(outcome, Recovered) and outcome.stray:
            continue  # It was not handed out, and says nothing that its answer has not said.
        floor.lanes[install.key.client_id].under_way -= 1
        means.breaker.observe(install.key.client_id, outcome, first_try)
    left = means.clock()
    yield Round([(install, outcome) for install, outcome, _ in ended], floor.out, floor.waits)
    floor.caller_was_away(means.clock() - left)
    for install, _, _ in ended:
        floor.release(means.ways.ended(install), means.clock())


def _stops(means: Means) -> bool:
    return means.stopping() or means.out_of_patience()


def _hand_out(floor: _Floor, means: Means) -> float:
    """Hand out what may go. Returns when more may go although nothing comes in by then."""
    while len(floor.ended) < means.slots and not _stops(means):
        if floor.out >= floor.width.most:
            return math.inf
        if not means.fixed and means.crew.busy - means.under_way() >= floor.ready(means):
            return math.inf
        not_before = means.contact.not_before()
        if not_before > means.clock():
            return not_before
        if not means.crew.ready():
            _too_few(floor, means)
            return math.inf
        way = _next(floor, means)
        if way is None:
            return floor.next_due
        try:
            errand = means.ways.claim(way) if _may_go(floor, way, means) else None
        except BaseException:
            floor.end(way, means.ways.unfinished(way))
            raise
        if errand is not None:
            _send(floor, way, errand, means)
    return math.inf


def _too_few(floor: _Floor, means: Means) -> None:
    """No more threads: the run goes on with those there are; without any it stops."""
    if not len(means.crew):
        means.no_worker(means.crew.lacking)
    elif means.crew.lacking and not floor.told:
        floor.told = True
        why = f"this machine starts no more threads ({means.crew.lacking})"
        means.say(f"{why}: going on with {len(means.crew)}")


def _send(floor: _Floor, way: Way, errand: Errand, means: Means) -> None:
    floor.tries += 1
    way.first_try, way.last_try = way.first_try or floor.tries, floor.tries
    means.contact.goes(floor.tries)
    floor.out += 1
    means.crew.do(partial(_try, means, way, errand))


def _try(means: Means, way: Way, errand: Errand) -> Back:
    try:
        return Back(way, errand, means.try_once(errand))
    except BaseException as bug:  # noqa: BLE001 - it is raised in the scheduler's thread
        return Back(way, errand, None, bug)


def _may_go(floor: _Floor, way: Way, means: Means) -> bool:
    """Whether the way's next try goes out now; if not, it waits, or it is over."""
    step = means.ways.step(way)
    if isinstance(step, Park):
        floor.parked.setdefault(step.key, []).append(way)
    elif isinstance(step, Until):
        floor.wait_until(step.moment, way)
    elif isinstance(step, Over):
        floor.end(way, means.ways.over(way))
    return isinstance(step, Go)


def _next(floor: _Floor, means: Means) -> Way | None:
    if floor.next_due <= means.clock():
        return heapq.heappop(floor.waiting)[2]
    if floor.waits >= _MOST_WAITING:
        return None
    for client_id, lane in floor.lanes.items():
        if lane.empty or means.breaker.tripped(client_id):
            continue
        if lane.under_way > _aside(floor, client_id) and means.breaker.goes_alone(client_id):
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


def _collect(floor: _Floor, means: Means, until: float) -> Iterator[Back]:
    """Whatever has come back; waits for the first, but not past `until`, nor where others have ended."""
    patience = 0.0 if floor.ended else min(means.look_up, max(0.0, until - means.clock()))
    try:
        back = means.inbox.get(timeout=patience)
        while True:
            if back is not None:
                yield back
            back = means.inbox.get_nowait()
    except queue.Empty:
        return


def _take_in(floor: _Floor, back: Back, means: Means) -> BaseException | None:
    """Judge what came back. Returns the bug that its worker met, or the judge: its way ends with it, a new pair as such."""
    bug = back.bug
    if bug is None:
        try:
            _judge(floor, back, means)
        except Exception as error:  # noqa: BLE001 - it is raised when what is in flight is back
            bug = error
    if bug is None:
        return None
    if isinstance(back.tried, Tokens):
        back.way.tries += 1
        floor.end(back.way, means.ways.recovered(back.way, back.tried))
    else:
        floor.end(back.way, means.ways.unfinished(back.way))
    return bug


def _judge(floor: _Floor, back: Back, means: Means) -> None:
    """Take note of what came back, then see where its way goes on."""
    way, tried, now = back.way, back.tried, means.clock()
    floor.release(means.ways.heard(way, back.errand, tried), now)
    means.contact.back(way.last_try, now)
    if isinstance(tried, Tokens | Answer):
        means.breaker.hear(way.install.key.client_id, back.errand.route, tried, floor.tries)
    if isinstance(tried, Tokens | Listing) or (isinstance(tried, Answer) and tried.status):
        floor.width.answered()
        _in_contact(floor, means)
    elif isinstance(tried, Answer) and _may_be_the_network(way, tried, means):
        was_away = means.contact.away
        if means.contact.unanswered(way.install.key, way.last_try, now):
            floor.unsettled.append((way, tried))
            _in_doubt(floor, tried, means, was_away=was_away)
            return
    _go_on(floor, way, tried, means)


def came_late(back: Back) -> bool:
    """Whether the try ran into a time-out."""
    return isinstance(back.tried, Answer) and is_late(back.tried)


def _may_be_the_network(way: Way, answer: Answer, means: Means) -> bool:
    """Whether no answer came, for what may be nobody's fault.

    An exchange has an answer before it. A refresh whose token may be spent is asked for again in time, or never.
    """
    if not is_unreachable(answer) or answer.stage is Stage.EXCHANGE or way.window.opened is not None:
        return False
    return means.contact.away or not way.suspect


def _in_contact(floor: _Floor, means: Means) -> None:
    """An answer came: who got none until now has met a fault of his own."""
    if means.contact.away:
        means.say("HighLevel answers again: going on")
    means.contact.answered(floor.tries)
    for way, _ in floor.unsettled:
        way.suspect = True
    _settle_all(floor, means)


def _in_doubt(floor: _Floor, answer: Answer, means: Means, *, was_away: bool) -> None:
    """One more got no answer: where nobody does, it is nobody's try, and they wait for the network."""
    if not means.contact.away:
        return
    if means.contact.over(means.clock()):
        means.breaker.stop_all(Trip("outage", answer.message))
    if not was_away:
        means.say(f"HighLevel cannot be reached: {answer.message}; one install asks again, the others wait")
    for way, _ in floor.unsettled:
        floor.wait_until(means.clock(), way)
    floor.unsettled.clear()


def _settle_all(floor: _Floor, means: Means) -> None:
    unsettled, floor.unsettled = floor.unsettled, []
    for way, answer in unsettled:
        _go_on(floor, way, answer, means)


def _go_on(floor: _Floor, way: Way, tried: Tried, means: Means) -> None:
    """Where a way goes on after a try, or how it ends."""
    if tried is None:
        _cut_short(floor, way, means)
    elif isinstance(tried, Listing):
        floor.wait_until(means.clock(), way)
    elif isinstance(tried, Tokens):
        way.tries += 1
        floor.end(way, means.ways.recovered(way, tried))
    else:
        _failed(floor, way, tried, means)


def _failed(floor: _Floor, way: Way, answer: Answer, means: Means) -> None:
    if is_late(answer) and means.contact.reached:
        floor.width.late(way.last_try, floor.out + 1, floor.tries)
    way.last = answer
    if is_refused_by_pace(answer):
        wait = means.ways.wait_refused(way, answer)
        if wait is not None:
            floor.wait_until(means.clock() + wait, way)
            return
    else:
        way.refusals = 0
        wait = means.ways.wait_after(way, answer)
    floor.ended += [_Ended(agency.install, back, agency.first_try) for agency, back in means.ways.take_strays()]
    way.tries += 1
    if wait is None and isinstance(means.ways.step(way), Over):
        floor.end(way, means.ways.over(way))
    elif means.stopping() or means.breaker.tripped(way.install.key.client_id):
        floor.end(way, means.ways.unfinished(way))
    else:
        floor.wait_until(means.clock() + (wait or 0.0), way)


def _cut_short(floor: _Floor, way: Way, means: Means) -> None:
    """Where patience with 429 ran out, that is the failure of those which met it; else the install is as it was."""
    if means.out_of_patience() and is_refused_by_pace(way.last) and way.last is not None:
        way.tries += 1
        way.met.append(Met(way.left[0], way.last))
        floor.end(way, means.ways.over(way))
    else:
        floor.end(way, means.ways.unfinished(way))


def _give_up_waiting(floor: _Floor, means: Means, *, everybody: bool) -> None:
    """End the waits that make no sense any more: all of them, or those of an app that is stopped."""
    stopped = {client_id for client_id in floor.lanes if everybody or means.breaker.tripped(client_id)}
    if stopped:
        for way in floor.take_waiting(lambda way: way.install.key.client_id in stopped):
            _cut_short(floor, way, means)
