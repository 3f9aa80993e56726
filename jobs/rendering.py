"""From the ledger to the reports: each rendered whole, and moved into place."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from jobs import worklist
from jobs.folder import replacing
from jobs.opening import RESULTS, refuse_unknown_tokens
from jobs.records import failures, records, user_columns
from jobs.reported import changes
from jobs.reports import summary
from jobs.reports.files import SUMMARY, Source, write_all
from jobs.reports.page import Worklist
from jobs.schema import UnwritableError, at_one_moment
from jobs.stars import Stars

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Connection

    from jobs.core.model import App, Cause, Run
    from jobs.ledger import Ledger
    from jobs.reports.messages import Messages


def render(folder: Path, ledger: Ledger, run: Run, apps: Mapping[str, App], messages: Messages) -> tuple[str, ...]:
    """Write every report of `folder`, for who has it `alone` since before `run` was read.

    Returns the user's columns in which failures.* have stars in the place of a secret. Raises UserError where results.csv holds what would be lost, and OSError.
    """
    try:
        with at_one_moment(ledger.engine) as connection:
            return render_from(connection, folder, ledger, run, apps, messages)
    except UnwritableError:
        with replacing(folder / SUMMARY) as file:
            summary.write(file, run)  # It needs no ledger.
        raise


def render_from(
    connection: Connection, folder: Path, ledger: Ledger, run: Run, apps: Mapping[str, App], messages: Messages
) -> tuple[str, ...]:
    """The same, of the moment that `connection` sees, in which `run` was counted too."""
    stars = Stars()
    source = Source(
        columns=user_columns(connection),
        records=lambda: records(connection),
        failures=lambda: map(stars, failures(connection)),
        worklist=_worklist(connection, stars),
    )

    @contextmanager
    def in_place(name: str) -> Iterator[BinaryIO]:
        if name == RESULTS:
            refuse_unknown_tokens(folder, ledger)
        with replacing(folder / name) as file:
            yield file

    write_all(source, run, apps, messages, in_place)
    return tuple(stars.columns)


def _worklist(connection: Connection, stars: Stars) -> Worklist:
    def by_company(cause: Cause) -> Iterator[worklist.Listed]:
        return (replace(listed, record=stars(listed.record)) for listed in worklist.by_company(connection, cause))

    return Worklist(
        tallies=worklist.tallies(connection),
        changes=changes(connection),
        by_company=by_company,
        fixed=lambda: map(stars, worklist.fixed(connection)),
        evidence=worklist.evidence(connection),
    )
