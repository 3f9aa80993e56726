"""A server and a backlog of requests without a clock: the controller's hours in milliseconds."""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from jobs.pace.controller import Controller

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass
class Server:
    """Takes `most` requests in `seconds`, in windows that slide or restart; refuses a share by chance."""

    most: int = 1_000_000
    seconds: float = 10.0
    fixed: bool = False
    retry_after: str = "whole"  # "whole" seconds, "one" second always, or "" for none
    shows: bool = False
    chance: float = 0.0
    others: float = 0.0  # Requests a second of others, from `others_from` on.
    others_from: float = 0.0
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    taken: deque[float] = field(default_factory=deque)
    others_due: float = 0.0

    def _forget(self, at):
        begins = at // self.seconds * self.seconds if self.fixed else at - self.seconds
        while self.taken and (self.taken[0] < begins if self.fixed else self.taken[0] <= begins):
            self.taken.popleft()

    def answer(self, at):
        """(status, Retry-After, headers) of a request that arrives at `at`."""
        self.others_due = max(self.others_due, self.others_from)
        while self.others and self.others_due <= at:
            self._forget(self.others_due)
            if len(self.taken) < self.most:
                self.taken.append(self.others_due)
            self.others_due += 1 / self.others
        self._forget(at)
        if self.chance and self.rng.random() < self.chance:
            return 429, 1.0, {}
        ok = len(self.taken) < self.most
        wait = 0.0
        if ok:
            self.taken.append(at)
        else:
            wait = (at // self.seconds + 1) * self.seconds - at if self.fixed else self.taken[0] + self.seconds - at
        headers = {
            "x-ratelimit-max": str(self.most),
            "x-ratelimit-remaining": str(self.most - len(self.taken)),
            "x-ratelimit-interval-milliseconds": str(int(self.seconds * 1000)),
        }
        after = {"whole": float(int(wait) + 1), "one": 1.0, "": None}[self.retry_after]
        return (200 if ok else 429), (None if ok else after), headers if self.shows else {}


@dataclass
class Heard:
    left: float
    arrived: float
    status: int
    hold_until: float


@dataclass
class Hours:
    """What happened: every request, in the order in which they left."""

    heard: list[Heard]

    @property
    def refused(self):
        return sum(each.status == 429 for each in self.heard) / len(self.heard)

    def accepted_a_second(self):
        done = [each.arrived for each in self.heard if each.status == 200]
        return len(done) / (done[-1] - done[0])

    def most_within(self, seconds, of=None):
        arrived = sorted(each.arrived for each in self.heard)
        most, first = 0, 0
        for last, at in enumerate(arrived):
            while arrived[first] <= at - seconds:
                first += 1
            most = max(most, last - first + 1)
        return most


def run(
    server, *, rate=10.0, requests=600, latency=0.1, jitter=0.0, late=0.0, seed=1, idle=None, patience=600.0,
    control=None, begins=0.0,
):  # fmt: skip
    """`requests` requests against `server`. `jitter` and `late`: seconds that a way and a wake-up take more, at most."""
    rng = random.Random(seed)
    control = control or Controller(rate, patience, lambda n: rng.uniform(1, min(60, 2**n)))
    now, under_way, heard = begins, [], []
    while len(heard) < requests or under_way:
        due = control.due(now) if len(heard) < requests else float("inf")
        if len(heard) == 1 and under_way:
            due = float("inf")  # The first goes alone.
        if idle and len(heard) < requests:
            due = max(due, idle(len(heard), now))
        if under_way and under_way[0][0] <= due:
            now, number, status, after, headers = heapq.heappop(under_way)
            control.answered(number, now, status, after, headers, NOON + timedelta(seconds=now))
            continue
        if due > now:
            now = due + rng.uniform(0, late)
            continue  # What is due is asked again after a wait.
        hold = control.held.until
        number = control.leave(now)
        there = now + latency / 2 + rng.uniform(0, jitter / 2)
        status, after, headers = server.answer(there)
        heard.append(Heard(now, there, status, hold))
        back = there + latency / 2 + rng.uniform(0, jitter / 2)
        heapq.heappush(under_way, (back, number, status, after, headers))
    return Hours(heard)
