"""The story of `deliver`: hand over the pairs that wait in a folder. HighLevel is not asked for anything.

A run uses the same courier while it recovers installs.
"""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from jobs.config.settings import load_settings
from jobs.core.clock import utc
from jobs.core.errors import Exit, UserError, refuse
from jobs.core.file_errors import problem_of
from jobs.ledger import deliveries
from jobs.ledger.engines import Purpose
from jobs.ledger.reads import user_columns
from jobs.ledger.sealed import is_sealed
from jobs.recovery.stop import Stop, end_at_once, heed_leases
from jobs.report import render_with
from jobs.start import SETTINGS, environment_of, open_whole, opener_of, place_by
from jobs.system.signals import on_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from jobs.config.settings import Settings
    from jobs.core.model import DeliveryReport
    from jobs.ledger.ledger import Ledger
    from jobs.ledger.place import Place
    from jobs.outgoing.deliver.courier import Courier
    from jobs.sealing.opener import Opener
    from jobs.terminal.terminal import Terminal

_TICK_SECONDS = 0.5


def deliver(
    folder: Path,
    project: Path,
    environment: Mapping[str, str],
    again: Sequence[str] | None,
    terminal: Terminal,
    identity: Path | None,
    ask: Callable[[str], str],
) -> Exit:
    """Hand over the pairs that wait in `folder`. `again` names accounts (None: all) whose pairs are sent even if they
    were taken before. The file `identity` opens sealed pairs; `ask` gives its passphrase. Raises UserError.
    """
    settings, known = _settings(project, environment)
    place, stop = place_by(settings.ledger, known, folder), Stop(time.monotonic)
    opener = _opener(place, identity, ask, terminal.waits)
    with ExitStack() as held:
        ledger = open_whole(held, place, "recover deliver", terminal.waits)
        if opener is None:
            ledger.ask(partial(_refuse_sealed, again=again, folder=folder), Purpose.ONE_MOMENT)
        columns = ledger.ask(user_columns, Purpose.ONE_MOMENT)
        courier = courier_for(settings, ledger, known, columns, opener)
        assert courier is not None
        _line_up(ledger, again, folder)
        terminal.configured(settings.log.level, (*settings.deliver.secrets, *settings.ledger.url.secrets))
        leases = ledger.leases
        if leases is not None:
            leases.looked_after = partial(heed_leases, leases, stop)
            ledger.wait.patience.gives_up = lambda: stop.signalled
        held.enter_context(on_signals(stop.signal, partial(end_at_once, leases)))
        courier.start()
        hand_over_rest(courier, stop, terminal)
        if leases is not None and (problem := leases.problem()):
            raise UserError(problem, code=Exit.STOPPED_EARLY)
        with _after_sending(stop):
            run = render_with(ledger, folder, project, known, terminal.waits, courier.report)
    terminal.delivered(run, courier.report, folder, identity)
    return stop.code or (Exit.SOME_FAILED if run.counts.undelivered else Exit.OK)


@contextmanager
def _after_sending(stop: Stop) -> Iterator[None]:
    """Turn a refusal into the end of a command that has sent something: with the code of the signal, or stopped early."""
    try:
        yield
    except OSError as error:
        if (refused := problem_of(error)) is None:
            raise
        raise UserError(refused, code=stop.code or Exit.STOPPED_EARLY) from error


def test(folder: Path, project: Path, environment: Mapping[str, str], say: Callable[[str], None]) -> Exit:
    """Hand a made-up pair to the target, which leaves nothing behind, and `say` what it answers. Raises UserError."""
    from jobs.outgoing.deliver.opening import test_target

    settings, known = _settings(project, environment)
    place = place_by(settings.ledger, known, folder)
    place.must_exist()
    with place.reading() as ledger:
        columns = ledger.ask(user_columns, Purpose.ONE_MOMENT)
    tested = test_target(settings.deliver, columns, known, project)
    for line in tested.lines:
        say(line)
    return Exit.OK if tested.works else Exit.SOME_FAILED


def _settings(project: Path, environment: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    """The settings, which name a target, and the environment. Raises UserError."""
    known = environment_of(project, environment)
    settings = load_settings(project / SETTINGS, known, {})
    if settings.deliver.target is None:
        raise refuse("names no target", "deliver", "set RECOVERY_DELIVER__URL, deliver.command, or deliver.sql")
    return settings, known


def _opener(
    place: Place, identity: Path | None, ask: Callable[[str], str], say: Callable[[str], None]
) -> Opener | None:
    """What opens the sealed pairs of a place. None without an identity. Raises UserError."""
    if identity is None:
        return None
    place.must_exist()
    with place.reading() as ledger:
        return opener_of(identity, ledger.ask(place.bound_to), ask, say)


def _refuse_sealed(connection: Connection, again: Sequence[str] | None, folder: Path) -> None:
    """Raise UserError if pairs that would be handed over are sealed."""
    if is_sealed(connection) and deliveries.how_many_wait(connection, even_taken=again is None or bool(again)):
        todo = "give --identity FILE, the file of an identity that opens them"
        raise refuse("holds sealed pairs, which an identity must open before they are delivered", str(folder), todo)


def _line_up(ledger: Ledger, again: Sequence[str] | None, folder: Path) -> None:
    """Line up the pairs to hand over now: those of the named accounts only, or all that wait."""
    if again is not None and not again:
        return
    found = ledger.write(partial(deliveries.hand_over_again, account_ids=again), Purpose.BULK)
    if again is not None and (missing := [account for account in again if account not in found]):
        raise refuse(f"has no pair in {folder}", missing[0], "look up the id in results.csv")
    if again is not None:
        ledger.write(partial(deliveries.leave_others, account_ids=again), Purpose.BULK)


def courier_for(
    settings: Settings, ledger: Ledger, environment: Mapping[str, str], columns: Sequence[str], opener: Opener | None
) -> Courier | None:
    """The courier for `ledger`, not started yet, or None without a target.

    Without an `opener`, sealed pairs rest, except new ones. Raises UserError if the target can never work.
    """
    if settings.deliver.target is None:
        return None
    # Slow to import, and needed only with a target.
    from jobs.outgoing.deliver.courier import Policy
    from jobs.outgoing.deliver.opening import open_courier
    from jobs.outgoing.deliver.store import Store
    from jobs.sealing.kept_pairs import KeptPairs

    own = ledger.write(partial(deliveries.ledger_id, fresh=secrets.token_hex(4)))
    wanted, retry = settings.deliver, settings.retry
    policy = Policy(
        wanted.workers,
        wanted.attempts,
        min(retry.min_wait_seconds, retry.max_wait_seconds),
        retry.max_wait_seconds,
        wanted.give_up_after,
        settings.pace.patience_seconds,
    )
    kept = KeptPairs(opener)
    courier = open_courier(wanted, policy, Store(ledger, own, utc, kept), environment, columns)
    turn = deliveries.REST if opener is None and ledger.ask(is_sealed) else ""
    ledger.write(partial(deliveries.take_over, turn=turn), Purpose.BULK)
    ledger.delivers = kept
    return courier


def hand_over_rest(courier: Courier, stop: Stop, terminal: Terminal) -> None:
    """Hand over all that waits, until it is done or the run stops. What is in flight comes back first."""
    courier.finish()
    while not courier.ended(_TICK_SECONDS):
        if stop.ends_delivery():
            courier.stop()
        terminal.delivering(courier)
    terminal.handed_over(courier)


def end_courier(courier: Courier | None) -> DeliveryReport | None:
    """What was handed over, once nothing is in flight, whatever ends the run. None without a courier."""
    if courier is None:
        return None
    courier.stop()
    courier.join()
    return courier.report
