"""What a person sees of a run: its start, what happens, its end. Progress goes to standard error."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from jobs.causes import ADVICE
from jobs.errors import EXIT_WORDS, Exit
from jobs.model import Cause, Failed, Install, Outcome, Recovered, Run, ThisRun
from jobs.plan import tell

if TYPE_CHECKING:
    from pathlib import Path

    import structlog

    from jobs.logs import Net
    from jobs.plan import Plan
    from jobs.start import Start
    from jobs.work import Progress

_HEARTBEAT_SECONDS = 60.0


class Terminal:
    """Says what goes on. `quiet` says nothing where all is well."""

    def __init__(
        self, out: Net, err: Net, logger: structlog.typing.FilteringBoundLogger, *, quiet: bool, as_json: bool
    ) -> None:
        self._out = out
        self._err = err
        self._logger = logger
        self._quiet = quiet
        self._as_json = as_json
        self._began = self._beat = time.monotonic()

    def _say(self, line: str) -> None:
        if not self._quiet and not self._as_json:
            self._err.write(line + "\n")

    def started(self, plan: Plan, start: Start, folder: Path, ages: tuple[str, str]) -> None:
        """Say what is there to do, what is left alone, and where the files go."""
        secrets = [app.client_secret for app in start.apps.known.values()]
        self._out.guard(secrets)
        self._err.guard(secrets)
        if not self._quiet:
            self._logger.debug("run_started", input=str(start.manifest.path), to_do=plan.to_do)
        for warning in start.apps.warnings:
            self._say(f"warning: {warning}")
        if start.manifest.left_out:
            self._say(f"columns that the reports write themselves are left out: {', '.join(start.manifest.left_out)}")
        for line in tell(plan, start.settings.pace.requests_per_second):
            self._say(line)
        if plan.recovered:
            self._say(f"the recoveries left alone are of {ages[0]} to {ages[1]}")
        self._say(f"files go to {folder}; Ctrl-C stops gently")

    def ended(self, progress: Progress, this_run: ThisRun) -> None:
        """Say how installs ended, and each minute how far the run is."""
        if self._quiet:
            return
        for install, outcome in progress.ended:
            self._tell(install, outcome)
        moment = time.monotonic()
        if moment - self._beat >= _HEARTBEAT_SECONDS:
            self._beat = moment
            rate = this_run.requests / max(moment - self._began, 1e-9)
            self._logger.info(
                "progress",
                done=this_run.attempted,
                total=progress.total,
                recovered=this_run.recovered,
                failed=this_run.failed,
                requests_per_second=round(rate, 1),
                held_back=progress.held is not None,
            )

    def _tell(self, install: Install, outcome: Outcome) -> None:
        ids = {"client_id": install.key.client_id, "user_type": install.key.level.value, "id": install.key.account_id}
        if isinstance(outcome, Recovered):
            self._logger.info("recovered", **ids, attempt=outcome.attempts, trace_id=outcome.tokens.trace_id)
        elif isinstance(outcome, Failed):
            self._logger.warning(
                "failed",
                **ids,
                cause=outcome.cause.value,
                stage=outcome.stage.value,
                http_status=outcome.http_status,
                message=outcome.message,
                attempt=outcome.attempts,
                trace_id=outcome.trace_id,
            )

    def finished(self, run: Run, folder: Path, *, nothing_to_do: bool) -> None:
        """Say how the run ended, what stands, and what to do next; the exit code in words comes last."""
        if self._quiet and not run.exit_code:
            return
        out = self._err if self._quiet else self._out
        for line in self._closing(run, folder, nothing_to_do=nothing_to_do):
            out.write(line + "\n")

    @staticmethod
    def _closing(run: Run, folder: Path, *, nothing_to_do: bool) -> list[str]:
        counts, this_run = run.counts, run.this_run
        lines = ["nothing to do: what can be tried is recovered already"] if nothing_to_do else []
        lines.append(
            f"{counts.recovered:,} of {counts.installs:,} installs are back, {counts.failed:,} failed, "
            f"{counts.pending:,} are pending ({this_run.recovered:,} recovered in this run, {this_run.requests:,} requests)"
        )
        for cause, count in sorted(run.failures_by_cause.items(), key=lambda item: -item[1]):
            advice = ADVICE[Cause(cause)]
            lines.append(f"  {cause}: {count:,}, next: {advice.owner.value}. {advice.next_step}")
        lines.append(f"tokens: {folder / 'results.csv'}")
        if counts.failed:
            lines.append(f"for support staff: {folder / 'failures.html'} and {folder / 'failures.csv'}")
        if run.retryable:
            lines.append(f"{run.retryable:,} may come back by themselves: run the same command again")
        code = Exit(run.exit_code or 0)
        met = f" ({run.stopped_because}: {run.met})" if run.met else ""
        lines.append(f"exit {int(code)}: {EXIT_WORDS[code]}{met}")
        return lines
