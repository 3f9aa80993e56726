"""Puts together the parts of a run that try installs, and says why the run stopped."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from jobs import __version__
from jobs.core.clock import utc, utc_now
from jobs.core.errors import Exit
from jobs.core.model import Recovered, Route, Unfinished
from jobs.highlevel.api import HighLevel, Limits, LocalFailure
from jobs.highlevel.transport import Transport
from jobs.ledger.sqlite import UnwritableError
from jobs.pace.gate import Gate
from jobs.recovery.attempt import RetryPolicy, attempt
from jobs.recovery.connectivity import Connectivity
from jobs.recovery.dispatcher import Dispatcher, FinishedTry, Sizes, came_late
from jobs.recovery.recorder import Recorder
from jobs.recovery.routes import keep_bearers, open_routes
from jobs.recovery.scheduler import outcomes
from jobs.recovery.state import Parts
from jobs.recovery.stop import StopConditions
from jobs.recovery.threads import WorkerThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from jobs.config.settings import PaceSettings, Settings
    from jobs.core.model import App, Install, Outcome
    from jobs.ledger.ledger import Ledger
    from jobs.pace.gate import Held, Lowered
    from jobs.recovery.attempt import Task, Tried
    from jobs.recovery.breaker import Breaker
    from jobs.recovery.routes import Routing
    from jobs.recovery.scheduler import Round
    from jobs.recovery.stop import Stop
    from jobs.start import RunOptions, Start

MOST_WORKERS = 256


@dataclass(frozen=True, slots=True)
class Progress:
    """The outcomes that were just written down (often none), and how far the run is.

    `requests` were made so far. Of `total` installs, `in_flight` are being tried and `waiting` are between two tries.
    `alone`: every app still tries one install by itself. `notes` are for a person. `lowered`: why the pace is below
    the one that was set, or None.
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
    """Yields the progress while the installs that are lined up are tried. An outcome is on disk before it is yielded,
    and before the next install is handed out.

    `make_room` frees the disk space that was reserved. Whatever ends this, even a bug of the caller, installs in
    flight are recorded first. Raises UnwritableError if the ledger cannot be read.
    """
    pacing, retry_policy = start.settings.pace, retry_policy_of(start.settings)
    inbox: SimpleQueue[FinishedTry | None] = SimpleQueue()
    look_again = partial(inbox.put, None)
    stop.asked_to = look_again
    gate = make_gate(pacing, retry_policy, look_again)
    total = min(sum(todo.values()), options.limit or sum(todo.values()))
    with (
        closing(make_api(start.settings, start.base_url, start.environment, gate, look_again)) as api,
        closing(WorkerThreads(pacing.workers or MOST_WORKERS, time.monotonic, inbox.put, came_late)) as threads,
    ):
        routing = open_routes(ledger, options.routes, retry_policy, start.settings.stop, stop, api.server_time)
        try_once = partial(_try_once, api, start.apps.known, partial(_intend, ledger, stop, gate), stop)
        under_way = partial(in_the_air, gate, api)
        dispatcher = Dispatcher(threads, inbox, try_once, under_way, sizes_of(pacing))
        parts = _parts(start.settings, dispatcher, routing, StopConditions(stop, gate))
        coming, left = outcomes(_queues(ledger, todo, options), parts), sum(todo.values())
        with closing(_recorded(coming, _recorder(ledger, stop, make_room, gate), stop)) as recorded:
            for ended, in_flight, waiting in recorded:
                left -= sum(_is_done(outcome) for _, outcome in ended)
                keep_bearers(routing.bearers, ended, options.routes)
                alone = all(routing.breaker.goes_alone(client_id) for client_id in todo)
                notes = routing.notes.take()
                yield Progress(ended, gate.requests, total, gate.held, in_flight, waiting, alone, notes, gate.lowered)
    if left:  # A run that has tried every install was not stopped, whatever it met.
        _why_stopped(stop, routing.breaker, gate.enough, todo)
    if options.limit is not None and total < sum(todo.values()):
        stop.ask("install_limit", Exit.STOPPED_AS_ASKED)


def _is_done(outcome: Outcome) -> bool:
    """Whether this outcome is the end of an install that was handed out."""
    return not isinstance(outcome, Unfinished) and not (isinstance(outcome, Recovered) and outcome.stray)


def _parts(settings: Settings, dispatcher: Dispatcher, routing: Routing, stop: StopConditions) -> Parts:
    patience, backoff = settings.stop.network_patience_seconds, retry_policy_of(settings).backoff
    connectivity = Connectivity(patience, backoff)
    return Parts(dispatcher, routing.router, routing.breaker, connectivity, stop, routing.notes, time.monotonic)


def in_the_air(gate: Gate, api: HighLevel) -> int:
    """How many requests are not answered yet, and connections not made yet."""
    return gate.under_way + api.connecting


def sizes_of(pacing: PaceSettings) -> Sizes:
    """How many may be out at once by these settings."""
    at_gate = max(2, min(32, round(pacing.requests_per_second / 10)))
    return Sizes(pacing.workers or MOST_WORKERS, bool(pacing.workers), at_gate, pacing.requests_per_second)


def _recorder(ledger: Ledger, stop: Stop, make_room: Callable[[], None], gate: Gate) -> Recorder:
    """The recorder of a run. Nothing is sent while it waits for the ledger, nor after the ledger refused an outcome."""
    ledger.wait.pause, ledger.wait.go_on = gate.pause, gate.go_on
    return Recorder(ledger, stop, make_room, partial(gate.stop, also_codes=True))


def _recorded(coming: Iterator[Round], recorder: Recorder, stop: Stop) -> Generator[Round]:
    """The rounds, whose outcomes are on disk. If this ends early, what is in flight still comes back and is written
    down.
    """
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
    """How often an install is tried, and the waits between."""
    retry = settings.retry
    patience = settings.pace.patience_seconds
    return RetryPolicy(retry.attempts, retry.min_wait_seconds, retry.max_wait_seconds, patience)


def make_gate(pacing: PaceSettings, retry_policy: RetryPolicy, left: Callable[[], None] = lambda: None) -> Gate:
    """The gate that all requests of a run pass. `left` is called when a request has left."""
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
    """How one try ended. If this machine cannot make a connection, there is no try and the run stops."""
    try:
        return attempt(api, apps[task.install.key.client_id], task, intend)
    except LocalFailure as error:
        stop.ask("outage", Exit.STOPPED_EARLY, str(error))
        return None


def _intend(ledger: Ledger, stop: Stop, gate: Gate, install: Install) -> bool:
    """Whether it is on disk now that a token will be spent. If not, the run stops and nothing is sent, not even codes
    in hand.
    """
    try:
        ledger.intend(install, utc_now())
    except UnwritableError as error:
        # Not left to `stop`, since the run may already have another reason to stop.
        gate.stop(also_codes=True)
        stop.ask(error.because, Exit.STOPPED_EARLY, str(error))
        return False
    return True


def make_api(
    settings: Settings,
    base_url: str,
    environment: Mapping[str, str],
    gate: Gate,
    connects: Callable[[], None] = lambda: None,
) -> HighLevel:
    """The client of the API, behind `gate`. `connects` is called when a connection is about to be made."""
    http = settings.http
    limits = Limits(
        http.connect_timeout_seconds, http.read_timeout_seconds, http.total_timeout_seconds, http.max_answer_bytes
    )
    return HighLevel(
        base_url=base_url,
        transport=Transport(base_url, limits, environment, connects),
        gate=gate,
        clock=time.monotonic,
        now=utc,
        user_agent=f"highlevel-recovery/{__version__}",
    )


def _queues(ledger: Ledger, todo: Mapping[str, int], options: RunOptions) -> dict[str, Iterator[Install]]:
    budget = iter(range(options.limit)) if options.limit is not None else None

    def queued(client_id: str) -> Iterator[Install]:
        for install in ledger.todo(client_id, spending=Route.REFRESH in options.routes, force=options.force):
            if budget is not None and next(budget, None) is None:
                return
            yield install

    return {client_id: queued(client_id) for client_id in todo}


def _why_stopped(stop: Stop, breaker: Breaker, enough: str, todo: Mapping[str, int]) -> None:
    for client_id in todo:
        trip = breaker.tripped(client_id)
        if trip is not None:
            stop.ask(trip.because, Exit.STOPPED_EARLY, trip.met)
    if enough:
        stop.ask("outage", Exit.STOPPED_EARLY, enough)
