"""Questions that spend nothing, several at once: each is asked again while that may help.

A question that waits for its next try needs no worker. A 429 holds everybody back and uses up no try. While nobody gets
an answer, one question asks again and the others wait. They go one by one until HighLevel has shown that it works.
"""

from __future__ import annotations

import heapq
import itertools
import math
import queue
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from jobs.core.causes import ADVICE, Shows, diagnose
from jobs.core.errors import Exit
from jobs.highlevel.api import CallFailed, LocalFailure
from jobs.highlevel.network_errors import is_late, is_unreachable
from jobs.pace.gate import Stopped
from jobs.recovery.attempt import is_refused_by_pace
from jobs.recovery.breaker import SAME_IN_A_ROW, form
from jobs.recovery.concurrency import Concurrency
from jobs.recovery.connectivity import Connectivity
from jobs.recovery.runner import in_the_air, make_api, make_gate, retry_policy_of, sizes_of
from jobs.recovery.threads import WorkerThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from jobs.config.settings import Settings
    from jobs.core.model import Answer, InstallKey
    from jobs.highlevel.api import HighLevel
    from jobs.pace.gate import Gate, Held
    from jobs.recovery.breaker import Form
    from jobs.recovery.stop import Stop

_MOST_WAITING = 10_000
_LOOK_UP_SECONDS = 1.0


class Subject(Protocol):
    """What a question is about."""

    @property
    def key(self) -> InstallKey:
        """The install."""


Asked = TypeVar("Asked", bound=Subject)


class Reply(NamedTuple, Generic[Asked]):
    """How a question ended. `answer` is None if it got what it asked for."""

    asked: Asked
    answer: Answer | None


class Round(NamedTuple, Generic[Asked]):
    """The replies since the last round (often none), and how far the inquiry is. `notes` are for a person."""

    replies: list[Reply[Asked]]
    in_flight: int
    requests: int
    held: Held | None
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Question(Generic[Asked]):
    """A question on its way, and its last answer. `first_try` and `last_try` count among the tries of all questions.

    `refusals` are 429s in a row. A `suspect` got no answer while others did.
    """

    asked: Asked
    tries: int = 0
    first_try: int = 0
    last_try: int = 0
    last: Answer | None = None
    refusals: int = 0
    refused_since: float = 0.0
    suspect: bool = False


class _FinishedTry(NamedTuple, Generic[Asked]):
    """A try that a worker has finished: its answer, whether it was sent at all, or the bug that ended it."""

    question: _Question[Asked]
    answer: Answer | None
    is_sent: bool = True
    bug: BaseException | None = None


def inquire(
    settings: Settings,
    base_url: str,
    environment: Mapping[str, str],
    stop: Stop,
    ask: Callable[[HighLevel, Asked], None],
    tells: Callable[[Answer], bool],
    questions: Callable[[HighLevel], Iterator[Asked | None]],
) -> Generator[Round[Asked]]:
    """The replies as they come, in rounds, of which there is at least one a second.

    A question that is None lets the caller have its turn. `ask` raises CallFailed if it did not get what it asked for, and
    `tells` says whether such an answer decides the question. The rest is not asked once `stop` says so. The inquiry itself
    asks `stop` to, if going on makes no sense.
    """
    inbox: SimpleQueue[_FinishedTry[Asked] | None] = SimpleQueue()
    look_again = partial(inbox.put, None)
    stop.asked_to = look_again
    gate = make_gate(settings.pace, retry_policy_of(settings), look_again)
    sizes = sizes_of(settings.pace)
    with (
        closing(make_api(settings, base_url, environment, gate, look_again)) as api,
        closing(_threads(sizes.slots, inbox)) as threads,
    ):
        inquiry = _Inquiry(settings, gate, stop, threads, inbox, partial(_try, partial(ask, api), stop), tells)
        inquiry.under_way = partial(in_the_air, gate, api)
        try:
            yield from inquiry.rounds(questions(api))
        finally:
            gate.stop()  # If this ends early, nobody may be left waiting there.


def _threads(most: int, inbox: SimpleQueue[_FinishedTry[Asked] | None]) -> WorkerThreads[_FinishedTry[Asked]]:
    return WorkerThreads(most, time.monotonic, inbox.put, _came_late)


def _came_late(finished: _FinishedTry[Asked]) -> bool:
    return finished.answer is not None and is_late(finished.answer)


def _try(ask: Callable[[Asked], None], stop: Stop, question: _Question[Asked]) -> _FinishedTry[Asked]:
    try:
        ask(question.asked)
    except LocalFailure as reached_limit:
        stop.ask("outage", Exit.STOPPED_EARLY, str(reached_limit))
        return _FinishedTry(question, None, is_sent=False)
    except CallFailed as failed:
        return _FinishedTry(question, failed.answer)
    except Stopped:
        return _FinishedTry(question, None, is_sent=False)
    except BaseException as bug:  # noqa: BLE001 - it is raised in the thread that decides
        return _FinishedTry(question, None, is_sent=False, bug=bug)
    return _FinishedTry(question, None)


class _Inquiry(Generic[Asked]):
    """Decides, in one thread, which question goes next, and what happens to it when its try is back."""

    def __init__(
        self,
        settings: Settings,
        gate: Gate,
        stop: Stop,
        threads: WorkerThreads[_FinishedTry[Asked]],
        inbox: SimpleQueue[_FinishedTry[Asked] | None],
        try_once: Callable[[_Question[Asked]], _FinishedTry[Asked]],
        tells: Callable[[Answer], bool],
    ) -> None:
        self._policy = retry_policy_of(settings)
        self._gate = gate
        self._stop = stop
        self._threads = threads
        self._inbox = inbox
        self._try_once = try_once
        self._sizes = sizes_of(settings.pace)
        self._concurrency = Concurrency(self._sizes.slots)
        self._connectivity = Connectivity(settings.stop.network_patience_seconds, self._policy.backoff)
        self._breaker = _Breaker(settings.stop.transient_installs, stop, tells)
        self._waiting: list[tuple[float, int, _Question[Asked]]] = []
        self._unsettled: list[tuple[_Question[Asked], Answer]] = []
        self._ended: list[Reply[Asked]] = []
        self._notes: list[str] = []
        self._order = itertools.count()
        self._out = self._tries = 0
        self._all_asked = False
        self.under_way: Callable[[], int] = lambda: 0

    def rounds(self, questions: Iterator[Asked | None]) -> Iterator[Round[Asked]]:
        """The rounds, until every question is settled or the inquiry stops."""
        until = math.inf
        while True:
            if self._stops():
                self._gate.stop()
                self._give_up_waiting()
            else:
                until = self._hand_out(questions)
            if not self._out:
                self._settle_last()
            over = self._all_asked or self._stops()
            if over and not (self._out or self._waiting or self._ended):
                break
            for finished in self._take(until):
                self._judge(finished)
            ended, self._ended = self._ended, []
            notes, self._notes = tuple(self._notes), []
            yield Round(ended, self._out, self._gate.requests, self._gate.held, notes)
        if self._gate.enough:
            self._stop.ask("outage", Exit.STOPPED_EARLY, self._gate.enough)

    def _stops(self) -> bool:
        return self._stop.asked() or bool(self._gate.enough)

    # -- out to the threads ---------------------------------------------------------------------------------------

    def _hand_out(self, questions: Iterator[Asked | None]) -> float:
        """Hand out the questions that may go. Returns when to look again, if nothing comes in until then."""
        while len(self._ended) < self._sizes.slots and not self._stops():
            if self._is_full():
                return math.inf
            if (not_before := self._connectivity.not_before()) > time.monotonic():
                return not_before
            if not self._has_thread():
                return math.inf
            question = self._next(questions)
            if question is None:
                return self._next_due
            self._tries += 1
            self._out += 1
            question.first_try, question.last_try = question.first_try or self._tries, self._tries
            self._threads.do(partial(self._try_once, question))
            self._connectivity.goes(question.last_try)
        return math.inf

    @property
    def _next_due(self) -> float:
        """When the next question that waits is due."""
        return self._waiting[0][0] if self._waiting else math.inf

    def _is_full(self) -> bool:
        if self._out >= (self._concurrency.most if self._breaker.seen_at_work else 1):
            return True
        return not self._sizes.fixed and self._threads.busy - self.under_way() >= self._sizes.at_gate

    def _has_thread(self) -> bool:
        if self._threads.ready():
            return True
        if not len(self._threads):
            why = f"this machine does not start a single thread ({self._threads.why_fewer}): free memory, or raise its limits"
            self._stop.ask("outage", Exit.STOPPED_EARLY, why)
        return False

    def _next(self, questions: Iterator[Asked | None]) -> _Question[Asked] | None:
        if self._next_due <= time.monotonic():
            return heapq.heappop(self._waiting)[2]
        waits = len(self._waiting) + len(self._unsettled)
        if self._all_asked or waits >= _MOST_WAITING or (waits and not self._connectivity.reached):
            return None
        try:
            asked = next(questions)
        except StopIteration:
            self._all_asked = True
            return None
        if asked is None:
            self._inbox.put(None)  # The caller has its turn, and nothing else would end the wait.
            return None
        return _Question(asked)

    # -- back from the threads ------------------------------------------------------------------------------------

    def _take(self, until: float) -> Iterator[_FinishedTry[Asked]]:
        """The tries that have come back. Unless a question has ended, it waits for the first one, at most until `until`."""
        patience = 0.0 if self._ended else min(_LOOK_UP_SECONDS, max(0.0, until - time.monotonic()))
        try:
            finished = self._inbox.get(timeout=patience)
            while True:
                if finished is not None:
                    self._out -= 1
                    yield finished
                finished = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _judge(self, finished: _FinishedTry[Asked]) -> None:
        question, answer, now = finished.question, finished.answer, time.monotonic()
        if finished.bug is not None:
            raise finished.bug
        self._connectivity.back(question.last_try, now)
        if not finished.is_sent:
            self._cut_short(question)
            return
        if answer is None or answer.status:
            self._concurrency.answered()
            self._breaker.hear(answer, self._tries)
            self._in_contact()
        elif is_unreachable(answer) and (self._connectivity.away or not question.suspect):
            was_away = self._connectivity.away
            if self._connectivity.unanswered(question.asked.key, question.last_try, now):
                self._unsettled.append((question, answer))
                self._in_doubt(answer, was_away=was_away)
                return
        self._go_on(question, answer)

    def _in_contact(self) -> None:
        """Take note of an answer: a question that got none until now was itself at fault."""
        if self._connectivity.away:
            self._notes.append("HighLevel answers again: going on")
        self._connectivity.answered(self._tries)
        for question, _ in self._unsettled:
            question.suspect = True
        self._settle_all()

    def _settle_all(self) -> None:
        unsettled, self._unsettled = self._unsettled, []
        for question, answer in unsettled:
            self._go_on(question, answer)

    def _settle_last(self) -> None:
        """Settle those that got no answer, when nothing is asked that could show more."""
        if self._unsettled and all(answer.never_left for _, answer in self._unsettled):
            was_away = self._connectivity.away
            self._connectivity.no_connection(time.monotonic())
            self._in_doubt(self._unsettled[-1][1], was_away=was_away)
        else:
            self._settle_all()

    def _in_doubt(self, answer: Answer, *, was_away: bool) -> None:
        """One more question got no answer. If nobody gets one, no try is used up, and all wait for the network."""
        now = time.monotonic()
        if not self._connectivity.away:
            return
        if self._connectivity.over(now):
            self._stop.ask("outage", Exit.STOPPED_EARLY, answer.message)
        if not was_away:
            self._notes.append(
                f"HighLevel cannot be reached: {answer.message}; one install asks again, the others wait"
            )
        for question, _ in self._unsettled:
            self._wait(question, now)
        self._unsettled.clear()

    def _go_on(self, question: _Question[Asked], answer: Answer | None) -> None:
        """Let a question go on after a try, or end."""
        if answer is not None and is_late(answer) and self._connectivity.reached:
            self._concurrency.late(question.last_try, self._out + 1, self._tries)
        question.last = answer
        wait = None if answer is None else self._wait_after(question, answer)
        if wait is None:
            self._end(question, answer)
        elif self._stops():
            self._cut_short(question)
        else:
            self._wait(question, time.monotonic() + wait)

    def _wait_after(self, question: _Question[Asked], answer: Answer) -> float | None:
        """Seconds until the next try, or None if this was the last one. A 429 uses up no try, only patience."""
        if not is_refused_by_pace(answer):
            question.refusals = 0
            question.tries += 1
            return self._policy.wait_after(question.tries, answer)
        now = time.monotonic()
        question.refused_since = question.refused_since if question.refusals else now
        question.refusals += 1
        left = question.refused_since + self._policy.patience - now
        asked_for = answer.retry_after or 0.0
        if left <= 0 or asked_for > left:
            return None
        return min(asked_for or self._policy.backoff(question.refusals), left)

    def _wait(self, question: _Question[Asked], until: float) -> None:
        heapq.heappush(self._waiting, (until, next(self._order), question))

    def _end(self, question: _Question[Asked], answer: Answer | None) -> None:
        self._ended.append(Reply(question.asked, answer))
        self._breaker.ended(answer, question.first_try, reached=self._connectivity.reached)

    def _cut_short(self, question: _Question[Asked]) -> None:
        """Cut a question short: it ends with 429 if it met that until patience ran out, otherwise it gets no reply."""
        if self._gate.out_of_patience and is_refused_by_pace(question.last):
            self._ended.append(Reply(question.asked, question.last))

    def _give_up_waiting(self) -> None:
        waiting = [question for _, _, question in sorted(self._waiting)] + [question for question, _ in self._unsettled]
        self._waiting, self._unsettled = [], []
        for question in waiting:
            self._cut_short(question)


class _Breaker:
    """Stops the inquiry if going on makes no sense: in an outage, or when the same refusal comes five times in a row.

    An outage is `most` questions in a row that end without an answer that `tells`. Each was first asked after the last
    answer that showed HighLevel at work. Such an answer also breaks a row of refusals.
    """

    def __init__(self, most: int, stop: Stop, tells: Callable[[Answer], bool]) -> None:
        self._most = most
        self._stop = stop
        self._tells = tells
        self._worked_at = self._in_a_row = self._same = 0
        self._form: Form | None = None

    @property
    def seen_at_work(self) -> bool:
        """Whether any answer has shown HighLevel at work."""
        return self._worked_at > 0

    def hear(self, answer: Answer | None, tries: int) -> None:
        """Take note of an answer. `tries` is how many were begun by now."""
        if answer is None or self._shows_work(answer):
            self._worked_at, self._in_a_row, self._same = tries, 0, 0
        elif not ADVICE[diagnose(answer)].again:
            found = form(answer)
            self._same, self._form = (self._same + 1 if found == self._form else 1), found
            if self._same >= SAME_IN_A_ROW:
                self._stop.ask("refused", Exit.STOPPED_EARLY, answer.message)

    def _shows_work(self, answer: Answer) -> bool:
        return self._tells(answer) or ADVICE[diagnose(answer)].shows is Shows.AT_WORK

    def ended(self, answer: Answer | None, first_try: int, *, reached: bool) -> None:
        """Take note of how a question ended. `reached` says whether HighLevel has ever answered."""
        if answer is None or self._shows_work(answer) or first_try <= self._worked_at:
            return
        self._in_a_row += 1
        if self._in_a_row >= self._most or not reached:
            self._stop.ask("outage", Exit.STOPPED_EARLY, answer.message)
