"""The story of a run. The only place where the parts are put together."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from jobs import __version__
from jobs.attempt import Persistence, attempt
from jobs.breaker import Breaker
from jobs.errors import Exit
from jobs.folder import app_lock, clear_left_behind, hold, make_folder
from jobs.model import Failed, Recovered, Run, ThisRun
from jobs.opening import open_ledger, refuse_unknown_tokens
from jobs.pace import Pace
from jobs.plan import make_plan, needed_apps, with_apps
from jobs.rendering import render
from jobs.standing import new_failures, recovery_ages, standing
from jobs.stop import Stop, on_signals
from jobs.workers import Means, outcomes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from jobs.highlevel import HighLevel
    from jobs.ledger import Ledger
    from jobs.model import Broken, Cause, Install, Outcome, Row
    from jobs.plan import Plan
    from jobs.start import Start
    from jobs.terminal import Terminal

MOST_WORKERS = 128


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked of one run; `max_duration` in seconds."""

    limit: int | None = None
    max_duration: float | None = None
    causes: tuple[Cause, ...] = ()
    force: bool = False


def now() -> str:
    """This moment, UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def recover(start: Start, output: Path, wishes: Wishes, terminal: Terminal) -> Exit:
    """One run: hold the folder, read the manifest, plan, enrol, recover, report. Raises UserError before it sends."""
    began = time.monotonic()

    def rows() -> Iterator[Row | Broken]:
        return with_apps(start.manifest.rows(), start.apps)

    needed = needed_apps(rows(), start.apps)
    holder = f"the run on {start.manifest.path} that began {now()}"
    stop = Stop(time.monotonic, None if wishes.max_duration is None else began + wishes.max_duration)
    with ExitStack() as held:
        folder = make_folder(output)
        held.enter_context(hold(folder / ".lock", str(folder), holder))
        clear_left_behind(folder)
        ledger = open_ledger(folder, start.base_url)
        held.callback(ledger.close)
        refuse_unknown_tokens(folder, ledger)
        for client_id in sorted(needed):
            lock = app_lock(start.environment, start.base_url, client_id)
            held.enter_context(hold(lock, f"the app {client_id}", holder))
        count = ledger.stage(rows())
        plan = make_plan(
            count, ledger.duplicate_lines(), ledger.broken_lines, ledger.staged(), needed,
            force=wishes.force, causes=wishes.causes,
        )  # fmt: skip
        ledger.enrol(start.manifest.columns, now())
        ledger.refuse_unknown_apps(start.apps.known, now())
        todo = ledger.line_up(needed, force=wishes.force, causes=wishes.causes)
        run = Run(uuid4().hex, str(start.manifest.path), start.base_url, now())
        ledger.save_run(run)
        with ledger.engine.connect() as connection:
            ages = recovery_ages(connection)
        terminal.started(plan, start, folder, ages)
        held.enter_context(on_signals(stop))
        this_run = ThisRun(already_recovered=plan.recovered)
        if todo:
            this_run = _work(start, ledger, todo, wishes, stop, terminal, this_run)
        run = _finish(run, plan, ledger, stop, this_run)
        ledger.save_run(run)
        render(folder, ledger, run, start.apps.known)
        terminal.finished(run, folder, nothing_to_do=not todo)
    return Exit(run.exit_code or 0)


def _work(
    start: Start,
    ledger: Ledger,
    todo: Mapping[str, int],
    wishes: Wishes,
    stop: Stop,
    terminal: Terminal,
    so_far: ThisRun,
) -> ThisRun:
    """Try what is lined up; every outcome is on disk before the next install is handed out."""
    settings = start.settings
    retry = settings.retry
    persistence = Persistence(retry.attempts, retry.min_wait_seconds, retry.max_wait_seconds)
    rate, patience = settings.pace.requests_per_second, settings.pace.patience_seconds
    pace = Pace(rate, patience, clock=time.monotonic, backoff=persistence.backoff)
    api = _api(start, pace)
    apps = start.apps.known
    breaker = Breaker(settings.stop.transient_installs)

    def stopping() -> bool:
        if stop.asked():
            pace.stop()
        return bool(stop.because)

    slots = settings.pace.workers or MOST_WORKERS
    total = sum(todo.values()) if wishes.limit is None else min(wishes.limit, sum(todo.values()))
    with ThreadPoolExecutor(slots, thread_name_prefix="worker") as executor:
        means = Means(
            executor=executor,
            slots=slots,
            fixed=bool(settings.pace.workers),
            try_once=lambda install: attempt(api, apps[install.key.client_id], install),
            persistence=persistence,
            breaker=breaker,
            pace_waiting=lambda: pace.waiting,
            out_of_patience=lambda: pace.out_of_patience,
            stopping=stopping,
            clock=time.monotonic,
            now=now,
            look_up=min(0.2, max(0.01, 1 / rate)),
        )
        for ended in outcomes(_lanes(ledger, todo, wishes.limit), means):
            ledger.record(ended)
            so_far = _count(so_far, ended, pace.requests)
            terminal.ended(ended, so_far, total, pace.held)
    api.close()
    _why_stopped(stop, breaker, pace, todo, wishes, total)
    return so_far


def _api(start: Start, pace: Pace) -> HighLevel:
    from jobs.highlevel import HighLevel, Limits

    http = start.settings.http
    limits = Limits(
        http.connect_timeout_seconds, http.read_timeout_seconds, http.total_timeout_seconds, http.max_answer_bytes
    )
    return HighLevel(
        base_url=start.base_url,
        limits=limits,
        gate=pace,
        clock=time.monotonic,
        now=lambda: datetime.now(UTC),
        user_agent=f"highlevel-recovery/{__version__}",
        environment=start.environment,
    )


def _lanes(ledger: Ledger, todo: Mapping[str, int], limit: int | None) -> dict[str, Iterator[Install]]:
    budget = iter(range(limit)) if limit is not None else None

    def lane(client_id: str) -> Iterator[Install]:
        for install in ledger.todo(client_id):
            if budget is not None and next(budget, None) is None:
                return
            yield install

    return {client_id: lane(client_id) for client_id in todo}


def _count(so_far: ThisRun, ended: list[tuple[Install, Outcome]], requests: int) -> ThisRun:
    recovered = sum(isinstance(outcome, Recovered) for _, outcome in ended)
    failed = sum(isinstance(outcome, Failed) for _, outcome in ended)
    return replace(
        so_far,
        attempted=so_far.attempted + recovered + failed,
        recovered=so_far.recovered + recovered,
        failed=so_far.failed + failed,
        requests=requests,
    )


def _why_stopped(stop: Stop, breaker: Breaker, pace: Pace, todo: Mapping[str, int], wishes: Wishes, total: int) -> None:
    for client_id in todo:
        trip = breaker.tripped(client_id)
        if trip is not None:
            stop.ask(trip.because, Exit.STOPPED_EARLY, trip.met)
    if pace.out_of_patience:
        stop.ask("outage", Exit.STOPPED_EARLY, "HighLevel kept answering 429 (too many requests)")
    if wishes.limit is not None and total < sum(todo.values()):
        stop.ask("install_limit", Exit.STOPPED_AS_ASKED)


def _finish(run: Run, plan: Plan, ledger: Ledger, stop: Stop, this_run: ThisRun) -> Run:
    with ledger.engine.connect() as connection:
        counts, retryable, by_cause = standing(connection, plan.rows)
        fresh = new_failures(connection, run.started_at)
    code = stop.code
    if not stop.because:
        code = Exit.SOME_FAILED if counts.failed or this_run.failed else Exit.OK
        if counts.pending == counts.recovered == 0 and not counts.failed:
            code = Exit.OK
    return replace(
        run,
        finished_at=now(),
        exit_code=int(code),
        stopped_because=stop.because or None,
        met=stop.met,
        counts=counts,
        retryable=retryable,
        this_run=replace(this_run, new_failures=fresh),
        failures_by_cause=by_cause,
        failures_by_owner=_by_owner(by_cause),
    )


def _by_owner(by_cause: Mapping[str, int]) -> dict[str, int]:
    from jobs.causes import ADVICE
    from jobs.model import Cause

    owners: dict[str, int] = {}
    for cause, count in by_cause.items():
        owner = ADVICE[Cause(cause)].owner.value
        owners[owner] = owners.get(owner, 0) + count
    return owners
