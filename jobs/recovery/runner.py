"""Puts together the parts of a run that try installs, and says why the run stopped."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from jobs.core.clock import utc_now
from jobs.core.errors import Exit
from jobs.core.model import Failed, Recovered, Route, Unfinished
from jobs.ledger.refusals import UnwritableError
from jobs.recovery.attempt import attempt, by_its_route
from jobs.recovery.equipment import Equipment
from jobs.recovery.recorder import Recorder
from jobs.recovery.route_parts import keep_bearers, open_routes
from jobs.recovery.scheduler import outcomes
from jobs.recovery.state import Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from pathlib import Path

    from jobs.core.model import App, Install, Outcome
    from jobs.highlevel.api import HighLevel
    from jobs.ledger.ledger import Ledger
    from jobs.ledger.refusals import AwayError
    from jobs.pace.gate import Gate, Held, Lowered
    from jobs.recovery.attempt import Task, Tried
    from jobs.recovery.breaker import Breaker
    from jobs.recovery.route_parts import RouteParts
    from jobs.recovery.scheduler import Round
    from jobs.recovery.stop import Stop
    from jobs.sealing.sealer import Sealer
    from jobs.start import RunOptions, Start


@dataclass(frozen=True, slots=True)
class Progress:
    """The outcomes that were just written down (often none), and how far the run is.

    `requests` were made so far, and `rate_limited` of them were answered with 429. Of `total` installs, `in_flight` are being
    tried and `waiting` are between two tries.
    `alone`: every app still tries one install by itself. `notes` are for a person. `lowered`: why the pace is below
    the one that was set, or None. `unread`: a sealed pair that cannot be read may keep an install from coming back.
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
    unread: bool = False
    rate_limited: int = 0


def work(
    start: Start,
    ledger: Ledger,
    todo: Mapping[str, int],
    options: RunOptions,
    stop: Stop,
    make_room: Callable[[], None],
    set_aside: Callable[[list[tuple[Install, Recovered]]], Path] | None,
) -> Iterator[Progress]:
    """Yields the progress while the installs that are lined up are tried. An outcome is on disk before it is yielded,
    and before the next install is handed out.

    `make_room` frees the disk space that was reserved. `set_aside` keeps pairs that a database did not take. Whatever ends
    this, even a bug of the caller, installs in flight are recorded first. Raises UnwritableError if the ledger cannot be
    read.
    """
    lined_up = sum(todo.values())
    total = min(lined_up, options.limit or lined_up)
    with closing(Equipment(start, stop, ledger.leases)) as equipment:
        gate, api, retry_policy = equipment.gate, equipment.api, equipment.retry_policy
        recorder = _recorder(ledger, stop, make_room, gate, set_aside, start.sealer())
        route_parts = open_routes(ledger, options, retry_policy, start.settings.stop, stop, api.server_time)
        try_once = partial(_try_once, api, start.apps.known, partial(_intend, ledger, stop, gate), stop)
        parts = _parts(equipment, try_once, route_parts)
        coming, left, met_unread = outcomes(_queues(ledger, todo, options), parts), lined_up, False
        with closing(_recorded(coming, recorder, stop)) as recorded:
            for ended, in_flight, waiting in recorded:
                left -= sum(_is_done(outcome) for _, outcome in ended)
                keep_bearers(route_parts.bearers, ended, options.routes)
                alone = all(route_parts.breaker.goes_alone(client_id) for client_id in todo)
                notes = route_parts.notes.take()
                met_unread = met_unread or any(_met_unread(outcome) for _, outcome in ended)
                unread = met_unread or (left > 0 and route_parts.bearers.some_unread)
                yield Progress(
                    ended, gate.requests, total, gate.held, in_flight, waiting, alone, notes, gate.lowered, unread,
                    gate.rate_limited,
                )  # fmt: skip
    if left:  # A run that has tried every install was not stopped, whatever it met.
        _why_stopped(stop, route_parts.breaker, gate.enough, todo)
    if options.limit is not None and total < lined_up:
        stop.ask("install_limit", Exit.STOPPED_AS_ASKED)


def _is_done(outcome: Outcome) -> bool:
    """Whether this outcome is the end of an install that was handed out."""
    return not isinstance(outcome, Unfinished) and not (isinstance(outcome, Recovered) and outcome.stray)


def _met_unread(outcome: Outcome) -> bool:
    """Whether a route could not serve a failed install because a pair cannot be read."""
    return isinstance(outcome, Failed) and any(met.answer.unread for met in outcome.met)


def _parts(equipment: Equipment, try_once: Callable[[Task], Tried], route_parts: RouteParts) -> Parts:
    return Parts(
        equipment.dispatcher(try_once),
        route_parts.router,
        route_parts.breaker,
        equipment.connectivity(route_parts.notes),
        equipment.stop_conditions,
        route_parts.notes,
        time.monotonic,
    )


def _recorder(
    ledger: Ledger,
    stop: Stop,
    make_room: Callable[[], None],
    gate: Gate,
    set_aside: Callable[[list[tuple[Install, Recovered]]], Path] | None,
    sealer: Sealer | None,
) -> Recorder:
    """The recorder of a run. Nothing is sent while it waits for the ledger, nor after the ledger refused an outcome."""
    ledger.wait.pause, ledger.wait.go_on = gate.pause, gate.go_on
    let_nothing_out = partial(gate.stop, also_codes=True)
    if ledger.leases is not None:
        # A database that is away is not waited for once a signal came.
        ledger.wait.patience.gives_up = lambda: stop.signalled
        ledger.wait.gave_up = partial(_give_up, stop, let_nothing_out)
    return Recorder(ledger, stop, make_room, let_nothing_out, set_aside, sealer)


def _give_up(stop: Stop, let_nothing_out: Callable[[], None], away: AwayError) -> None:
    """Stop, since the database was away for too long, whichever thread waited for it."""
    let_nothing_out()
    stop.ask(away.because, Exit.STOPPED_EARLY, str(away))


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
            with suppress(Exception):  # The same bug may come again. What comes back is collected all the same.
                recorder.write(now.ended)
        raise
    finally:
        recorder.close()


def _try_once(
    api: HighLevel, apps: Mapping[str, App], intend: Callable[[Install], bool], stop: Stop, task: Task
) -> Tried:
    return attempt(partial(by_its_route, api, apps[task.install.key.client_id], task, intend), stop)


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


def _queues(ledger: Ledger, todo: Mapping[str, int], options: RunOptions) -> dict[str, Iterator[Install]]:
    budget = iter(range(options.limit)) if options.limit is not None else None

    spending = Route.REFRESH in options.routes

    def queued(client_id: str) -> Iterator[Install]:
        for install in ledger.todo(client_id, spending=spending, force=options.force, opener=options.opener):
            if budget is not None and next(budget, None) is None:
                return
            yield install

    return {client_id: queued(client_id) for client_id in todo}


def _why_stopped(stop: Stop, breaker: Breaker, enough: str, todo: Mapping[str, int]) -> None:
    reasons = [(trip.because, trip.met) for client_id in todo if (trip := breaker.tripped(client_id))]
    if enough:
        # What HighLevel said about its limits tells more than the installs that failed because of them.
        reasons = [*(one for one in reasons if one[0] != "outage"), ("outage", enough)]
    for because, met in reasons:
        stop.ask(because, Exit.STOPPED_EARLY, met)
