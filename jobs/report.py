"""The story of `report`, and the end of every run: each report is rendered from the ledger and moved into place whole."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from jobs.config.apps import load_apps
from jobs.config.settings import ReportsSettings
from jobs.core.clock import utc_now
from jobs.core.errors import UserError, refuse
from jobs.ledger import support_queries
from jobs.ledger.changes import changes
from jobs.ledger.counts import as_it_stands, under_way
from jobs.ledger.failed_set import failed_set_changed
from jobs.ledger.opening import RESULTS
from jobs.ledger.reads import failures, last_run, records, user_columns
from jobs.ledger.refusals import UnwritableError, usual_wait
from jobs.ledger.sealed import is_sealed, refuse_half_sealed
from jobs.ledger.unwritten import notice
from jobs.manifest.redaction import Redactor
from jobs.monitor import note, write_end
from jobs.reports import summary
from jobs.reports.earlier import refuse_unknown_tokens
from jobs.reports.files import REPORTS, SUMMARY, WORKBOOK, Source, write_all
from jobs.reports.messages import load_messages
from jobs.reports.page import Worklist
from jobs.reports.workbook import why_left_out
from jobs.start import MESSAGES, environment_of, place_of, section_of
from jobs.system.files import clear_left_behind, remove, replacing, scratch_folder
from jobs.system.locks import alone, patience_for_reports
from jobs.system.output_folder import make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from jobs.core.model import App, Cause, DeliveryReport, Run
    from jobs.ledger.ledger import Ledger
    from jobs.reports.messages import Messages


def render(
    folder: Path, ledger: Ledger, run: Run, apps: Mapping[str, App], messages: Messages, *, workbook: bool
) -> Sequence[str]:
    """Write every report of `folder`. The caller must hold `alone` since before it read `run`.

    Returns what a person should know about them, a line each. Raises OSError, and UserError if results.csv holds pairs
    that would be lost.
    """

    def once() -> Sequence[str]:
        with ledger.at_one_moment() as connection:
            return render_from(connection, folder, run, apps, messages, workbook=workbook)

    try:
        return ledger.wait.for_database(once)  # All that is left of a run must not fail for a short restart.
    except UnwritableError:
        with replacing(folder / SUMMARY) as file:
            summary.write(file, run)  # The summary does not need the ledger.
        raise


def render_from(
    connection: Connection, folder: Path, run: Run, apps: Mapping[str, App], messages: Messages, *, workbook: bool
) -> Sequence[str]:
    """The same, for the moment that `connection` sees. `run` was counted at that moment too."""
    stars = Redactor()
    source = Source(
        columns=user_columns(connection),
        sealed=is_sealed(connection),
        records=lambda: records(connection),
        failures=lambda: map(stars, failures(connection)),
        worklist=_worklist(connection, stars),
    )

    @contextmanager
    def in_place(name: str) -> Iterator[BinaryIO]:
        if name == RESULTS:
            refuse_unknown_tokens(connection, folder)
        with replacing(folder / name) as file:
            yield file

    left_out = why_left_out(source.columns, source.worklist) if workbook else ""
    with_workbook = workbook and not left_out
    for name in REPORTS:
        clear_left_behind(folder, name)  # A report that was killed left it.
    if not with_workbook:
        remove(folder / WORKBOOK)  # An older one must not stay beside newer reports.
    write_all(
        source, run, apps, messages, in_place, partial(scratch_folder, folder / WORKBOOK) if with_workbook else None
    )
    starred = (
        f"values that look like tokens or secrets are starred in the reports of failures: {', '.join(stars.columns)}"
    )
    return [*([starred] if stars.columns else []), *([f"{WORKBOOK} is left out: {left_out}"] if left_out else [])]


def _worklist(connection: Connection, stars: Redactor) -> Worklist:
    def by_company(cause: Cause) -> Iterator[support_queries.Listed]:
        return (
            replace(listed, record=stars(listed.record)) for listed in support_queries.by_company(connection, cause)
        )

    return Worklist(
        tallies=support_queries.tallies(connection),
        changes=changes(connection),
        by_company=by_company,
        fixed=lambda: map(stars, support_queries.fixed(connection)),
        evidence=support_queries.evidence(connection),
    )


class CutShort(NamedTuple):
    """A run that a second signal has just ended with this exit code. Its ledger does not know how many requests were made,
    and how many of them were answered with 429. Its `lease` is ended before the reports are made.
    """

    code: int
    requests: int
    rate_limited: int
    lease: str


def report_again(
    folder: Path,
    project: Path,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    cut_short: CutShort | None = None,
) -> tuple[Run, bool]:
    """The run, and whether the set of failed installs has changed since a run last ended. Renders the reports of `folder`.

    `cut_short` is the run that a second signal has just ended. Without it, nobody asks about the change, and the answer is
    False. `say` tells a person what the job waits for and which messages are left out. Raises FileError, and UserError if the
    folder has no ledger.
    """
    lease = cut_short.lease if cut_short else ""
    place = place_of(project, environment, folder)
    with ExitStack() as held:
        with ExitStack() as first:
            first.callback(place.end_lease, lease)  # Whatever goes wrong: nobody else will end it.
            place.must_exist()
            make_folder(folder)  # The ledger may be in a database, and the folder on another machine.
            apps = _apps(project, environment)
            messages = load_messages(project / MESSAGES)
            for warning in (*messages.warnings, *notice(folder)) if cut_short is None else ():
                say(warning)
            ledger = place.open_beside(usual_wait(say), lease)
            held.callback(ledger.close)
            ledger.ask(partial(refuse_half_sealed, folder=folder))
            changed = cut_short is not None and _ended(ledger, cut_short)
        with alone(folder, patience_for_reports(say)):
            with ledger.at_one_moment() as connection:
                run = _known(_as_it_stands(connection), folder)
                told = render_from(connection, folder, run, apps, messages, workbook=_workbook(project, environment))
            for line in told:
                say(line)
            if cut_short is not None:
                write_end(ledger, folder, project, environment, run, say)
            return run, changed


def render_with(
    ledger: Ledger,
    folder: Path,
    project: Path,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    delivery: DeliveryReport | None,
) -> Run:
    """The last run with what was delivered since, once the reports of `folder` are rendered. Raises as `report_again`."""
    with alone(folder, patience_for_reports(say)):
        with ledger.at_one_moment() as connection:
            run = _known(last_run(connection), folder)
            run = replace(run, delivery=delivery or run.delivery)
            run = as_it_stands(connection, run, run.counts.rows) if run.finished_at else under_way(connection, run)
        ledger.save_run(run)
        apps, messages = _apps(project, environment), load_messages(project / MESSAGES)
        for line in render(folder, ledger, run, apps, messages, workbook=_workbook(project, environment)):
            say(line)
        note({"undelivered_installs": run.counts.undelivered}, folder, project, environment, say)
        return run


def _workbook(project: Path, environment: Mapping[str, str]) -> bool:
    """Whether the settings ask for failures.xlsx."""
    return section_of(ReportsSettings, project, environment).workbook


def _apps(project: Path, environment: Mapping[str, str]) -> Mapping[str, App]:
    """The apps, which the reports need for the reinstall links alone."""
    try:
        return load_apps(project, environment_of(project, environment)).known
    except UserError:
        return {}


def _known(run: Run | None, folder: Path) -> Run:
    """The run, if there is one. Raises UserError."""
    if run is None:
        raise refuse("has no run yet", str(folder), "run the job first")
    return run


def _as_it_stands(connection: Connection) -> Run | None:
    """The last run. If it has not ended, its counts are up to date."""
    run = last_run(connection)
    return run if run is None or run.finished_at else under_way(connection, run)


def _ended(ledger: Ledger, cut_short: CutShort) -> bool:
    """Whether the set of failed installs has changed. Records that a signal ended the last run, unless it has already ended."""
    with ledger.at_one_moment() as connection:
        run = _as_it_stands(connection)
    if run is not None and not run.finished_at:
        this_run = replace(run.this_run, requests=cut_short.requests)
        run = replace(run, this_run=this_run, rate_limited=cut_short.rate_limited)
        ledger.save_run(replace(run, finished_at=utc_now(), exit_code=cut_short.code, stopped_because="signal"))
    return failed_set_changed(ledger)
