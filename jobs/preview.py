"""The commands beside a run: `plan`, which writes nothing, and `report`, which renders again what the ledger holds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from jobs.apps import load_apps
from jobs.core.clock import utc, utc_now
from jobs.core.errors import UserError, refuse
from jobs.failed_set import failed_set_changed
from jobs.folder import alone, patience_for_reports
from jobs.opening import (
    LEDGER,
    is_begun,
    must_hold_ledger,
    open_ledger,
    reading,
    refuse_another,
    refuse_unknown_tokens,
)
from jobs.plan import make_plan, with_apps
from jobs.reach import served
from jobs.records import last_run
from jobs.rendering import render_from
from jobs.reports.messages import load_messages
from jobs.schema import at_one_moment, usual_wait
from jobs.standing import under_way
from jobs.start import MESSAGES, environment_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from jobs.core.model import Route, Run
    from jobs.ledger import Ledger
    from jobs.plan import Plan
    from jobs.start import Start


def preview(start: Start, output: Path, routes: Sequence[Route], before: str = "") -> Plan:
    """What a run by these routes would do, which takes again what was recovered `before` (see `Wishes`).

    Raises UserError where it could not start.
    """
    path = output / LEDGER
    with reading(path) as ledger:
        if is_begun(path):
            with ledger.engine.connect() as connection:
                refuse_another(connection, path, start.base_url)
            refuse_unknown_tokens(output, ledger)
        count = ledger.stage(with_apps(start.manifest.rows(), start.apps))
        groups = ledger.staged(before)
        plan = make_plan(count, ledger.duplicate_lines(), ledger.broken_lines, groups, start.needed)
        companies = start.manifest.with_companies
        reach = ledger.ask(lambda found: served(found, start.needed, routes, utc(), before, with_companies=companies))
        return replace(plan, routes=reach, warnings=start.warnings)


def report_again(
    folder: Path,
    project: Path,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    cut_short: int | None = None,
) -> tuple[Run, bool]:
    """The run, and whether other installs are failed than when a run last ended, once the reports of `folder` are rendered.

    A second signal has just `cut_short` the run with this exit code, if it is given; else that question is not asked.
    `say` tells a person what is waited for, and which messages are left out. Raises FileError, and UserError where it
    holds no ledger.
    """
    must_hold_ledger(folder)
    try:
        apps = load_apps(project, environment_of(project, environment)).known
    except UserError:
        apps = {}  # The reports need them for the reinstall links alone.
    messages = load_messages(project / MESSAGES)
    for warning in messages.warnings if cut_short is None else ():
        say(warning)
    ledger = open_ledger(folder, "", usual_wait(say))
    try:
        with alone(folder, patience_for_reports(say)):
            if cut_short is not None:
                _end(ledger, cut_short)
            with at_one_moment(ledger.engine) as connection:
                run = _as_it_stands(connection)
                if run is None:
                    raise refuse("holds no run yet", str(folder), "run the job first")
                render_from(connection, folder, ledger, run, apps, messages)
            return run, cut_short is not None and failed_set_changed(ledger.engine)
    finally:
        ledger.close()


def _as_it_stands(connection: Connection) -> Run | None:
    """The last run, counted where it has not ended."""
    run = last_run(connection)
    return run if run is None or run.finished_at else under_way(connection, run)


def _end(ledger: Ledger, code: int) -> None:
    """Remember that the last run was ended by a signal, where it has not ended."""
    with at_one_moment(ledger.engine) as connection:
        run = _as_it_stands(connection)
    if run is not None and not run.finished_at:
        ledger.save_run(replace(run, finished_at=utc_now(), exit_code=code, stopped_because="signal"))
