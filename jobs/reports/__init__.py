"""From records to the files that a run leaves. Reports take values, never the ledger itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from jobs.reports import page, summary, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from jobs.model import App, Cause, Record, Run


@dataclass(frozen=True, slots=True)
class Source:
    """What reports are made of. `columns` are the user's; the others give records in manifest order, again and again."""

    columns: tuple[str, ...]
    records: Callable[[], Iterator[Record]]
    failures: Callable[[], Iterator[Record]]
    failures_by_cause: Callable[[Cause], Iterator[Record]]


def write_all(
    source: Source,
    run: Run,
    apps: Mapping[str, App],
    replace: Callable[[str], AbstractContextManager[BinaryIO]],
) -> None:
    """Write every report. `replace` gives the file that takes the place of one when its block ends well."""
    with replace("results.csv") as file:
        tables.write_results(file, source.columns, source.records())
    with replace("failures.csv") as file:
        tables.write_failures(file, source.columns, source.failures(), apps)
    with replace("failures.html") as file:
        page.write(file, run, source.columns, source.failures_by_cause, apps)
    with replace("summary.json") as file:
        summary.write(file, run)
