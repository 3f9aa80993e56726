"""What is told about a check: each install that is not known to work, how far the check is, and the closing block."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.core.checks import GOOD, MEANS, Check
from jobs.core.clock import Every, duration
from jobs.core.errors import EXIT_WORDS, Exit
from jobs.core.model import Broken, Level
from jobs.terminal.events import Event
from jobs.terminal.shell import run_command, shown
from jobs.terminal.watch import HEARTBEAT_SECONDS, REFRESH_SECONDS
from jobs.terminal.words import end_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from jobs.core.model import Answer, Row
    from jobs.recovery.inquiry import Asked, Round
    from jobs.terminal.voice import Voice

_REST = "; the rest was not asked"

CHECK_WORDS: Mapping[Exit, str] = {
    **EXIT_WORDS,
    Exit.OK: "every access token that INPUT lists works or is alive, or it lists none",
    Exit.SOME_FAILED: "finished; some access tokens are not known to work",
    Exit.STOPPED_EARLY: f"stopped early because going on made no sense{_REST}",
    Exit.HELD: "a run or another check is under way",
    Exit.SIGHUP: f"stopped by SIGHUP{_REST}",
    Exit.SIGINT: f"stopped by SIGINT (Ctrl-C){_REST}",
    Exit.SIGTERM: f"stopped by SIGTERM{_REST}",
}
"""The exit codes of a check, in words."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What is known when a check begins. `broken` are lines that cannot be used."""

    output: Path | None
    installs: int
    duplicates: int
    broken: int
    apps: int
    requests_per_second: float


@dataclass(slots=True)
class Standing:
    """How far a check is: the results of `total` installs and broken lines, counted, and how many requests were made."""

    total: int
    counts: Counter[Check] = field(default_factory=Counter)
    requests: int = 0

    @property
    def left(self) -> int:
        """How many were not looked at."""
        return self.total - self.counts.total()

    @property
    def bad(self) -> int:
        """How many are not known to work."""
        return sum(count for check, count in self.counts.items() if check not in GOOD)


class CheckWatch:
    """Watches one check. `clock` gives the seconds that a hold is measured in."""

    def __init__(self, voice: Voice, clock: Callable[[], float]) -> None:
        self._voice = voice
        self._clock = clock
        self._begun, self._held_until = clock(), float("-inf")
        self._beats, self._draws = Every(HEARTBEAT_SECONDS, clock, self._begun), Every(REFRESH_SECONDS, clock)
        self._seen: set[Check] = set()
        self._acknowledged = False

    def found(self, check: Check, row: Row | Broken, why: str, answer: Answer | None) -> None:
        """Tell the result of an install. A screen shows only the first of each result that needs somebody."""
        fields: dict[str, object]
        if isinstance(row, Broken):  # It may hold anything as an id.
            fields = {"line": row.line, "check": check.value}
        else:
            fields = {
                "client_id": row.client_id,
                "user_type": row.level.value,
                "id": row.account_id,
                "check": check.value,
            }
        if answer is not None:
            fields |= {"http_status": answer.http_status or answer.status, "trace_id": answer.trace_id}
        if check in GOOD:
            if self._voice.screen is None:
                self._voice.tell(Event.CHECKED, fields)
        elif self._voice.screen is None or check not in self._seen:
            self._seen.add(check)
            self._voice.tell(Event.AFFECTED, fields | {"message": why}, _first(check, row, why))

    def see(self, standing: Standing, now: Round[Asked], *, signalled: bool, asked: bool) -> None:
        """Report how far the check is, when that is due or when somebody `asked`."""
        for note in now.notes:
            self._voice.warn(note)
        if signalled and not self._acknowledged:
            self._acknowledged = True
            self._voice.stops(now.in_flight)
        if now.held is not None and now.held.until > self._held_until:
            self._held_until = now.held.until
            self._voice.holds(end_of(now.held, self._clock()), now.held.status)
        self._report(standing, now.in_flight, asked=asked)

    def _report(self, standing: Standing, in_flight: int, *, asked: bool) -> None:
        screen = self._voice.screen
        if screen is not None and self._draws.due():
            screen.draw(self._line(standing))
        if (asked or screen is None) and self._beats.due(asked=asked):
            fields: dict[str, object] = {"done": standing.counts.total(), "total": standing.total}
            fields |= {check.value: standing.counts[check] for check in Check}
            fields |= {"in_flight": in_flight, "requests": standing.requests}
            self._voice.tell(Event.PROGRESS, fields, self._line(standing), asked=asked)

    def _line(self, standing: Standing) -> str:
        done, past = standing.counts.total(), self._clock() - self._begun
        counts = ", ".join(f"{standing.counts[check]:,} {check.value}" for check in Check if standing.counts[check])
        to_go = f", {duration(round(past * standing.left / done))} to go" if done and past > 1 else ""
        return f"{done:,} of {standing.total:,} checked{to_go}" + (f": {counts}" if counts else "")


def _first(check: Check, row: Row | Broken, why: str) -> str:
    if isinstance(row, Broken):
        return f"{check.value}: {why}. The first of its kind; the rest are counted."
    kind = "agency" if row.level is Level.AGENCY else "sub-account"
    return f'{check.value}: {kind} {row.account_id}: "{why}". The first of its kind; the rest are counted.'


def closing_block(standing: Standing, output: Path | None) -> list[str]:
    """The closing block, except for its last line. `output` is the list that was written, if one was."""
    return list(_lines(standing, output))


def _lines(standing: Standing, output: Path | None) -> Iterator[str]:
    counts = standing.counts
    if not standing.total:
        yield "nothing to do: INPUT lists no installs"
    good = counts[Check.WORKS] + counts[Check.ALIVE]
    yield f"HighLevel accepts the access tokens of {good:,} of {standing.total:,} installs ({standing.requests:,} requests)"
    wide, much = max(map(len, Check)), len(f"{standing.total:,}")
    for check in Check:
        yield f"  {check.value:<{wide}}  {counts[check]:>{much},}  {MEANS[check]}"
    if standing.left:
        yield f"{standing.left:,} were not asked"
    yield "this proves only the access token: no refresh token was sent, nothing was spent, and no pair was changed"
    if counts[Check.EXPIRED]:
        yield (
            "an access token lasts a day: one that has expired says nothing about its refresh token, and the app may still "
            "get a new pair with that"
        )
    if output is not None and standing.bad:
        yield f"those that are not known to work are listed in {shown(output)}; recover them with:"
        yield f"  {run_command(output)}"
    elif output is not None:
        yield f"{shown(output)} lists none"
    elif standing.bad:
        yield "to list those that are not known to work, check again with --output affected.csv"
