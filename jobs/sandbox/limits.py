"""The limit of requests: how much of it is used, and what answers say about it."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

from jobs.sandbox.behaviours import Reply

if TYPE_CHECKING:
    from jobs.sandbox.world import Limit

_DAY_SECONDS = 86_400


@dataclass
class Meter:
    """Counts requests against a limit. Times are monotonic seconds. The caller holds the lock."""

    limit: Limit | None = None

    recent: deque[float] = field(default_factory=deque)
    today: int = 0
    began: float | None = None
    others_came: int = 0

    def take(self, now: float) -> Reply | None:
        """A 429 if the limit is used up, otherwise None. Counts the request."""
        limit = self.limit
        if limit is None:
            return None
        self._pass(limit, now)
        if limit.a_day is not None and self.today >= limit.a_day:
            return _too_many(limit, _DAY_SECONDS)
        if len(self.recent) >= limit.requests:
            return _too_many(limit, self._begins(limit, self.recent[0]) + limit.seconds - now)
        self.recent.append(now)
        self.today += 1
        return None

    def _pass(self, limit: Limit, now: float) -> None:
        """Let time pass until now: count the requests of others, and forget those of earlier windows."""
        self.began = now if self.began is None else self.began
        due = int((now - self.began - limit.others_after) * limit.others)
        for _ in range(max(0, due - self.others_came)):
            self.recent.append(now)
            self.others_came += 1
        while self.recent and self._begins(limit, self.recent[0]) <= now - limit.seconds:
            self.recent.popleft()

    def _begins(self, limit: Limit, at: float) -> float:
        """When the window of a request at that time began."""
        if not limit.fixed or self.began is None:
            return at
        return self.began + (at - self.began) // limit.seconds * limit.seconds

    def shown(self, now: float) -> tuple[tuple[str, str], ...]:
        """The headers that say how much of the limit is left."""
        limit = self.limit
        if limit is None or not limit.shown:
            return ()
        self._pass(limit, now)
        shown = {
            "X-RateLimit-Max": limit.requests,
            "X-RateLimit-Remaining": max(0, limit.requests - len(self.recent)),
            "X-RateLimit-Interval-Milliseconds": int(limit.seconds * 1000),
        }
        if limit.a_day is not None:
            shown |= {
                "X-RateLimit-Limit-Daily": limit.a_day,
                "X-RateLimit-Daily-Remaining": max(0, limit.a_day - self.today),
                "X-RateLimit-Daily-Reset": _DAY_SECONDS // 2,
            }
        return tuple((name, str(value)) for name, value in shown.items())


def _too_many(limit: Limit, wait: float) -> Reply:
    headers = {
        "": (),
        "seconds": (("Retry-After", str(int(wait) + 1)),),
        "date": (("Retry-After", format_datetime(datetime.now(UTC) + timedelta(seconds=wait + 1), usegmt=True)),),
    }[limit.retry_after]
    return Reply(429, json.dumps({"statusCode": 429, "message": "Too many requests"}).encode(), headers=headers)
