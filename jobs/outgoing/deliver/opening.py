"""The target that the settings name: opened for a run, checked at the start, or tried with a made-up pair."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jobs.core.clock import utc
from jobs.core.errors import refuse
from jobs.core.plurals import counted
from jobs.outgoing.deliver.command import TURN_SECONDS, CommandCourier, Lines, as_line, how_it_ended, refusal
from jobs.outgoing.deliver.pair import made_up_pair
from jobs.outgoing.deliver.pool import PoolCourier
from jobs.outgoing.deliver.sql import SqlTarget, shown_database
from jobs.outgoing.deliver.url import UrlTarget, shown_address
from jobs.outgoing.deliver.verdict import Later, No, Yes
from jobs.outgoing.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobs.config.settings import DeliverSettings
    from jobs.outgoing.deliver.command import Answer
    from jobs.outgoing.deliver.courier import Courier, Policy
    from jobs.outgoing.deliver.pair import Pair
    from jobs.outgoing.deliver.store import Store

_PROJECT = Path(__file__).resolve().parents[3]


class Tested(NamedTuple):
    """The result of a target's test: whether it would take pairs, and lines for a person."""

    works: bool
    lines: tuple[str, ...]


def open_courier(
    deliver: DeliverSettings,
    policy: Policy,
    store: Store,
    environment: Mapping[str, str],
    columns: Iterable[str],
    folder: Path = _PROJECT,
) -> Courier:
    """The courier for the target that the settings name, not started yet. They name one.

    `columns` are the list's own columns. Relative paths start at `folder`. Raises UserError like `check_target`.
    """
    if deliver.target == "command":
        _check_command(deliver.command, folder)
        return CommandCourier(store, deliver.command, folder, deliver.timeout_seconds)
    return PoolCourier(store, _target(deliver, columns, environment, folder), policy)


def check_target(
    deliver: DeliverSettings, columns: Iterable[str], environment: Mapping[str, str], folder: Path = _PROJECT
) -> None:
    """Raise UserError if the target can never work, without contacting it: a statement with an unknown parameter, a
    missing driver, a missing command.
    """
    if deliver.target == "command":
        _check_command(deliver.command, folder)
    else:
        _target(deliver, columns, environment, folder).close()


def where(deliver: DeliverSettings) -> str:
    """The target in words that may be shown, or empty without a target. Raises UserError like `check_target`."""
    match deliver.target:
        case "url":
            return shown_address(deliver.url)
        case "command":
            return deliver.command[0]
        case "sql":
            return shown_database(deliver.database_url)
        case _:
            return ""


def test_target(
    deliver: DeliverSettings, columns: Iterable[str], environment: Mapping[str, str], folder: Path
) -> Tested:
    """The result of handing over one made-up pair, which leaves nothing behind. Raises UserError like `check_target`."""
    columns = tuple(columns)
    pair = made_up_pair(utc(), columns)
    if deliver.target == "command":
        _check_command(deliver.command, folder)
        return _test_command(deliver, folder, pair)
    target = _target(deliver, columns, environment, folder)
    try:
        return _test_url(target, pair) if isinstance(target, UrlTarget) else _test_sql(target, pair)
    finally:
        target.close()


def _target(
    deliver: DeliverSettings, columns: Iterable[str], environment: Mapping[str, str], folder: Path
) -> UrlTarget | SqlTarget:
    seconds = deliver.timeout_seconds
    if deliver.target == "url":
        return UrlTarget(deliver.url, deliver.secret, seconds, environment, utc)
    return SqlTarget(deliver.database_url, deliver.sql, columns, deliver.workers, seconds, folder)


def _check_command(command: Sequence[str], folder: Path) -> None:
    name = command[0]
    found = shutil.which(folder / name) if "/" in name else shutil.which(name)
    if not found:
        todo = "give its path, or the name of a program that can be run"
        raise refuse(f"names a program that is not there ({name})", "deliver.command", todo)


def _test_url(target: UrlTarget, pair: Pair) -> Tested:
    match target.test(pair):
        case Yes():
            return Tested(works=True, lines=(f"{target.where} took a signed connection.test ({pair.pair_id})",))
        case other:
            return Tested(works=False, lines=(f"{target.where} did not take it: {other.why}",))


def _test_sql(target: SqlTarget, pair: Pair) -> Tested:
    changed = target.test(pair)
    if isinstance(changed, No | Later):
        return Tested(works=False, lines=(f"{target.where}: {changed.why}",))
    lines = (
        f"{target.where}: statement {number} would have changed {counted(rows, 'row', 'rows')}"
        for number, rows in enumerate(changed, 1)
    )
    what = "everything was rolled back; an UPDATE by id changes no row, since no row has the ids of a test"
    return Tested(works=True, lines=(*lines, what))


def _test_command(deliver: DeliverSettings, folder: Path, pair: Pair) -> Tested:
    said: list[str] = []
    lines = Lines(said.append)
    lines.may_hold([pair])
    name, seconds = deliver.command[0], deliver.timeout_seconds
    try:
        program = Program(deliver.command, folder)
    except OSError as error:
        return Tested(works=False, lines=(f"{name} cannot be run ({error.strerror})",))
    answers: list[Answer] = []
    try:
        program.give([as_line(pair)])
        program.finish()
        moved = time.monotonic()
        while program.code is None and time.monotonic() - moved <= seconds:
            heard = program.turn(TURN_SECONDS)
            more = [answer for answer in lines.answers(heard) if answer.pair_id == pair.pair_id]
            answers += more[: 1 - len(answers)]
            moved = time.monotonic() if heard.read or more else moved
        code = program.code
    finally:
        program.close()
    return _told(
        name, answers, (*(f"{name} says: {line}" for line in said), f"{name} {how_it_ended(code, seconds)}"), pair
    )


def _told(name: str, answers: Sequence[Answer], more: tuple[str, ...], pair: Pair) -> Tested:
    if not answers:
        return Tested(works=False, lines=(f"{name} did not acknowledge {pair.pair_id}", *more))
    if (error := answers[0].error) is None:
        return Tested(works=True, lines=(f"{name} acknowledged {pair.pair_id}", *more))
    return Tested(works=False, lines=(f"{name} refused {pair.pair_id}: {refusal(error, pair.secrets)}", *more))
