"""Questions that spend nothing, several at once: each is asked again while that may help.

They are asked as a run tries its installs: a wait holds no worker, a 429 uses up no try, and while nobody gets an answer,
one question asks again. But they go one by one until HighLevel has shown that it works.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from jobs.core.causes import ADVICE, Shows, diagnose
from jobs.core.errors import Exit
from jobs.highlevel.network_errors import is_late, is_unreachable
from jobs.recovery.attempt import attempt, is_refused_by_pace
from jobs.recovery.breaker import SameRefusal
from jobs.recovery.equipment import Equipment
from jobs.recovery.notes import Notes
from jobs.recovery.progress import OnItsWay
from jobs.recovery.scheduler import MOST_WAITING
from jobs.recovery.state import LOOK_UP_SECONDS
from jobs.recovery.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from jobs.core.model import Answer
    from jobs.highlevel.api import HighLevel
    from jobs.ledger.lease import Leases
    from jobs.pace.gate import Held
    from jobs.recovery.connectivity import Connectivity
    from jobs.recovery.dispatcher import Dispatcher, FinishedTry
    from jobs.recovery.stop import Stop
    from jobs.start import Basis

Asked = TypeVar("Asked")


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
class _Question(OnItsWay, Generic[Asked]):
    """A question on its way. `tries` leaves out those that met a 429."""

    asked: Asked
    tries: int = 0


def inquire(
    basis: Basis,
    stop: Stop,
    ask: Callable[[HighLevel, Asked], None],
    tells: Callable[[Answer], bool],
    questions: Callable[[HighLevel], Iterator[Asked | None]],
    leases: Leases | None,
) -> Generator[Round[Asked]]:
    """The replies as they come, in rounds, of which there is at least one a second.

    A question that is None lets the caller have its turn. `ask` raises CallFailed if it did not get what it asked for, and
    `tells` says whether such an answer decides the question. The rest is not asked once `stop` says so. The inquiry itself
    asks `stop` to, if going on makes no sense, or if its `leases` are lost.
    """
    with closing(Equipment(basis, stop, leases)) as equipment:
        api, gate = equipment.api, equipment.gate
        try_once = partial(_try_once, partial(ask, api), stop)
        dispatcher: Dispatcher[_Question[Asked], Asked, Reply[Asked] | Answer] = equipment.dispatcher(try_once)
        breaker = _Breaker(basis.settings.stop.transient_installs, stop, tells)
        inquiry = _Inquiry(equipment, dispatcher, breaker, questions(api))
        try:
            for replies in inquiry.rounds():
                yield Round(replies, dispatcher.out, gate.requests, gate.held, inquiry.notes.take())
        finally:
            gate.stop()  # If this ends early, nobody may be left waiting there.
        if gate.enough:
            stop.ask("outage", Exit.STOPPED_EARLY, gate.enough)


def _try_once(ask: Callable[[Asked], None], stop: Stop, asked: Asked) -> Reply[Asked] | Answer | None:
    def call() -> Reply[Asked]:
        ask(asked)
        return Reply(asked, None)

    return attempt(call, stop)


class _Inquiry(Generic[Asked]):
    """Decides, in one thread, which question goes next, and what happens to it when its try is back."""

    def __init__(
        self,
        equipment: Equipment,
        dispatcher: Dispatcher[_Question[Asked], Asked, Reply[Asked] | Answer],
        breaker: _Breaker,
        questions: Iterator[Asked | None],
    ) -> None:
        self.notes = Notes()
        self._retry_policy = equipment.retry_policy
        self._stop = equipment.stop_conditions
        self._look_again = equipment.look_again
        self._dispatcher = dispatcher
        self._connectivity: Connectivity[_Question[Asked]] = equipment.connectivity(self.notes)
        self._breaker = breaker
        self._questions = questions
        self._all_asked = False
        self._waits: Waits[_Question[Asked]] = Waits()
        self._ended: list[Reply[Asked]] = []

    def rounds(self) -> Iterator[list[Reply[Asked]]]:
        """The replies since the last round, until every question is settled or the inquiry stops."""
        until = math.inf
        while True:
            if self._stop.met():
                self._give_up_waiting()
            else:
                until = self._hand_out()
            if not self._dispatcher.out:
                self._settle_last()
            over = self._all_asked or self._stop.met()
            if over and not (self._dispatcher.out or self._waits or self._ended):
                return
            # Replies are given first.
            patience = 0.0 if self._ended else min(LOOK_UP_SECONDS, max(0.0, until - time.monotonic()))
            for finished in self._dispatcher.take(patience):
                self._judge(finished)
            ended, self._ended = self._ended, []
            yield ended

    # -- out to the threads ---------------------------------------------------------------------------------------

    def _hand_out(self) -> float:
        """Hand out the questions that may go. Returns when to look again, if nothing comes in until then."""
        while len(self._ended) < self._dispatcher.slots and not self._stop.met():
            if self._dispatcher.is_full or (self._dispatcher.out and not self._breaker.seen_at_work):
                return math.inf
            if (not_before := self._connectivity.not_before()) > time.monotonic():
                return not_before
            if not self._dispatcher.has_thread(self._stop.no_thread, self.notes):
                return math.inf
            question = self._next()
            if question is None:
                return self._waits.next_due
            self._dispatcher.send(question, question.asked)
            self._connectivity.goes(question.last_try)
        return math.inf

    def _next(self) -> _Question[Asked] | None:
        if (due := self._waits.take_due(time.monotonic())) is not None:
            return due
        waits = len(self._waits)
        if self._all_asked or waits >= MOST_WAITING or (waits and not self._connectivity.reached):
            return None
        try:
            asked = next(self._questions)
        except StopIteration:
            self._all_asked = True
            return None
        if asked is None:
            self._look_again()  # The caller has its turn, and nothing else would end the wait.
            return None
        return _Question(asked)

    # -- back from the threads ------------------------------------------------------------------------------------

    def _judge(self, finished: FinishedTry[_Question[Asked], Asked, Reply[Asked] | Answer]) -> None:
        question, tried, now = finished.progress, finished.tried, time.monotonic()
        if finished.bug is not None:
            raise finished.bug
        self._connectivity.back(question.last_try, now)
        if tried is None:
            self._cut_short(question)
            return
        answer = None if isinstance(tried, Reply) else tried
        if answer is None or answer.status:
            self._dispatcher.answered()
            self._breaker.hear(answer, self._dispatcher.tries)
            self._settle(self._connectivity.answered(self._dispatcher.tries))
        elif is_unreachable(answer) and self._connectivity.unanswered(question, answer, now):
            self._in_doubt(answer, now)
            return
        self._go_on(question, answer)

    def _settle(self, unsettled: Iterable[tuple[_Question[Asked], Answer]]) -> None:
        for question, answer in unsettled:
            self._go_on(question, answer)

    def _settle_last(self) -> None:
        """Settle those that got no answer, when nothing is asked that could show more."""
        now = time.monotonic()
        if (answer := self._connectivity.no_connection(now)) is not None:
            self._in_doubt(answer, now)
        else:
            self._settle(self._connectivity.settle())

    def _in_doubt(self, answer: Answer, now: float) -> None:
        """One more question got no answer. If nobody gets one, no try is used up, and all wait for the network."""
        if self._connectivity.over(now):
            self._breaker.stop_all(answer)
        if self._connectivity.away:
            for question, _ in self._connectivity.settle():
                self._waits.add(now, question)

    def _go_on(self, question: _Question[Asked], answer: Answer | None) -> None:
        """Let a question go on after a try, or end."""
        if answer is not None and is_late(answer) and self._connectivity.reached:
            self._dispatcher.late(question.last_try)
        question.last = answer
        wait = None if answer is None else self._wait_after(question, answer)
        if wait is None:
            self._ended.append(Reply(question.asked, answer))
            self._breaker.ended(answer, question.first_try, reached=self._connectivity.reached)
        elif self._stop.met():
            self._cut_short(question)
        else:
            self._waits.add(time.monotonic() + wait, question)

    def _wait_after(self, question: _Question[Asked], answer: Answer) -> float | None:
        """Seconds until the next try, or None if this was the last one. A 429 uses up no try, only patience."""
        if is_refused_by_pace(answer):
            return question.wait_refused(answer, time.monotonic(), self._retry_policy)
        question.refusals = 0
        question.tries += 1
        return self._retry_policy.wait_after(question.tries, answer)

    def _cut_short(self, question: _Question[Asked]) -> None:
        """Cut a question short: it ends with 429 if it met that until patience ran out, otherwise it gets no reply."""
        if self._stop.out_of_patience and is_refused_by_pace(question.last):
            self._ended.append(Reply(question.asked, question.last))

    def _give_up_waiting(self) -> None:
        waiting = self._waits.take(lambda _: True)
        for question in [*waiting, *(question for question, _ in self._connectivity.settle())]:
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
        self._worked_at = self._in_a_row = 0
        self._same = SameRefusal()

    @property
    def seen_at_work(self) -> bool:
        """Whether any answer has shown HighLevel at work."""
        return self._worked_at > 0

    def hear(self, answer: Answer | None, tries: int) -> None:
        """Take note of an answer. `tries` is how many were begun by now."""
        if answer is None or self._shows_work(answer):
            self._worked_at, self._in_a_row, self._same.times = tries, 0, 0
        elif not ADVICE[diagnose(answer)].again and self._same.came(answer):
            self._stop.ask("refused", Exit.STOPPED_EARLY, answer.message)

    def _shows_work(self, answer: Answer) -> bool:
        return self._tells(answer) or ADVICE[diagnose(answer)].shows is Shows.AT_WORK

    def ended(self, answer: Answer | None, first_try: int, *, reached: bool) -> None:
        """Take note of how a question ended. `reached` says whether HighLevel has ever answered."""
        if answer is None or self._shows_work(answer) or first_try <= self._worked_at:
            return
        self._in_a_row += 1
        if self._in_a_row >= self._most or not reached:
            self.stop_all(answer)

    def stop_all(self, answer: Answer) -> None:
        """Stop the inquiry: nobody gets an answer that helps."""
        self._stop.ask("outage", Exit.STOPPED_EARLY, answer.message)
