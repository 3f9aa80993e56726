"""Events in words for a person."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from jobs.core.causes import ADVICE
from jobs.core.clock import A_YEAR
from jobs.core.errors import EXIT_WORDS, Exit
from jobs.core.model import Level

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs.core.model import Failed, Install
    from jobs.pace.gate import Held, Lowered


# Why the pace is below the set one: in full, and for the live line.
LOWERED: Mapping[str, tuple[str, str]] = {
    "too_many_requests": ("HighLevel answers 429 (too many requests)", "429s"),
    "told_limit": ("HighLevel announces a lower limit (X-RateLimit)", "limit"),
}


def failure(install: Install, outcome: Failed) -> str:
    """The line for the first failure with a cause. Later ones are only counted."""
    kind = "agency" if install.key.level is Level.AGENCY else "sub-account"
    answered = f"HTTP {outcome.http_status}" if outcome.http_status else "no answer"
    trace = f", trace {outcome.trace_id}" if outcome.trace_id else ""
    where = f"{outcome.stage.value}, {answered}, attempt {outcome.attempts}{trace}"
    owner = ADVICE[outcome.cause].owner.value
    said = f'"{outcome.message}" ' if outcome.message else ""
    return (
        f"{outcome.cause.value}: {kind} {install.key.account_id}: {said}({where}); next: {owner}. "
        "Later failures with this cause are only counted."
    )


OPEN_WORDS: Mapping[Exit, str] = {
    **EXIT_WORDS,
    Exit.SOME_FAILED: "finished; some pairs could not be opened",
    Exit.CANNOT_START: "the pairs could not be opened",
    Exit.SIGHUP: "stopped by SIGHUP",
    Exit.SIGINT: "stopped by SIGINT (Ctrl-C)",
    Exit.SIGTERM: "stopped by SIGTERM",
}
"""The exit codes of `recover open`, in words."""
SEAL_WORDS: Mapping[Exit, str] = {**OPEN_WORDS, Exit.CANNOT_START: "not all pairs are sealed"}
"""The exit codes of `recover seal`, in words."""

NOT_ASKED_FOR = ": the run before was cut off, and what it sent last counts too"
"""Why requests are held back without HighLevel. The live line has no room for it."""


def end_of(held: Held, now: float) -> datetime:
    """When a hold ends, in local time. `now` are the seconds that it is measured in."""
    left = timedelta(seconds=min(max(0.0, held.until - now), A_YEAR))
    return datetime.now().astimezone() + left


def hold(until: datetime, status: int) -> str:
    """Until when all requests are held back. HighLevel asked for that with this status (0: it did not)."""
    when = f"{until:%H:%M:%S %Z}".strip()
    return f"held back by HighLevel until {when} ({status})" if status else f"no request until {when}"


def pace(lowered: Lowered | None, limit: float) -> str:
    """How fast the run may go, and why it is slower than was set."""
    if lowered is None:
        return f"the pace is {limit:g} requests/s again"
    return f"the pace is lowered from {limit:g} to {lowered.rate:.3g} requests/s: {LOWERED[lowered.why][0]}"
