"""The scheduler without threads, network or clock: whole nights in milliseconds, and every turn of it counted."""

from __future__ import annotations

import heapq
import itertools
import queue

from jobs.core.clock import Clocks
from jobs.core.model import Answer, Cause, Install, InstallKey, Level, Route, Stage, Tokens
from jobs.core.secret import Secret
from jobs.recovery.agency_answers import AgencyAnswers
from jobs.recovery.agency_route import AgencyRoute
from jobs.recovery.agency_tokens import AgencyTokens
from jobs.recovery.attempt import RetryPolicy
from jobs.recovery.breaker import Breaker
from jobs.recovery.closed_routes import ClosedRoutes
from jobs.recovery.connectivity import Connectivity
from jobs.recovery.dispatcher import Dispatcher, Sizes
from jobs.recovery.notes import Notes
from jobs.recovery.routing import Router
from jobs.recovery.scheduler import outcomes
from jobs.recovery.state import Parts

APP = "app-1"
PAIR = Tokens(Secret("a"), Secret("r"), "Bearer", "", "", "Location", "", "", "Loc", "")
REFUSED_CONNECTION = Answer(
    Stage.RECONNECT, message="hl.test refused the connection", exception=ConnectionRefusedError,
    cause=Cause.NETWORK_ERROR, never_left=True,
)  # fmt: skip
LATE = Answer(Stage.RECONNECT, message="hl.test is late", exception=TimeoutError, cause=Cause.NETWORK_ERROR)
ERROR = Answer(Stage.RECONNECT, 500, "Internal server error", "Internal server error")
GONE = Answer(Stage.RECONNECT, 400, "API endpoint has been removed", "API endpoint has been removed")


def reconnecting(ledger, breaker, retry_policy, clock, notes):
    """A router that knows Reconnect alone."""
    closed, bearers = ClosedRoutes({}, breaker, notes), AgencyTokens(ledger.scratch)
    return Router(
        [Route.RECONNECT],
        retry_policy,
        closed,
        AgencyRoute(bearers, closed, retry_policy, clock, notes),
        AgencyAnswers(lambda agency: None, lambda: "", notes.add),
        Clocks(clock, lambda: "2026-11-24T10:00:00.000Z", lambda: 0.0),
        notes,
    )


class Night:
    """A run of the scheduler. `answer(account, now, out)` gives what a try brings back, and after how many seconds.

    `threads` is how many the machine starts. `turns` are those of the scheduler's loop, `most_out` is how many tries were
    out at once.
    """

    def __init__(
        self, ledger, answer, *, threads=256, at_gate=256, patience=600.0, transient_installs=10, attempts=5, wait=1.0
    ):
        self.answer = answer
        self.now = 0.0
        self.turns = self.most_out = self.out = 0
        self.asked = []
        self.said = []
        self.stopped = []
        self.why_fewer = ""
        self._threads, self._started = threads, 0
        self._coming = []
        self._order = itertools.count()
        self._under_way = 0
        retry_policy = RetryPolicy(attempts, wait, 8 * wait)
        self.breaker = Breaker(transient_installs, lambda app: False)
        self.notes = Notes()
        dispatcher = Dispatcher(
            self,
            self,
            lambda task: self.answer(task.install.key.account_id, self.now, self.out),
            lambda: self._under_way,
            Sizes(256, at_gate=at_gate),
        )
        self.parts = Parts(
            dispatcher,
            reconnecting(ledger, self.breaker, retry_policy, lambda: self.now, self.notes),
            self.breaker,
            Connectivity(patience, retry_policy.backoff, self.notes),
            self,
            self.notes,
            lambda: self.now,
        )

    # What the scheduler knows as its stop.

    out_of_patience = False

    def met(self):
        return bool(self.stopped)

    def no_more_today(self, client_id):
        return ""

    def no_thread(self, why):
        self.stopped.append(why)

    # As its threads.

    def __len__(self):
        return self._started

    @property
    def busy(self):
        return self.out

    def ready(self):
        if self.out < self._started:
            return True
        if self._started >= self._threads:
            self.why_fewer = "can't start new thread"
            return False
        self._started += 1
        return True

    def do(self, job):
        self.out += 1
        self.most_out = max(self.most_out, self.out)
        back = job()
        self.asked.append((self.now, back.progress.install.key.account_id))
        tried, seconds = back.tried
        heapq.heappush(self._coming, (self.now + seconds, next(self._order), back._replace(tried=tried)))

    # And as its inbox.

    def get(self, *, timeout):
        self.turns += 1
        if self._coming and self._coming[0][0] <= self.now + timeout:
            self.now = max(self.now, self._coming[0][0])
            self.out -= 1
            return heapq.heappop(self._coming)[2]
        self.now += timeout
        raise queue.Empty

    def get_nowait(self):
        if self._coming and self._coming[0][0] <= self.now:
            return self.get(timeout=0)
        raise queue.Empty

    def run(self, installs):
        """How each of so many installs ended."""
        ids = [f"Loc{number:03}" for number in range(installs)]
        todo = iter([Install(InstallKey(APP, Level.SUB_ACCOUNT, one), "") for one in ids])
        ended = {}
        for now in outcomes({APP: todo}, self.parts):
            self.said += self.notes.take()
            ended |= {install.key.account_id: outcome for install, outcome in now.ended}
        self.said += self.notes.take()
        return ended
