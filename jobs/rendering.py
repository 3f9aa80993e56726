"""From the ledger to the reports: each rendered whole, and moved into place."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from jobs.folder import alone, replacing
from jobs.opening import RESULTS, refuse_unknown_tokens
from jobs.records import failures, records, user_columns
from jobs.reports import Source, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from jobs.ledger import Ledger
    from jobs.model import App, Run


def render(folder: Path, ledger: Ledger, run: Run, apps: Mapping[str, App]) -> None:
    """Write every report of `folder`. Raises UserError where results.csv holds what would be lost, and OSError."""
    engine = ledger.engine
    source = Source(
        columns=user_columns(engine),
        records=lambda: records(engine),
        failures=lambda: failures(engine),
        failures_by_cause=lambda cause: failures(engine, cause),
    )

    @contextmanager
    def replace(name: str) -> Iterator[BinaryIO]:
        if name == RESULTS:
            refuse_unknown_tokens(folder, ledger)
        with replacing(folder / name) as file:
            yield file

    with alone(folder):
        write_all(source, run, apps, replace)
