"""What a run says before its first request: four lines, one more if the ledger is in a database, one if pairs are sealed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from jobs.core.causes import ADVICE
from jobs.core.clock import duration
from jobs.core.model import Cause
from jobs.core.plurals import counted
from jobs.terminal.shell import shown

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.start import Plan

_REQUESTS_AN_INSTALL = 2
_FEW = 5


@dataclass(frozen=True, slots=True)
class Opening:
    """What is known when a run begins. `to_try` counts installs. `ages` are the oldest and newest recovery that is
    left alone (UTC, ISO 8601). `causes` narrow the run. A recovery before the moment `before` does not count.
    """

    input: Path
    folder: Path
    plan: Plan
    apps: int
    to_try: int
    ages: tuple[str, str]
    requests_per_second: float
    causes: tuple[Cause, ...] = ()
    before: str = ""

    @property
    def seconds(self) -> int:
        """How many seconds it takes at the set pace, if nothing fails."""
        return round(_REQUESTS_AN_INSTALL * self.to_try / self.requests_per_second)


def header(opening: Opening, now: datetime) -> list[str]:
    """What there is to do, what is left alone, how long it takes, where the ledger is, and where the files go."""
    return [
        _to_do(opening),
        _left_alone(opening, now),
        _pace(opening),
        *opening.plan.where_pairs_go,
        f"files go to {shown(opening.folder)}; Ctrl-C stops gracefully",
    ]


def _to_do(opening: Opening) -> str:
    plan = opening.plan
    installs, apps = counted(plan.installs, "install", "installs"), counted(opening.apps, "app", "apps")
    words = f"{opening.to_try:,} of {installs} to try, of {apps}"
    if plan.agencies_to_do:
        words += f", {counted(plan.agencies_to_do, 'agency', 'agencies')} first"
    more = [f"{plan.recovered_again:,} recovered before {opening.before}"] if plan.recovered_again else []
    more += [f"{count:,} failed before as {cause}" for cause, count in sorted(plan.failed_before.items())]
    if plan.unknown_app:
        belong = counted(plan.unknown_app, "belongs", "belong")
        more.append(f"{belong} to an app without a secret (next: {ADVICE[Cause.UNKNOWN_APP].owner})")
    if plan.broken_lines:
        more.append(f"{counted(plan.broken_lines, 'line', 'lines')} cannot be used")
    if plan.duplicates:
        lines = ", ".join(map(str, plan.duplicate_lines[:_FEW]))
        lines += ", ..." if plan.duplicates > _FEW else ""
        more.append(f"{plan.duplicates:,} repeated ({'line' if plan.duplicates == 1 else 'lines'} {lines})")
    else:
        more.append("no duplicates")
    return "; ".join([words, *more])


def _left_alone(opening: Opening, now: datetime) -> str:
    count = opening.plan.recovered
    if not count:
        return "every install is tried" if opening.before else "no install is recovered yet"
    what = counted(count, "recovered install is", "recovered installs are")
    return f"{what} left alone (recovered {_ages(opening, now)} ago)"


def nothing_to_do(opening: Opening, now: datetime) -> str:
    """Why a run has nothing to do, and how old its recoveries are. Empty if it has something to do."""
    if opening.to_try:
        return ""
    if not opening.plan.installs:
        return "nothing to do: INPUT lists no installs"
    if opening.causes:
        return f"nothing to do: no install in INPUT failed with {' or '.join(opening.causes)}"
    if not opening.plan.recovered:
        return "nothing to do: no install in INPUT can be tried"
    when = f"recovered {_ages(opening, now)} ago"
    return f"nothing to do: every install that can be tried was {when}; a second incident needs --recovered-before TIME"


def _ages(opening: Opening, now: datetime) -> str:
    oldest, newest = (age(moment, now) for moment in opening.ages)
    return oldest if oldest == newest else f"{newest} to {oldest}"


def _pace(opening: Opening) -> str:
    requests = _REQUESTS_AN_INSTALL * opening.to_try
    rate = f"{opening.requests_per_second:g} a second"
    return f"{requests:,} requests at {rate} at most: about {duration(opening.seconds)}, if nothing fails"


def age(moment: str, now: datetime) -> str:
    """How long ago a moment (UTC, ISO 8601) was: `3 days`, or `2h 5m`."""
    try:
        seconds = round((now - datetime.fromisoformat(moment)).total_seconds())
    except ValueError:
        return "an unknown time"
    days = seconds // 86_400
    return f"{days:,} days" if days > 1 else duration(seconds)
