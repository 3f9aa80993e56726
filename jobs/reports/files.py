"""Turns records into the files that a run leaves. Reports take values, never the ledger itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from jobs.core.errors import UserError
from jobs.reports import page, summary, tables
from jobs.reports.groups import PageContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from jobs.core.model import App, Record, Run
    from jobs.reports.messages import Messages

SUMMARY = "summary.json"
OPENED = "opened.csv"
"""What `recover open` leaves in a folder. A run does not make it."""
REPORTS = ("results.csv", "failures.csv", "failures.html", SUMMARY)


@dataclass(frozen=True, slots=True)
class Source:
    """What the reports are made from. `columns` are the user's. `records` and `failures` come in manifest order.

    `sealed`: the pairs of the ledger are sealed.
    """

    columns: tuple[str, ...]
    sealed: bool
    records: Callable[[], Iterator[Record]]
    failures: Callable[[], Iterator[Record]]
    worklist: page.Worklist


def write_all(
    source: Source,
    run: Run,
    apps: Mapping[str, App],
    messages: Messages,
    replace: Callable[[str], AbstractContextManager[BinaryIO]],
) -> None:
    """Write every report. `replace` gives a new file that replaces the report when its block ends without an error.

    If one report cannot be written, the others still are. Then the first OSError or UserError is raised.
    """
    errors: list[Exception] = []
    writers: tuple[Callable[[BinaryIO], None], ...] = (
        lambda file: tables.write_results(file, source.columns, source.records(), sealed=source.sealed),
        lambda file: tables.write_failures(file, source.columns, source.failures(), apps),
        lambda file: page.write(file, run, source.worklist, PageContext(source.columns, apps, messages)),
        lambda file: summary.write(file, run),
    )
    for name, write in zip(REPORTS, writers, strict=True):
        try:
            with replace(name) as file:
                write(file)
        except (OSError, UserError) as error:
            errors.append(error)
    if errors:
        raise errors[0]
