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

from jobs.core.model import Answer, Install, Outcome, Recovered, RouteResult, Stage, Tokens
from jobs.highlevel.network_errors import is_late, is_unreachable
from jobs.recovery.attempt import Listing, Task, Tried, is_refused_by_pace
from jobs.recovery.breaker import Trip
from jobs.recovery.concurrency import Concurrency
from jobs.recovery.progress import OWN_LIMIT, Exhausted, InstallProgress, RunNow, WaitFor, WaitUntil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jobs.recovery.agency_tokens import AgencyKey
    from jobs.recovery.breaker import Breaker
    from jobs.recovery.connectivity import Connectivity
    from jobs.recovery.routing import Router

_LOOK_UP_SECONDS = 1.0
_MOST_WAITING = 10_000
# A disk that takes longer to sync is not one to run on; and a ledger that was held for a minute is none that is slow.
_LONGEST_AWAY = 5.0


class FinishedTry(NamedTuple):
    """What a worker brings back: how the try ended, or the bug that ended it."""

    progress: InstallProgress
    task: Task
    tried: Tried
    bug: BaseException | None = None


class Inbox(Protocol):
    """Where what workers bring back comes in, and None, where somebody wants the scheduler to look again."""

    def get(self, *, timeout: float) -> FinishedTry | None:
        """Take the first one out, waiting for it. Raises queue.Empty after that many seconds."""

    def get_nowait(self) -> FinishedTry | None:
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

    def do(self, job: Callable[[], FinishedTry]) -> None:
        """Have one of them do that. What it gives comes into the inbox."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the scheduler works with.

    `under_way` tells how many requests have left and are not answered. Without `fixed` workers, so many others are
    kept ready (`at_gate`, or more where the caller is slow to write down what has ended) that no slot passes unused: as
    many are out as the pace and the answers' time need, up to `slots`. Where `under_way` grows, None comes into `inbox`.
    `no_worker` is told why no thread can be started at all; `say` tells a person.
    """

    threads: Workers
    inbox: Inbox
    slots: int
    fixed: bool
    try_once: Callable[[Task], Tried]
    router: Router
    breaker: Breaker
    connectivity: Connectivity
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
class _Queue:
    """One app's installs: those to come, and how many are on their way."""

    todo: Iterator[Install]
    under_way: int = 0
    empty: bool = False


@dataclass(slots=True)
class _State:
    """Who is where. `unsettled` got no answer, and it is not known yet whether anybody does; `tries` have begun by now."""

    queues: dict[str, _Queue]
    concurrency: Concurrency
    waiting: list[tuple[float, int, InstallProgress]] = field(default_factory=list)
    parked: dict[AgencyKey, list[InstallProgress]] = field(default_factory=dict)
    unsettled: list[tuple[InstallProgress, Answer]] = field(default_factory=list)
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

    def wait_until(self, moment: float, progress: InstallProgress) -> None:
        """Try it again then."""
        heapq.heappush(self.waiting, (moment, next(self.order), progress))

    def caller_was_away(self, seconds: float) -> None:
        """The caller took so long to write down a round: so long nobody hands out anything the next time, too."""
        self.away = min(_LONGEST_AWAY, max(seconds, self.away / 2))

    def ready(self, parts: Parts) -> int:
        """How many installs are to stand at the gate, so that it lets one out whenever it may until the caller is back."""
        return max(parts.at_gate, math.ceil(self.away * parts.requests_per_second))

    def release(self, keys: list[AgencyKey], now: float) -> None:
        """What was waited for at these agencies has ended."""
        for key in keys:
            for progress in self.parked.pop(key, ()):
                self.wait_until(now, progress)

    def end(self, progress: InstallProgress, outcome: Outcome) -> None:
        """Its way through the run is over."""
        self.ended.append(_Ended(progress.install, outcome, progress.first_try))

    def take_waiting(self, given_up: Callable[[InstallProgress], bool]) -> list[InstallProgress]:
        """Take away those who wait and are given up."""
        found = [entry[2] for entry in sorted(self.waiting) if given_up(entry[2])]
        found += [progress for progress, _ in self.unsettled if given_up(progress)]
        found += [progress for parked in self.parked.values() for progress in parked if given_up(progress)]
        self.waiting = [entry for entry in self.waiting if not given_up(entry[2])]
        heapq.heapify(self.waiting)
        self.unsettled = [(progress, answer) for progress, answer in self.unsettled if not given_up(progress)]
        self.parked = {
            key: [progress for progress in parked if not given_up(progress)] for key, parked in self.parked.items()
        }
        return found


def outcomes(todo: Mapping[str, Iterator[Install]], parts: Parts) -> Iterator[Round]:
    """Yields what has ended since the last time, until nothing is left to hand out and all that was is back.

    It comes back at least each `look_up`, so that a person can be told of a run in which nothing ends. `todo` are the installs of each app, in order. Raises what a worker raised, after the others have ended.
    """
    state = _State({client_id: _Queue(installs) for client_id, installs in todo.items()}, Concurrency(parts.slots))
    bug: BaseException | None = None
    until = math.inf
    while True:
        _give_up_waiting(state, parts, everybody=bug is not None or _stops(parts))
        if bug is None:
            try:
                until = _hand_out(state, parts)
            except Exception as error:  # noqa: BLE001 - it is raised when what is in flight is back
                bug = error
                continue
        if not state.out:
            _settle_all(state, parts)
        if not state.ended and not state.out and not state.waits:
            break
        for back in _collect(state, parts, until):
            state.out -= 1
            met = _take_in(state, back, parts)
            bug = bug or met
        yield from _yield(state, parts)
    if bug is not None:
        raise bug


def _yield(state: _State, parts: Parts) -> Iterator[Round]:
    ended, state.ended = state.ended, []
    for install, outcome, first_try in ended:
        if isinstance(outcome, Recovered) and outcome.stray:
            continue  # It was not handed out, and says nothing that its answer has not said.
        state.queues[install.key.client_id].under_way -= 1
        parts.breaker.observe(install.key.client_id, outcome, first_try)
    left = parts.clock()
    yield Round([(install, outcome) for install, outcome, _ in ended], state.out, state.waits)
    state.caller_was_away(parts.clock() - left)
    for install, _, _ in ended:
        state.release(parts.router.ended(install), parts.clock())


def _stops(parts: Parts) -> bool:
    return parts.stopping() or parts.out_of_patience()


def _hand_out(state: _State, parts: Parts) -> float:
    """Hand out what may go. Returns when more may go although nothing comes in by then."""
    while len(state.ended) < parts.slots and not _stops(parts):
        if state.out >= state.concurrency.most:
            return math.inf
        if not parts.fixed and parts.threads.busy - parts.under_way() >= state.ready(parts):
            return math.inf
        not_before = parts.connectivity.not_before()
        if not_before > parts.clock():
            return not_before
        if not parts.threads.ready():
            _too_few(state, parts)
            return math.inf
        progress = _next(state, parts)
        if progress is None:
            return state.next_due
        try:
            task = parts.router.claim(progress) if _may_go(state, progress, parts) else None
        except BaseException:
            state.end(progress, parts.router.unfinished(progress))
            raise
        if task is not None:
            _send(state, progress, task, parts)
    return math.inf


def _too_few(state: _State, parts: Parts) -> None:
    """No more threads: the run goes on with those there are; without any it stops."""
    if not len(parts.threads):
        parts.no_worker(parts.threads.lacking)
    elif parts.threads.lacking and not state.told:
        state.told = True
        why = f"this machine starts no more threads ({parts.threads.lacking})"
        parts.say(f"{why}: going on with {len(parts.threads)}")


def _send(state: _State, progress: InstallProgress, task: Task, parts: Parts) -> None:
    state.tries += 1
    progress.first_try, progress.last_try = progress.first_try or state.tries, state.tries
    parts.connectivity.goes(state.tries)
    state.out += 1
    parts.threads.do(partial(_try, parts, progress, task))


def _try(parts: Parts, progress: InstallProgress, task: Task) -> FinishedTry:
    try:
        return FinishedTry(progress, task, parts.try_once(task))
    except BaseException as bug:  # noqa: BLE001 - it is raised in the scheduler's thread
        return FinishedTry(progress, task, None, bug)


def _may_go(state: _State, progress: InstallProgress, parts: Parts) -> bool:
    """Whether the way's next try goes out now; if not, it waits, or it is over."""
    step = parts.router.step(progress)
    if isinstance(step, WaitFor):
        state.parked.setdefault(step.key, []).append(progress)
    elif isinstance(step, WaitUntil):
        state.wait_until(step.moment, progress)
    elif isinstance(step, Exhausted):
        state.end(progress, parts.router.over(progress))
    return isinstance(step, RunNow)


def _next(state: _State, parts: Parts) -> InstallProgress | None:
    if state.next_due <= parts.clock():
        return heapq.heappop(state.waiting)[2]
    if state.waits >= _MOST_WAITING:
        return None
    for client_id, queued in state.queues.items():
        if queued.empty or parts.breaker.tripped(client_id):
            continue
        if queued.under_way > _aside(state, client_id) and parts.breaker.goes_alone(client_id):
            continue
        install = next(queued.todo, None)
        if install is None:
            queued.empty = True
            continue
        queued.under_way += 1
        state.queues[client_id] = state.queues.pop(client_id)  # The next app has the next turn.
        return parts.router.begin(install)
    return None


def _aside(state: _State, client_id: str) -> int:
    """How many installs of an app wait for a limit of their own: none of them is the first that the others wait for."""
    waiting = (progress for _, _, progress in state.waiting if progress.refusals >= OWN_LIMIT)
    return sum(progress.install.key.client_id == client_id for progress in waiting)


def _collect(state: _State, parts: Parts, until: float) -> Iterator[FinishedTry]:
    """Whatever has come back; waits for the first, but not past `until`, nor where others have ended."""
    patience = 0.0 if state.ended else min(parts.look_up, max(0.0, until - parts.clock()))
    try:
        back = parts.inbox.get(timeout=patience)
        while True:
            if back is not None:
                yield back
            back = parts.inbox.get_nowait()
    except queue.Empty:
        return


def _take_in(state: _State, back: FinishedTry, parts: Parts) -> BaseException | None:
    """Judge what came back. Returns the bug that its worker met, or the judge: its way ends with it, a new pair as such."""
    bug = back.bug
    if bug is None:
        try:
            _judge(state, back, parts)
        except Exception as error:  # noqa: BLE001 - it is raised when what is in flight is back
            bug = error
    if bug is None:
        return None
    if isinstance(back.tried, Tokens):
        back.progress.tries += 1
        state.end(back.progress, parts.router.recovered(back.progress, back.tried))
    else:
        state.end(back.progress, parts.router.unfinished(back.progress))
    return bug


def _judge(state: _State, back: FinishedTry, parts: Parts) -> None:
    """Take note of what came back, then see where its way goes on."""
    progress, tried, now = back.progress, back.tried, parts.clock()
    state.release(parts.router.heard(progress, back.task, tried), now)
    parts.connectivity.back(progress.last_try, now)
    if isinstance(tried, Tokens | Answer):
        parts.breaker.hear(progress.install.key.client_id, back.task.route, tried, state.tries)
    if isinstance(tried, Tokens | Listing) or (isinstance(tried, Answer) and tried.status):
        state.concurrency.answered()
        _in_contact(state, parts)
    elif isinstance(tried, Answer) and _may_be_the_network(progress, tried, parts):
        was_away = parts.connectivity.away
        if parts.connectivity.unanswered(progress.install.key, progress.last_try, now):
            state.unsettled.append((progress, tried))
            _in_doubt(state, tried, parts, was_away=was_away)
            return
    _go_on(state, progress, tried, parts)


def came_late(back: FinishedTry) -> bool:
    """Whether the try ran into a time-out."""
    return isinstance(back.tried, Answer) and is_late(back.tried)


def _may_be_the_network(progress: InstallProgress, answer: Answer, parts: Parts) -> bool:
    """Whether no answer came, for what may be nobody's fault.

    An exchange has an answer before it. A refresh whose token may be spent is asked for again in time, or never.
    """
    if not is_unreachable(answer) or answer.stage is Stage.EXCHANGE or progress.window.opened is not None:
        return False
    return parts.connectivity.away or not progress.suspect


def _in_contact(state: _State, parts: Parts) -> None:
    """An answer came: who got none until now has met a fault of his own."""
    if parts.connectivity.away:
        parts.say("HighLevel answers again: going on")
    parts.connectivity.answered(state.tries)
    for progress, _ in state.unsettled:
        progress.suspect = True
    _settle_all(state, parts)


def _in_doubt(state: _State, answer: Answer, parts: Parts, *, was_away: bool) -> None:
    """One more got no answer: where nobody does, it is nobody's try, and they wait for the network."""
    if not parts.connectivity.away:
        return
    if parts.connectivity.over(parts.clock()):
        parts.breaker.stop_all(Trip("outage", answer.message))
    if not was_away:
        parts.say(f"HighLevel cannot be reached: {answer.message}; one install asks again, the others wait")
    for progress, _ in state.unsettled:
        state.wait_until(parts.clock(), progress)
    state.unsettled.clear()


def _settle_all(state: _State, parts: Parts) -> None:
    unsettled, state.unsettled = state.unsettled, []
    for progress, answer in unsettled:
        _go_on(state, progress, answer, parts)


def _go_on(state: _State, progress: InstallProgress, tried: Tried, parts: Parts) -> None:
    """Where a way goes on after a try, or how it ends."""
    if tried is None:
        _cut_short(state, progress, parts)
    elif isinstance(tried, Listing):
        state.wait_until(parts.clock(), progress)
    elif isinstance(tried, Tokens):
        progress.tries += 1
        state.end(progress, parts.router.recovered(progress, tried))
    else:
        _failed(state, progress, tried, parts)


def _failed(state: _State, progress: InstallProgress, answer: Answer, parts: Parts) -> None:
    if is_late(answer) and parts.connectivity.reached:
        state.concurrency.late(progress.last_try, state.out + 1, state.tries)
    progress.last = answer
    if is_refused_by_pace(answer):
        wait = parts.router.wait_refused(progress, answer)
        if wait is not None:
            state.wait_until(parts.clock() + wait, progress)
            return
    else:
        progress.refusals = 0
        wait = parts.router.wait_after(progress, answer)
    state.ended += [_Ended(agency.install, back, agency.first_try) for agency, back in parts.router.take_strays()]
    progress.tries += 1
    if wait is None and isinstance(parts.router.step(progress), Exhausted):
        state.end(progress, parts.router.over(progress))
    elif parts.stopping() or parts.breaker.tripped(progress.install.key.client_id):
        state.end(progress, parts.router.unfinished(progress))
    else:
        state.wait_until(parts.clock() + (wait or 0.0), progress)


def _cut_short(state: _State, progress: InstallProgress, parts: Parts) -> None:
    """Where patience with 429 ran out, that is the failure of those which met it; else the install is as it was."""
    if parts.out_of_patience() and is_refused_by_pace(progress.last) and progress.last is not None:
        progress.tries += 1
        progress.met.append(RouteResult(progress.left[0], progress.last))
        state.end(progress, parts.router.over(progress))
    else:
        state.end(progress, parts.router.unfinished(progress))


def _give_up_waiting(state: _State, parts: Parts, *, everybody: bool) -> None:
    """End the waits that make no sense any more: all of them, or those of an app that is stopped."""
    stopped = {client_id for client_id in state.queues if everybody or parts.breaker.tripped(client_id)}
    if stopped:
        for progress in state.take_waiting(lambda progress: progress.install.key.client_id in stopped):
            _cut_short(state, progress, parts)
