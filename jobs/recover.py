"""One run, from the list of installs to the reports."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from jobs.core.clock import utc_now
from jobs.core.errors import Exit, UserError
from jobs.core.file_errors import FileError, problem_of
from jobs.core.model import Cause, Failed, Recovered, Run, ThisRun
from jobs.deliver import courier_for, end_courier, hand_over_rest
from jobs.ledger import unwritten
from jobs.ledger.counts import as_it_stands, count_pairs, recovery_ages
from jobs.ledger.deliveries import free, let_tries_go_first
from jobs.ledger.engines import Purpose
from jobs.ledger.failed_set import failed_set_changed
from jobs.ledger.moved_folder import anchor, bring_back
from jobs.ledger.place import Place
from jobs.ledger.refusals import DatabaseRefusedError, usual_wait
from jobs.ledger.sealed import refuse_mixed
from jobs.monitor import Latest, monitor_of
from jobs.outgoing.ping import Watcher
from jobs.recovery.stop import OF_THE_LEDGER, Left, Stop, end_of, remaining
from jobs.report import render
from jobs.reports.earlier import refuse_unknown_tokens
from jobs.reports.files import REPORTS, SUMMARY
from jobs.start import PROJECT, hold_apps, plan_of, staged
from jobs.system.descriptors import refuse_few_descriptors
from jobs.system.files import clear_left_behind
from jobs.system.locks import LOCK, alone, hold, patience_for_reports
from jobs.system.output_folder import make_folder, refuse_folders, reserve, warnings_of
from jobs.system.report_process import ReportBeside, leave_reports
from jobs.system.signals import on_signals
from jobs.terminal.header import Opening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from jobs.ledger.ledger import Ledger
    from jobs.outgoing.deliver.courier import Courier
    from jobs.recovery.runner import Progress
    from jobs.sealing.opener import Opener
    from jobs.start import Plan, RunOptions, Start
    from jobs.terminal.terminal import Terminal


def recover(start: Start, output: Path, options: RunOptions, terminal: Terminal) -> Exit:
    """One run: hold the folder, read the manifest, plan, enrol, try, report. Raises UserError before anything is sent."""
    stop = Stop(time.monotonic, time.monotonic() + (math.inf if options.max_duration is None else options.max_duration))
    began = utc_now()
    with ExitStack() as held:
        folder = make_folder(output)
        place = Place(folder, start.base_url, start.settings.ledger)
        ledger, make_room = _take(start, place, held, terminal)
        plan, todo = _enrol(start, ledger, options, began, place, terminal.warn)
        latest = Latest(_begin(start, ledger, plan, options, began))
        terminal.started(_opening(start, folder, plan, todo, ledger, options))
        in_place, beside = anchor(place), ReportBeside(folder)
        cut_short = partial(_cut_short, terminal, start.manifest.path, beside, latest, ledger.lease)
        held.enter_context(on_signals(stop.signal, cut_short))
        held.enter_context(monitor_of(start.settings.metrics, PROJECT, folder, ledger, latest, terminal.warn))
        courier = _open_courier(start, ledger, options.opener)
        try:
            _tell_watcher(start, latest.run, terminal)
            for progress in _work(start, place, ledger, todo, options, stop, make_room):
                latest.run, latest.held = _count(latest.run, progress), progress.held
                _tell_deliveries(courier, terminal)
                terminal.ended(progress, latest.run.this_run, signalled=stop.signalled)
                _look_after(stop, progress, beside, in_place)
            _deliver_rest(courier, ledger, stop, terminal)
        except OSError as error:
            _stop_for(stop, error)
        except Exception:
            stop.ask("bug", Exit.BUG)
            raise
        finally:  # None of these steps raises because of a bad disk, so all of them are taken.
            make_room()
            run = replace(latest.run, delivery=end_courier(courier) or latest.run.delivery)
            terminal.reporting()
            beside.end()
            there = in_place() or _bring_back(ledger, place, stop)
            run = _finish(_counted(run, plan, ledger, stop) if there else run, stop, sum(todo.values()))
            run = _with_hints(run, start, terminal.warn)
            latest.run = run = _report(run, folder, ledger, start, terminal) if there else run
            terminal.finished(run, folder, start.manifest.path, changed=failed_set_changed(ledger))
    return Exit(run.exit_code or 0)


def _tell_watcher(start: Start, run: Run, terminal: Terminal) -> None:
    """Tell whoever watches over the runs that this one has started."""
    for warning in Watcher(start.settings.ping.url, start.environment).started(run.run_id):
        terminal.warn(warning)


def _look_after(stop: Stop, progress: Progress, beside: ReportBeside, in_place: Callable[[], bool]) -> None:
    """Begin reports when a signal came, and stop when the folder is gone."""
    if stop.signalled and progress.in_flight:
        beside.begin()
    if not in_place():
        gone = f"{beside.folder} was moved or removed while the run was under way"
        stop.ask("disk", Exit.STOPPED_EARLY, gone)


def _open_courier(start: Start, ledger: Ledger, opener: Opener | None) -> Courier | None:
    """What hands pairs over beside the run, under way; None without a target."""
    courier = courier_for(start.settings, ledger, start.environment, start.manifest.columns, opener)
    if courier is not None:
        ledger.write(let_tries_go_first, Purpose.BULK)
        courier.start()
    return courier


def _tell_deliveries(courier: Courier | None, terminal: Terminal) -> None:
    """More may wait to be handed over now; say what became of the pairs before."""
    if courier is not None:
        courier.nudge()
        terminal.handed_over(courier)


def _deliver_rest(courier: Courier | None, ledger: Ledger, stop: Stop, terminal: Terminal) -> None:
    """Hand over what still waits, now that nothing is tried any more."""
    if courier is not None:
        ledger.write(free, Purpose.BULK)
        hand_over_rest(courier, stop, terminal)


def _stop_for(stop: Stop, error: OSError) -> None:
    """Stop because the system refused something. An error that a person cannot act on is a bug, and is raised again."""
    refused = problem_of(error)
    if refused is None:
        stop.ask("bug", Exit.BUG)
        raise error
    because = _because(error)
    if stop.because in {"", "bug"}:  # Any exception is taken for a bug until it has been examined.
        stop.must(because, Exit.STOPPED_EARLY, str(refused))


def _because(error: OSError | UserError) -> str:
    """The reason a run gives that this error stops."""
    return error.because if isinstance(error, FileError) else FileError.because


def _bring_back(ledger: Ledger, place: Place, stop: Stop) -> bool:
    """Whether the missing folder could be made again. If not, the reason for the stop says what the folder held."""
    try:
        bring_back(ledger, place)
    except OSError as error:
        pairs = "its"
        with suppress(OSError):
            pairs = f"its {ledger.ask(count_pairs)}"
        left = f"{pairs} pairs are where the folder was moved to, or lost if it was removed"
        stop.must(FileError.because, Exit.STOPPED_EARLY, f"{stop.met}; it cannot be made again ({error}); {left}")
        return False
    return True


def _cut_short(
    terminal: Terminal, manifest: Path, beside: ReportBeside, latest: Latest, lease: str, code: Exit
) -> None:
    terminal.cut_short(code)
    beside.end()
    command = terminal.next_command(manifest, beside.folder, latest.run.recovered_before)
    leave_reports(beside.folder, code, command, latest.run, lease)


def _take(start: Start, place: Place, held: ExitStack, terminal: Terminal) -> tuple[Ledger, Callable[[], None]]:
    """The ledger, and what frees the disk space that was reserved. The folder and the apps are locked."""
    folder, me = place.folder, f"the run on {start.manifest.path}"
    holder = f"{me} that began {utc_now()}"
    held.enter_context(hold(folder / LOCK, str(folder), holder))
    refuse_folders(folder, REPORTS)
    for warning in warnings_of(folder):
        terminal.warn(warning)
    with alone(folder, patience_for_reports(terminal.waits)):
        clear_left_behind(folder)
    hold_apps(held, start, start.needed, holder)  # Before the ledger, which a run that is refused must leave as it was.
    make_room = held.enter_context(reserve(folder))
    ledger = place.open(usual_wait(terminal.waits), me, start.needed)
    held.callback(ledger.close)
    ledger.ask(partial(refuse_mixed, folder=folder, seals=bool(start.sealed_for)), Purpose.ONE_MOMENT)
    ledger.ask(partial(refuse_unknown_tokens, folder=folder), Purpose.ONE_MOMENT)
    refuse_few_descriptors()
    return ledger, make_room


def _enrol(
    start: Start, ledger: Ledger, options: RunOptions, began: str, place: Place, say: Callable[[str], None]
) -> tuple[Plan, dict[str, int]]:
    """The plan, and how many installs of each app are lined up to be tried. The manifest is enrolled. Pairs that waited for
    its installs are in the ledger, so that these installs are not tried.
    """
    before, columns = options.recovered_before, start.manifest.columns
    aside = unwritten.pairs_in(place.folder, start.base_url)
    with ledger.enrolling() as manifest:
        rows = staged(start, manifest)
        manifest.enrol(columns, began, with_companies=start.manifest.with_companies)
        taken = unwritten.record(manifest.connection, aside, delivers=ledger.delivers, folder=place.folder)
        refuse_mixed(manifest.connection, place.folder, seals=bool(start.sealed_for))
        plan = replace(plan_of(start, manifest, rows, before, options.causes), ledger=ledger.last_use)
        plan = replace(plan, sealed_for=start.sealed_for)
        manifest.refuse_unknown_apps(start.apps.known, began, before)
        todo = manifest.line_up(start.needed, before=before, causes=options.causes)
    unwritten.leave(place.folder, aside, taken.unknown)
    for line in unwritten.told(place.folder, taken):
        say(line)
    return plan, todo


def _begin(start: Start, ledger: Ledger, plan: Plan, options: RunOptions, began: str) -> Run:
    """The run as it begins. It is saved, since somebody may ask for a report before it ends."""
    this_run = ThisRun(already_recovered=plan.recovered)
    source, before = start.manifest.path_in_reports, options.recovered_before
    run = Run(uuid4().hex, source, start.base_url, began, this_run=this_run, recovered_before=before)
    run = ledger.ask(lambda connection: as_it_stands(connection, run, plan.rows), Purpose.ONE_MOMENT)
    ledger.save_run(run)
    return run


def _opening(
    start: Start, folder: Path, plan: Plan, todo: dict[str, int], ledger: Ledger, options: RunOptions
) -> Opening:
    """What a person is told before the first request."""
    to_do = sum(todo.values())
    to_try = to_do if options.limit is None else min(to_do, options.limit)
    before, pace = options.recovered_before, start.settings.pace.requests_per_second
    ages = ledger.ask(partial(recovery_ages, before=before), Purpose.ONE_MOMENT)
    return Opening(start.manifest.path, folder, plan, len(todo), to_try, ages, pace, options.causes, before)


def _work(
    start: Start,
    place: Place,
    ledger: Ledger,
    todo: dict[str, int],
    options: RunOptions,
    stop: Stop,
    make_room: Callable[[], None],
) -> Iterator[Progress]:
    if todo:
        from jobs.recovery.runner import work  # slow to import, and not needed if there is nothing to do

        aside = partial(unwritten.set_aside, place.folder, start.base_url) if place.in_database else None
        yield from work(start, ledger, todo, options, stop, make_room, aside)


def _count(run: Run, progress: Progress) -> Run:
    """The run with what it has done by now."""
    back, so_far = [outcome for _, outcome in progress.ended if isinstance(outcome, Recovered)], run.this_run
    recovered = sum(not outcome.renews for outcome in back)
    failed = sum(isinstance(outcome, Failed) for _, outcome in progress.ended)
    this_run = replace(
        so_far,
        attempted=so_far.attempted + failed + sum(not outcome.stray for outcome in back),
        recovered=so_far.recovered + recovered,
        failed=so_far.failed + failed - sum(outcome.undoes for outcome in back),
        requests=progress.requests,
    )
    return replace(run, this_run=this_run, rate_limited=progress.rate_limited)


def _counted(run: Run, plan: Plan, ledger: Ledger, stop: Stop) -> Run:
    """The run with the installs counted as they stand now, or as they stood at its start if the ledger cannot be read."""
    try:
        return ledger.ask(lambda connection: as_it_stands(connection, run, plan.rows), Purpose.ONE_MOMENT)
    except OSError as error:
        if (refused := problem_of(error)) is None:
            raise
        what = "the counts are those of the start, since the ledger could not be read"
        unread = what if str(refused) in stop.met else f"{refused}; {what}"
        met = "; ".join(filter(None, [stop.met, unread]))
        stop.refused(_because(error), met, kept=isinstance(error, DatabaseRefusedError))
        return run


def _finish(run: Run, stop: Stop, lined_up: int) -> Run:
    """The run with its end: when, with which exit code, and why."""
    left = remaining(run.this_run.attempted, lined_up, run.counts.pending)
    counts = run.counts
    if stop.because == "time_limit" and counts.undelivered and left is Left.NOTHING:
        left = Left.SOME
    failed = bool(counts.failed or run.this_run.failed or run.kept or counts.undelivered)
    code = end_of(stop.because, stop.code, left, failed=failed)
    stopped = bool(stop.because) and code not in {Exit.OK, Exit.SOME_FAILED}
    return replace(
        run,
        finished_at=utc_now(),
        exit_code=int(code),
        stopped_because=stop.because if stopped and code is not Exit.BUG else None,
        met=stop.met if stopped else "",
    )


def _with_hints(run: Run, start: Start, say: Callable[[str], None]) -> Run:
    """The run. If credentials were refused, it also says what may be wrong with them."""
    hints = "; ".join(hint for client_id, hint in start.apps.hints.items() if client_id in start.needed)
    if hints and run.stopped_because == Cause.CREDENTIALS_REJECTED:
        return replace(run, met=f"{run.met}; {hints}")
    if hints and Cause.CREDENTIALS_REJECTED in run.failures_by_cause:
        say(f"HighLevel refused credentials: {hints}")
    return run


def _without_reports(run: Run, folder: Path, error: OSError | UserError) -> Run:
    """The run whose reports could not be written. A signal keeps its code if a database is at fault, which holds everything."""
    of_database = isinstance(error, DatabaseRefusedError)
    by_signal = run.stopped_because == "signal" and of_database
    before = run.met if by_signal or run.stopped_because in OF_THE_LEDGER else ""
    older = [name for name in REPORTS if name != SUMMARY and (folder / name).exists()]
    told = f"{', '.join(older)} may be older than this run" if older and of_database else ""
    words = str(problem_of(error) if isinstance(error, OSError) else error)
    parts = [before, "" if words in before else words, told, f"then run `recover report {folder}`"]
    met = "; ".join(filter(None, parts))
    if by_signal:
        return replace(run, met=met)
    because = run.stopped_because if before else _because(error)
    return replace(run, exit_code=int(Exit.STOPPED_EARLY), stopped_because=because, met=met)


def _report(run: Run, folder: Path, ledger: Ledger, start: Start, terminal: Terminal) -> Run:
    """The run after its reports were written. If the disk refuses a report, that is why the run stopped."""
    workbook = start.settings.reports.workbook
    try:
        with alone(folder, patience_for_reports(terminal.waits)):
            ledger.save_run(run)
            told = render(folder, ledger, run, start.apps.known, start.messages, workbook=workbook)
        for line in told:
            terminal.warn(line)
    except (OSError, UserError) as error:
        if isinstance(error, OSError) and problem_of(error) is None:
            raise
        run = _without_reports(run, folder, error)
        with suppress(OSError):
            ledger.save_run(run)
        with suppress(OSError, UserError), alone(folder, replace(patience_for_reports(terminal.waits), seconds=0)):
            # Reports that can still be written say why the run stopped.
            render(folder, ledger, run, start.apps.known, start.messages, workbook=workbook)
    return run
