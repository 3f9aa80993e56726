"""Turns records into the files that a run leaves. Reports take values, never the ledger itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from jobs.core.errors import UserError
from jobs.reports import page, summary, tables, workbook
from jobs.reports.groups import PageContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from jobs.core.model import App, Record, Run
    from jobs.reports.messages import Messages

    Scratch = Callable[[], AbstractContextManager[Path]]

SUMMARY = "summary.json"
OPENED = "opened.csv"
"""What `recover open` leaves in a folder. A run does not make it."""
WORKBOOK = "failures.xlsx"
REPORTS = ("results.csv", "failures.csv", "failures.html", WORKBOOK, SUMMARY)


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
    scratch: Scratch | None,
) -> None:
    """Write every report. `replace` gives a new file that replaces the report when its block ends without an error.

    `scratch` gives a private folder for the temporary files of the workbook. Without it, the workbook is left out.
    If one report cannot be written, the others still are. Then the first OSError or UserError is raised.
    """
    errors: list[Exception] = []
    for name, write in _writers(source, run, apps, messages, scratch).items():
        try:
            with replace(name) as file:
                write(file)
        except (OSError, UserError) as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _writers(
    source: Source, run: Run, apps: Mapping[str, App], messages: Messages, scratch: Scratch | None
) -> dict[str, Callable[[BinaryIO], None]]:
    """What writes each report, in the order of `REPORTS`."""
    columns, worklist = source.columns, source.worklist
    writers: dict[str, Callable[[BinaryIO], None]] = {
        "results.csv": lambda file: tables.write_results(file, columns, source.records(), sealed=source.sealed),
        "failures.csv": lambda file: tables.write_failures(file, columns, source.failures(), apps),
        "failures.html": lambda file: page.write(file, run, worklist, PageContext(columns, apps, messages)),
    }
    if scratch is not None:
        writers[WORKBOOK] = partial(_write_workbook, scratch, source, run, apps)
    return {**writers, SUMMARY: lambda file: summary.write(file, run)}


def _write_workbook(scratch: Scratch, source: Source, run: Run, apps: Mapping[str, App], file: BinaryIO) -> None:
    with scratch() as folder:
        workbook.write(file, run, source.columns, source.worklist, apps, folder)
