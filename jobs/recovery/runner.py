"""The crew of a run: the parts that try installs, put together, and why they stop."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from sqlalchemy import select

from jobs import __version__
from jobs.core.clock import utc, utc_now
from jobs.core.errors import Exit
from jobs.core.model import Answer, Level, Recovered, Route, Status, Unfinished
from jobs.highlevel.api import HighLevel, Limits, ThisMachineLacks
from jobs.ledger.tables import HeldError, UnwritableError, installs
from jobs.pace.gate import Gate
from jobs.recovery.agency_answers import AgencyAnswers
from jobs.recovery.agency_tokens import AgencyTokens
from jobs.recovery.attempt import RetryPolicy, attempt
from jobs.recovery.breaker import Breaker
from jobs.recovery.connectivity import Connectivity
from jobs.recovery.coverage import known_bearers, may_serve
from jobs.recovery.recorder import Recorder
from jobs.recovery.routing import Router
from jobs.recovery.scheduler import FinishedTry, Parts, came_late, outcomes
from jobs.recovery.threads import WorkerThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from jobs.config.settings import PaceSettings, Settings, StopSettings
    from jobs.core.model import App, Install, Outcome
    from jobs.ledger.ledger import Ledger
    from jobs.pace.gate import Held, Lowered
    from jobs.recovery.agency_tokens import AgencyKey
    from jobs.recovery.attempt import Task, Tried
    from jobs.recovery.scheduler import Round
    from jobs.recovery.stop import Stop
    from jobs.start import RunOptions, Start

MOST_WORKERS = 256


@dataclass(frozen=True, slots=True)
class Progress:
    """What has just been written down (often nothing), and how the run stands.

    `requests` were made so far; `total` installs there are in all, `in_flight` of them with a worker, `waiting` between
    two tries; `alone` is whether the first install of each app that is left goes by itself.
    `notes` are what a person should hear once, of routes that are closed. `lowered`: the pace is below the one that was set.
    """

    ended: list[tuple[Install, Outcome]]
    requests: int
    total: int
    held: Held | None
    in_flight: int
    waiting: int
    alone: bool
    notes: tuple[str, ...] = ()
    lowered: Lowered | None = None


def work(
    start: Start,
    ledger: Ledger,
    todo: Mapping[str, int],
    options: RunOptions,
    stop: Stop,
    make_room: Callable[[], None],
) -> Iterator[Progress]:
    """Try what is lined up. Every outcome is on disk before the next install is handed out, and before it is yielded.

    `make_room` frees what was kept for a full disk. Whatever ends it, a bug of the caller's too, what is in flight is
    written down before it ends. Raises UnwritableError where the ledger cannot be read.
    """
    pacing, retry_policy = start.settings.pace, retry_policy_of(start.settings)
    inbox: SimpleQueue[FinishedTry | None] = SimpleQueue()
    look_again = partial(inbox.put, None)
    stop.asked_to = look_again
    pace = make_gate(pacing, retry_policy, look_again)
    total = min(sum(todo.values()), options.limit or sum(todo.values()))
    with (
        closing(make_api(start.settings, start.base_url, start.environment, pace, look_again)) as api,
        closing(WorkerThreads(pacing.workers or MOST_WORKERS, time.monotonic, inbox.put, came_late)) as threads,
    ):
        routing = open_routes(ledger, options.routes, retry_policy, start.settings.stop, stop, api.server_time)
        try_once = partial(_try_once, api, start.apps.known, partial(_intend, ledger, stop, pace), stop)
        parts = _parts(
            start.settings, threads, inbox, routing, try_once, lambda: pace.under_way + api.connecting, pace, stop
        )
        coming, left = outcomes(_queues(ledger, todo, options), parts), sum(todo.values())
        with closing(_recorded(coming, _recorder(ledger, stop, make_room, pace), stop)) as recorded:
            for ended, in_flight, waiting in recorded:
                left -= sum(_is_done(outcome) for _, outcome in ended)
                keep_bearers(routing.bearers, ended, options.routes)
                alone = all(routing.breaker.goes_alone(client_id) for client_id in todo)
                notes = _taken(routing.notes)
                yield Progress(ended, pace.requests, total, pace.held, in_flight, waiting, alone, notes, pace.lowered)
    if left:  # A run that has tried all has not stopped, whatever it met.
        _why_stopped(stop, routing.breaker, pace.enough, todo)
    if options.limit is not None and total < sum(todo.values()):
        stop.ask("install_limit", Exit.STOPPED_AS_ASKED)


def _parts(
    settings: Settings,
    threads: WorkerThreads[FinishedTry],
    inbox: SimpleQueue[FinishedTry | None],
    routing: Routing,
    try_once: Callable[[Task], Tried],
    under_way: Callable[[], int],
    pace: Gate,
    stop: Stop,
) -> Parts:
    """What the scheduler of a run works with."""
    pacing = settings.pace
    return Parts(
        threads=threads,
        inbox=inbox,
        slots=pacing.workers or MOST_WORKERS,
        fixed=bool(pacing.workers),
        try_once=try_once,
        router=routing.router,
        breaker=routing.breaker,
        connectivity=Connectivity(settings.stop.network_patience_seconds, retry_policy_of(settings).backoff),
        under_way=under_way,
        out_of_patience=lambda: pace.out_of_patience,
        stopping=partial(_stopping, stop, pace),
        no_worker=partial(_no_worker, stop),
        say=routing.notes.append,
        clock=time.monotonic,
        at_gate=max(2, min(32, round(pacing.requests_per_second / 10))),
        requests_per_second=pacing.requests_per_second,
    )


def _no_worker(stop: Stop, why: str) -> None:
    limits = "raise its limit of processes (ulimit -u, or the container's), or free memory"
    stop.ask("outage", Exit.STOPPED_EARLY, f"this machine does not start a single thread ({why}): {limits}")


def _is_done(outcome: Outcome) -> bool:
    """Whether an install that was handed out has ended with it."""
    return not isinstance(outcome, Unfinished) and not (isinstance(outcome, Recovered) and outcome.stray)


def _recorder(ledger: Ledger, stop: Stop, make_room: Callable[[], None], pace: Gate) -> Recorder:
    """The book of a run. Nothing is sent while the ledger is waited for, nor once it has refused an outcome."""
    ledger.wait.pause, ledger.wait.go_on = pace.pause, pace.go_on
    return Recorder(ledger, stop, make_room, partial(pace.stop, also_codes=True))


def _recorded(coming: Iterator[Round], recorder: Recorder, stop: Stop) -> Generator[Round]:
    """Rounds whose outcomes are on disk. Whatever ends this early, what is in flight comes back and is written down."""
    try:
        for now in coming:
            yield now._replace(ended=recorder.write(now.ended))
    except BaseException:
        stop.ask("bug", Exit.BUG)
        for now in coming:
            recorder.write(now.ended)
        raise
    finally:
        recorder.close()


def retry_policy_of(settings: Settings) -> RetryPolicy:
    """How often and after which waits an install is tried."""
    retry = settings.retry
    patience = settings.pace.patience_seconds
    return RetryPolicy(retry.attempts, retry.min_wait_seconds, retry.max_wait_seconds, patience)


def make_gate(pacing: PaceSettings, retry_policy: RetryPolicy, left: Callable[[], None] = lambda: None) -> Gate:
    """The gate that all requests of a run pass; `left` is called when one has."""
    return Gate(
        pacing.requests_per_second,
        pacing.patience_seconds,
        clock=time.monotonic,
        now=utc,
        backoff=retry_policy.backoff,
        left=left,
    )


def _try_once(
    api: HighLevel, apps: Mapping[str, App], intend: Callable[[Install], bool], stop: Stop, task: Task
) -> Tried:
    """One try; where this machine lacks what a connection needs, none at all, and the run stops."""
    try:
        return attempt(api, apps[task.install.key.client_id], task, intend)
    except ThisMachineLacks as lacking:
        stop.ask("outage", Exit.STOPPED_EARLY, str(lacking))
        return None


def _intend(ledger: Ledger, stop: Stop, pace: Gate, install: Install) -> bool:
    """Put on disk that a token will be spent; where that cannot be, the run stops and nothing is sent, codes in hand neither."""
    try:
        ledger.intend(install, utc_now())
    except UnwritableError as full:
        pace.stop(also_codes=True)  # Here, since the run may have another reason to stop by now.
        stop.ask(full.because, Exit.STOPPED_EARLY, str(full))
        return False
    return True


def _stopping(stop: Stop, pace: Gate) -> bool:
    if stop.asked():
        # A code that is sent when the ledger takes no more would be a pair that cannot be stored.
        pace.stop(also_codes=stop.because in {UnwritableError.because, HeldError.because})
    return bool(stop.because or pace.enough)


def make_api(
    settings: Settings,
    base_url: str,
    environment: Mapping[str, str],
    pace: Gate,
    connects: Callable[[], None] = lambda: None,
) -> HighLevel:
    """The door to the API, behind the gate `pace`; `connects` is called when a connection begins to be made."""
    http = settings.http
    limits = Limits(
        http.connect_timeout_seconds, http.read_timeout_seconds, http.total_timeout_seconds, http.max_answer_bytes
    )
    return HighLevel(
        base_url=base_url,
        limits=limits,
        gate=pace,
        clock=time.monotonic,
        now=utc,
        user_agent=f"highlevel-recovery/{__version__}",
        environment=environment,
        connects=connects,
    )


def _queues(ledger: Ledger, todo: Mapping[str, int], options: RunOptions) -> dict[str, Iterator[Install]]:
    budget = iter(range(options.limit)) if options.limit is not None else None

    def queued(client_id: str) -> Iterator[Install]:
        for install in ledger.todo(client_id, spending=Route.REFRESH in options.routes, force=options.force):
            if budget is not None and next(budget, None) is None:
                return
            yield install

    return {client_id: queued(client_id) for client_id in todo}


def _taken(notes: list[str]) -> tuple[str, ...]:
    """What is noted, which is forgotten by it."""
    taken = tuple(notes)
    notes.clear()
    return taken


def _why_stopped(stop: Stop, breaker: Breaker, enough: str, todo: Mapping[str, int]) -> None:
    for client_id in todo:
        trip = breaker.tripped(client_id)
        if trip is not None:
            stop.ask(trip.because, Exit.STOPPED_EARLY, trip.met)
    if enough:
        stop.ask("outage", Exit.STOPPED_EARLY, enough)


def bearers_at_start(ledger: Ledger, routes: Sequence[Route]) -> AgencyTokens:
    """The agencies with a living pair, of the manifest and of the ledger, where the routes of the run may use them."""
    bearers = AgencyTokens(ledger)
    if Route.AGENCY in routes:
        bearers.add_all(lambda connection: known_bearers(connection, utc()))
    return bearers


def keep_bearers(bearers: AgencyTokens, recorded: Iterable[tuple[Install, Outcome]], routes: Sequence[Route]) -> None:
    """The new pairs of agencies serve as bearers at once; they are on disk already."""
    for install, outcome in recorded:
        if Route.AGENCY in routes and install.key.level is Level.AGENCY and isinstance(outcome, Recovered):
            bearers.add(install.key.client_id, install.key.account_id, outcome.tokens.access_token)


@dataclass(frozen=True, slots=True)
class Routing:
    """What walks the installs of a run along its routes, and what it goes by. `notes`: what a person should hear once."""

    router: Router
    breaker: Breaker
    bearers: AgencyTokens
    notes: list[str]


def open_routes(
    ledger: Ledger,
    routes: Sequence[Route],
    retry_policy: RetryPolicy,
    settings: StopSettings,
    stop: Stop,
    server_time: Callable[[], float],
) -> Routing:
    """The routes of a run, as they stand at its start."""
    bearers, closed, notes = bearers_at_start(ledger, routes), dict[Route, Answer](), list[str]()
    breaker = Breaker(settings.transient_installs, partial(_route_left, ledger, routes, bearers, closed))
    router = Router(
        routes,
        retry_policy,
        bearers,
        closed,
        reconnect_closed=breaker.reconnect_closed,
        look_again=breaker.look_again,
        clock=stop.clock,
        now=utc_now,
        server_time=server_time,
        agency_answers=AgencyAnswers(partial(_standing, ledger), utc_now, notes.append),
        say=notes.append,
    )
    return Routing(router, breaker, bearers, notes)


def _route_left(
    ledger: Ledger, routes: Sequence[Route], bearers: AgencyTokens, closed: Mapping[Route, Answer], client_id: str
) -> bool:
    """Whether another route than Reconnect may serve any install that is lined up for an app."""
    companies = bearers.companies(client_id) if Route.AGENCY in routes and Route.AGENCY not in closed else []
    refresh = Route.REFRESH in routes and Route.REFRESH not in closed
    return ledger.ask(lambda connection: may_serve(connection, client_id, companies, refresh=refresh))


def _standing(ledger: Ledger, agency: AgencyKey) -> Status | None:
    """How an agency stands in the ledger, or None where it is not in it."""
    this = (installs.c.client_id == agency.client_id, installs.c.account_id == agency.company_id)
    query = select(installs.c.status).where(*this, installs.c.level == Level.AGENCY.value)
    found = ledger.ask(lambda connection: connection.scalar(query))
    return Status(found) if found else None
