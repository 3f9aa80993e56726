"""The story of `purge`: forget the token pairs that were delivered, or all of them, in every file of a folder."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from jobs.core.clock import utc_now
from jobs.core.plurals import counted
from jobs.ledger import purging, scrubbing
from jobs.ledger.deliveries import how_many_wait
from jobs.ledger.engines import Purpose
from jobs.ledger.sealed import is_sealed
from jobs.report import render_with
from jobs.reports.files import OPENED
from jobs.start import open_whole, place_of
from jobs.system.files import clear_left_behind, remove
from jobs.system.locks import alone, patience_for_reports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


def purge(
    folder: Path,
    project: Path,
    environment: Mapping[str, str],
    *,
    everything: bool,
    sure: Callable[[str], None],
    say: Callable[[str], None],
) -> Iterator[str]:
    """Forget pairs in `folder`. Yields lines for a person, and asks whether the person is `sure` before a pair is
    lost.

    Raises UserError and FileError. It may be killed at any moment: when run again, it finishes what it began.
    """
    place = place_of(project, environment, folder)
    with ExitStack() as held:
        ledger = open_whole(held, place, "recover purge", say)
        lost = ledger.ask(how_many_wait, Purpose.ONE_MOMENT) if everything else 0
        if lost:
            what = counted(lost, "pair was", "pairs were")
            sure(f"{what} not delivered: without them these customers must install your app again")
        removed = ledger.ask(is_sealed) and remove(folder / OPENED)  # First: it is known by the pairs that go now.
        count = ledger.write(partial(purging.forget, everything=everything, at=utc_now()), Purpose.BULK)
        with alone(folder, patience_for_reports(say)):
            clear_left_behind(folder)
        render_with(ledger, folder, project, environment, say, None)
        # Done every time, since an earlier purge may have been killed here.
        scrubbing.scrub(ledger, scrubbing.PURGE)
    yield f"{counted(count, 'pair is', 'pairs are')} forgotten in {folder}: in the ledger and in results.csv"
    if removed:
        yield f"{folder / OPENED} is removed, since it held open pairs"
    if place.left_behind:
        yield f"{place.left_behind} was moved into the database, and still holds the pairs it had: remove it"
    yield "backups and earlier copies of that folder are yours to find and remove; they may still hold them"
    if place.in_database:
        yield "so are the database's own log (WAL), its replicas and its backups"
