"""What is told while installs are tried: how each one ended, and how far the run is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.core.clock import Every
from jobs.core.model import Failed, Install, Recovered
from jobs.terminal.events import Event
from jobs.terminal.gauge import Gauge, Standing
from jobs.terminal.words import end_of, failure, pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.core.model import Cause, Outcome, ThisRun
    from jobs.pace.gate import Lowered
    from jobs.recovery.runner import Progress
    from jobs.terminal.voice import Voice

HEARTBEAT_SECONDS, REFRESH_SECONDS = 60.0, 0.25
# Holds that follow each other closely are told as one.
_HOLD_SECONDS = 10.0


class Watch:
    """Watches one run. `limit` is in requests a second, and `clock` gives the seconds that holds are measured in."""

    def __init__(self, voice: Voice, limit: float, clock: Callable[[], float]) -> None:
        self._voice = voice
        self._limit = limit
        self._clock = clock
        self._gauge = Gauge(limit, clock)
        self._seen: set[Cause] = set()
        self._acknowledged = self._was_alone = False
        self._beats, self._draws = Every(HEARTBEAT_SECONDS, clock, clock()), Every(REFRESH_SECONDS, clock)
        self._held_at = self._pace_told = float("-inf")
        self._lowered: Lowered | None = None

    def see(
        self, progress: Progress, this_run: ThisRun, *, signalled: bool, asked: bool, delivered: int | None = None
    ) -> None:
        """Report the installs that have ended (often none), and the progress when it is due or when somebody `asked`."""
        for note in progress.notes:
            self._voice.warn(note)
        for install, outcome in progress.ended:
            self._tell(install, outcome)
        self._gauge.note(this_run.requests)
        if signalled and not self._acknowledged:
            self._acknowledged = True
            self._voice.stops(progress.in_flight)
        if progress.alone and not self._was_alone:
            self._voice.tell(Event.TRYING_ONE_FIRST, {})  # The screen shows it in the live line.
        self._was_alone = progress.alone
        self._tell_pace(progress.lowered)
        now, screen = self._clock(), self._voice.screen
        begins = progress.held is not None and now - self._held_at >= _HOLD_SECONDS
        draws = screen is not None and self._draws.due()
        beats = (asked or screen is None) and self._beats.due(asked=asked)
        if progress.held is not None:
            self._held_at = now
        if not (begins or draws or beats):
            return
        standing = self._standing(progress, this_run, stopping=signalled, delivered=delivered)
        if begins and standing.held_until is not None:
            self._voice.holds(standing.held_until, standing.held_status)
        if beats:
            self._report(standing, asked=asked)
        if draws and screen is not None:
            screen.show(standing)

    def _tell_pace(self, lowered: Lowered | None) -> None:
        """Report that the pace falls below the one that was set, and that it is back, but not every small step."""
        before, now = self._lowered, self._clock()
        same = before is lowered or (before and lowered and before.why == lowered.why and _near(before, lowered))
        if same or now - self._pace_told < HEARTBEAT_SECONDS:
            return
        self._lowered, self._pace_told = lowered, now
        rate = lowered.rate if lowered else self._limit
        fields = {"requests_per_second": round(rate, 2), "set": self._limit, "reason": lowered.why if lowered else None}
        self._voice.tell(Event.PACE_CHANGED, fields, pace(lowered, self._limit))

    def _tell(self, install: Install, outcome: Outcome) -> None:
        key, screen = install.key, self._voice.screen
        ids: dict[str, object] = {"client_id": key.client_id, "user_type": key.level.value, "id": key.account_id}
        if isinstance(outcome, Recovered) and screen is None:
            told: dict[str, object] = {
                "route": outcome.route.value,
                "attempt": outcome.attempts,
                "trace_id": outcome.tokens.trace_id,
            }
            told |= {"message": outcome.message} if outcome.message else {}
            self._voice.tell(Event.RECOVERED, ids | told)
        elif isinstance(outcome, Failed) and not (screen is not None and outcome.cause in self._seen):
            self._seen.add(outcome.cause)
            more = {
                "cause": outcome.cause.value,
                "stage": outcome.stage.value,
                "http_status": outcome.http_status,
                "message": outcome.message,
                "attempt": outcome.attempts,
                "trace_id": outcome.trace_id,
            }
            self._voice.tell(Event.FAILED, ids | more, failure(install, outcome))

    def _report(self, standing: Standing, *, asked: bool) -> None:
        fields: dict[str, object] = {
            "done": standing.done,
            "total": standing.total,
            "recovered": standing.recovered,
            "failed": standing.failed,
            "waiting": standing.waiting,
            "in_flight": standing.in_flight,
            "requests": standing.requests,
            "requests_per_second": round(standing.rate, 1),
            "seconds_to_go": None if standing.to_go is None else round(standing.to_go),
            "held_until": standing.held_until.isoformat(timespec="seconds") if standing.held_until else None,
        }
        fields |= {} if standing.delivered is None else {"delivered": standing.delivered}
        words = ", ".join(f"{name} {value}" for name, value in fields.items() if value is not None)
        self._voice.tell(Event.PROGRESS, fields, words, asked=asked)

    def _standing(self, progress: Progress, this_run: ThisRun, *, stopping: bool, delivered: int | None) -> Standing:
        held = progress.held
        return Standing(
            done=this_run.attempted,
            total=progress.total,
            recovered=this_run.recovered,
            failed=this_run.failed,
            waiting=progress.waiting,
            in_flight=progress.in_flight,
            requests=this_run.requests,
            rate=self._gauge.rate(this_run.requests),
            limit=self._limit,
            to_go=self._gauge.to_go(this_run.requests, this_run.attempted, progress.total),
            held_until=end_of(held, self._clock()) if held else None,
            held_status=held.status if held else 0,
            alone=progress.alone,
            stopping=stopping,
            lowered=progress.lowered,
            delivered=delivered,
        )


def _near(one: Lowered, other: Lowered) -> bool:
    return abs(one.rate - other.rate) <= one.rate / 5
