"""The crew of a run: the parts that try installs, put together, and why they stop."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from jobs import __version__
from jobs.attempt import Persistence, attempt
from jobs.book import Book
from jobs.contact import Contact
from jobs.core.clock import utc, utc_now
from jobs.core.errors import Exit
from jobs.core.model import Recovered, Route, Unfinished
from jobs.crew import Crew
from jobs.highlevel import HighLevel, Limits, ThisMachineLacks
from jobs.pace import Pace
from jobs.routes import keep_bearers, open_routes
from jobs.schema import HeldError, UnwritableError
from jobs.workers import Back, Means, came_late, outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from jobs.attempt import Errand, Tried
    from jobs.breaker import Breaker
    from jobs.core.model import App, Install, Outcome
    from jobs.ledger import Ledger
    from jobs.pace import Held, Lowered
    from jobs.routes import Routing
    from jobs.settings import PaceSettings, Settings
    from jobs.start import Start
    from jobs.stop import Stop
    from jobs.wishes import Wishes
    from jobs.workers import Round

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
    start: Start, ledger: Ledger, todo: Mapping[str, int], wishes: Wishes, stop: Stop, make_room: Callable[[], None]
) -> Iterator[Progress]:
    """Try what is lined up. Every outcome is on disk before the next install is handed out, and before it is yielded.

    `make_room` frees what was kept for a full disk. Whatever ends it, a bug of the caller's too, what is in flight is
    written down before it ends. Raises UnwritableError where the ledger cannot be read.
    """
    pacing, persistence = start.settings.pace, persistence_of(start.settings)
    inbox: SimpleQueue[Back | None] = SimpleQueue()
    look_again = partial(inbox.put, None)
    stop.asked_to = look_again
    pace = make_pace(pacing, persistence, look_again)
    total = min(sum(todo.values()), wishes.limit or sum(todo.values()))
    with (
        closing(make_api(start.settings, start.base_url, start.environment, pace, look_again)) as api,
        closing(Crew(pacing.workers or MOST_WORKERS, time.monotonic, inbox.put, came_late)) as crew,
    ):
        routing = open_routes(ledger, wishes.routes, persistence, start.settings.stop, stop, api.server_time)
        try_once = partial(_try_once, api, start.apps.known, partial(_intend, ledger, stop, pace), stop)
        means = _means(
            start.settings, crew, inbox, routing, try_once, lambda: pace.under_way + api.connecting, pace, stop
        )
        coming, left = outcomes(_lanes(ledger, todo, wishes), means), sum(todo.values())
        with closing(_recorded(coming, _book(ledger, stop, make_room, pace), stop)) as recorded:
            for ended, in_flight, waiting in recorded:
                left -= sum(_is_done(outcome) for _, outcome in ended)
                keep_bearers(routing.bearers, ended, wishes.routes)
                alone = all(routing.breaker.goes_alone(client_id) for client_id in todo)
                notes = _taken(routing.notes)
                yield Progress(ended, pace.requests, total, pace.held, in_flight, waiting, alone, notes, pace.lowered)
    if left:  # A run that has tried all has not stopped, whatever it met.
        _why_stopped(stop, routing.breaker, pace.enough, todo)
    if wishes.limit is not None and total < sum(todo.values()):
        stop.ask("install_limit", Exit.STOPPED_AS_ASKED)


def _means(
    settings: Settings,
    crew: Crew[Back],
    inbox: SimpleQueue[Back | None],
    routing: Routing,
    try_once: Callable[[Errand], Tried],
    under_way: Callable[[], int],
    pace: Pace,
    stop: Stop,
) -> Means:
    """What the scheduler of a run works with."""
    pacing = settings.pace
    return Means(
        crew=crew,
        inbox=inbox,
        slots=pacing.workers or MOST_WORKERS,
        fixed=bool(pacing.workers),
        try_once=try_once,
        ways=routing.ways,
        breaker=routing.breaker,
        contact=Contact(settings.stop.network_patience_seconds, persistence_of(settings).backoff),
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


def _book(ledger: Ledger, stop: Stop, make_room: Callable[[], None], pace: Pace) -> Book:
    """The book of a run. Nothing is sent while the ledger is waited for, nor once it has refused an outcome."""
    ledger.wait.pause, ledger.wait.go_on = pace.pause, pace.go_on
    return Book(ledger, stop, make_room, partial(pace.stop, also_codes=True))


def _recorded(coming: Iterator[Round], book: Book, stop: Stop) -> Generator[Round]:
    """Rounds whose outcomes are on disk. Whatever ends this early, what is in flight comes back and is written down."""
    try:
        for now in coming:
            yield now._replace(ended=book.write(now.ended))
    except BaseException:
        stop.ask("bug", Exit.BUG)
        for now in coming:
            book.write(now.ended)
        raise
    finally:
        book.close()


def persistence_of(settings: Settings) -> Persistence:
    """How often and after which waits an install is tried."""
    retry = settings.retry
    patience = settings.pace.patience_seconds
    return Persistence(retry.attempts, retry.min_wait_seconds, retry.max_wait_seconds, patience)


def make_pace(pacing: PaceSettings, persistence: Persistence, left: Callable[[], None] = lambda: None) -> Pace:
    """The gate that all requests of a run pass; `left` is called when one has."""
    return Pace(
        pacing.requests_per_second,
        pacing.patience_seconds,
        clock=time.monotonic,
        now=utc,
        backoff=persistence.backoff,
        left=left,
    )


def _try_once(
    api: HighLevel, apps: Mapping[str, App], intend: Callable[[Install], bool], stop: Stop, errand: Errand
) -> Tried:
    """One try; where this machine lacks what a connection needs, none at all, and the run stops."""
    try:
        return attempt(api, apps[errand.install.key.client_id], errand, intend)
    except ThisMachineLacks as lacking:
        stop.ask("outage", Exit.STOPPED_EARLY, str(lacking))
        return None


def _intend(ledger: Ledger, stop: Stop, pace: Pace, install: Install) -> bool:
    """Put on disk that a token will be spent; where that cannot be, the run stops and nothing is sent, codes in hand neither."""
    try:
        ledger.intend(install, utc_now())
    except UnwritableError as full:
        pace.stop(also_codes=True)  # Here, since the run may have another reason to stop by now.
        stop.ask(full.because, Exit.STOPPED_EARLY, str(full))
        return False
    return True


def _stopping(stop: Stop, pace: Pace) -> bool:
    if stop.asked():
        # A code that is sent when the ledger takes no more would be a pair that cannot be stored.
        pace.stop(also_codes=stop.because in {UnwritableError.because, HeldError.because})
    return bool(stop.because or pace.enough)


def make_api(
    settings: Settings,
    base_url: str,
    environment: Mapping[str, str],
    pace: Pace,
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


def _lanes(ledger: Ledger, todo: Mapping[str, int], wishes: Wishes) -> dict[str, Iterator[Install]]:
    budget = iter(range(wishes.limit)) if wishes.limit is not None else None

    def lane(client_id: str) -> Iterator[Install]:
        for install in ledger.todo(client_id, spending=Route.REFRESH in wishes.routes, force=wishes.force):
            if budget is not None and next(budget, None) is None:
                return
            yield install

    return {client_id: lane(client_id) for client_id in todo}


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
