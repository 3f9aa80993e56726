"""What a person or a program sees of a command: its start, what happens, its end.

On a terminal: a header, one live line, the first failure of each cause, and the closing block. Elsewhere: one line
for each event, a heartbeat each minute, and the closing block. Quiet: nothing, or the closing block if something is
wrong.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO, cast

from jobs.core.checks import Check
from jobs.core.clock import utc
from jobs.core.errors import EXIT_WORDS, Exit
from jobs.core.model import Run
from jobs.terminal.checks import CHECK_WORDS, CheckWatch
from jobs.terminal.closing import broken, closing, last_line
from jobs.terminal.deliveries import DeliveryWatch
from jobs.terminal.deliveries import closing as deliveries
from jobs.terminal.events import Event
from jobs.terminal.header import header, nothing_to_do
from jobs.terminal.shell import identity_word, next_command
from jobs.terminal.streams import LATE_SECONDS
from jobs.terminal.voice import Stray, Voice
from jobs.terminal.watch import Watch
from jobs.terminal.words import OPEN_WORDS, SEAL_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from jobs.core.model import Answer, Broken, DeliveryReport, Row, ThisRun
    from jobs.core.secret import Secret
    from jobs.outgoing.deliver.courier import Courier
    from jobs.outgoing.notify import News
    from jobs.recovery.inquiry import Asked, Round
    from jobs.recovery.runner import Progress
    from jobs.terminal.checks import Opening as CheckOpening
    from jobs.terminal.checks import Standing
    from jobs.terminal.header import Opening
    from jobs.terminal.live import LiveScreen
    from jobs.terminal.streams import Stream

_LATE_AT_ONCE_SECONDS = 0.5
_REASONS = dict.fromkeys((Exit.SIGHUP, Exit.SIGINT, Exit.SIGTERM), "signal")
_DUMB = {"", "dumb", "unknown"}


def draws(err: Stream, environment: Mapping[str, str]) -> bool:
    """Whether standard error is a terminal that can move its cursor."""
    return err.isatty() and environment.get("TERM", "") not in _DUMB


class Terminal:
    """Tells people and programs what a command does. `clock` gives monotonic seconds.

    `for_run`: the command is a run. Its log may be JSON, it never waits for a reader, and SIGUSR1 makes it print its
    progress.
    """

    def __init__(
        self,
        out: Stream,
        err: Stream,
        *,
        for_run: bool = False,
        quiet: bool = False,
        as_json: bool = False,
        screen: Callable[[], LiveScreen] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = out
        self._err = err
        self._for_run = for_run
        self._quiet = quiet
        self._clock = clock
        self._voice = Voice(err, quiet=quiet, as_json=as_json, screen=screen() if screen else None)
        self._watch: Watch | None = None
        self._warnings: list[str] = []
        self._options: list[tuple[str, str]] = []
        self._input = ""
        self._begun = self._asked = self._broke = self._unread = False
        self._lost = 0
        self._nothing = ""
        self._run: Run | None = None
        self._folder: Path | None = None
        self._lines: list[str] = []
        self._problems: list[str] = []
        self._changed: bool | None = None
        self._deliveries = DeliveryWatch(self._voice, clock)
        self._delivered: int | None = None
        self._words: Mapping[Exit, str] = EXIT_WORDS
        self._check: CheckWatch | None = None
        self._more: dict[str, object] = {}
        if for_run:
            signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "_asked", True))
            out.unblock()
            err.unblock()

    # -- the start -----------------------------------------------------------------------------------------------

    def begins(self, manifest: Path, options: Iterable[tuple[str, str]]) -> None:
        """Remember the list and the options that the run was started with."""
        self._input, self._options = str(manifest), list(options)
        self._spare(manifest)
        if self._voice.as_json:
            sys.stderr = cast("TextIO", Stray(self.warn))

    def _spare(self, path: Path) -> None:
        """Never hide this path, or a part of it, as if it were a token."""
        for stream in (self._out, self._err):
            stream.spare(path, path.absolute())

    def hides(self, secrets: tuple[Secret, ...]) -> None:
        """Hide these secrets from now on."""
        self._out.guard(secrets)
        self._err.guard(secrets)

    def configured(self, level: str, secrets: Iterable[Secret], warnings: Iterable[str] = ()) -> None:
        """Apply the settings: the log level, the secrets to hide, and the warnings to show at the start."""
        self._voice.level = level
        self.hides(tuple(secrets))
        self._warnings += warnings

    def started(self, opening: Opening) -> None:
        """Say what there is to do, what is left alone, how long it takes, and where the files go."""
        plan, self._folder = opening.plan, opening.folder
        self._spare(opening.folder)
        self._start(
            output=str(opening.folder),
            to_try=opening.to_try,
            installs=plan.installs,
            apps=opening.apps,
            agencies=plan.agencies_to_do,
            duplicates=plan.duplicates,
            duplicate_lines=plan.duplicate_lines,
            broken_lines=plan.broken_lines,
            left_alone=plan.recovered,
            recovered_again=plan.recovered_again,
            oldest_recovery=opening.ages[0],
            newest_recovery=opening.ages[1],
            requests_per_second=opening.requests_per_second,
            seconds=opening.seconds,
            **({"sealed_for": list(plan.sealed_for)} if plan.sealed_for else {}),
            **(asdict(opening.plan.ledger) if opening.plan.ledger else {}),
        )
        if self._voice.screen:
            for line in header(opening, utc()):
                self._voice.screen.say(self._err.scrub(line), "info", whole="/" in line)
            self._voice.screen.say("", "info")
        self._nothing = nothing_to_do(opening, utc())
        self._watch = Watch(self._voice, opening.requests_per_second, self._clock)

    def _start(self, **fields: object) -> None:
        if self._for_run and not self._begun:
            self._begun = True
            self._voice.tell(Event.RUN_STARTED, {"input": self._input, **fields})
            for warning in self._warnings:
                self.warn(warning)

    def warn(self, text: str, *, asked: bool = False) -> None:
        """Show a warning. It waits until the start of the run has been told. `asked`: show it even when quiet."""
        if not self._begun:
            self._warnings.append(text)
            return
        self._voice.warn(text, asked=asked)

    def waits(self, text: str) -> None:
        """Say at once what the command is waiting for. Only in a JSON log does the start of the run come first."""
        if self._begun or self._voice.as_json:
            self.warn(text)
        else:
            self._voice.warn(text)

    # -- while it runs -------------------------------------------------------------------------------------------

    def ended(self, progress: Progress, this_run: ThisRun, *, signalled: bool) -> None:
        """Report the installs that have ended (often none) and the progress. `signalled`: a signal stops the run."""
        assert self._watch is not None
        asked, self._asked = self._asked, False
        self._unread = progress.unread
        self._watch.see(progress, this_run, signalled=signalled, asked=asked, delivered=self._delivered)
        self._tell_lost()

    def _tell_lost(self) -> None:
        if self._err.lost > self._lost:
            lost, self._lost = self._err.lost - self._lost, self._err.lost
            self._voice.tell(
                Event.MESSAGES_LOST,
                {"count": lost},
                f"{lost:,} messages were dropped, because they were not read in time; no install is affected",
            )

    def handed_over(self, courier: Courier) -> None:
        """Say what happened to pairs that were handed over."""
        self._delivered = courier.report.delivered
        self._deliveries.happened(courier.news())
        for line in courier.said():
            self.warn(f"deliver.command: {line}")

    def delivering(self, courier: Courier) -> None:
        """The same, when nothing is tried any more."""
        self.handed_over(courier)
        self._deliveries.delivering(courier.report)

    def delivered(self, run: Run, report: DeliveryReport, folder: Path, identity: Path | None) -> None:
        """Say how `recover deliver` ended, which was given this `identity`."""
        self._close()
        if not (report.attempted or run.counts.undelivered):
            self._write(self._out, ["nothing to do: no pair waits to be delivered"])
        else:
            self._write(self._out, list(deliveries(run, folder, identity_word(identity))))

    def opening_pairs(self, *names: Path, beside: bool) -> None:
        """Speak of pairs that are opened. `names` are shown whole. `beside`: standard output is for the pairs alone."""
        self._words = OPEN_WORDS
        for name in names:
            self._spare(name)
        if beside:
            self._out = self._err

    def sealing_pairs(self, *names: Path) -> None:
        """Speak of pairs that are sealed. `names` are shown whole."""
        self._words = SEAL_WORDS
        for name in names:
            self._spare(name)

    # -- a check -------------------------------------------------------------------------------------------------

    def checking(self, opening: CheckOpening) -> None:
        """Say what a check looks at."""
        self._words = CHECK_WORDS
        if opening.output is not None:
            self._spare(opening.output)
        self._start(
            output=str(opening.output) if opening.output else None,
            installs=opening.installs,
            apps=opening.apps,
            duplicates=opening.duplicates,
            broken_lines=opening.broken,
            requests_per_second=opening.requests_per_second,
        )
        self._check = CheckWatch(self._voice, self._clock)

    def found(self, check: Check, row: Row | Broken, why: str, answer: Answer | None) -> None:
        """Say how the access token of an install stands."""
        assert self._check is not None
        self._check.found(check, row, why, answer)

    def checked(self, standing: Standing, now: Round[Asked], *, signalled: bool) -> None:
        """Say how far a check is; `signalled`: it was told to stop."""
        assert self._check is not None
        asked, self._asked = self._asked, False
        self._check.see(standing, now, signalled=signalled, asked=asked)
        self._tell_lost()

    def check_ended(self, run: Run, standing: Standing, lines: list[str]) -> None:
        """Say how a check ended; `exits` says the rest."""
        self._run, self._lines = run, lines
        self._more = {"checks": {check.value: standing.counts[check] for check in Check}, "not_asked": standing.left}
        self._say_lines(run)

    def reporting(self) -> None:
        """Say that the reports are being written."""
        if self._voice.screen:
            self._voice.screen.wait("writing the reports ...")

    # -- the end -------------------------------------------------------------------------------------------------

    def finished(self, run: Run, folder: Path, manifest: Path, *, changed: bool) -> None:
        """Print the closing block: the counts, the causes, the files, and what to do next. `exits` adds the last line."""
        waits = run.sealed and run.counts.undelivered > 0
        command = self.next_command(manifest, folder, run.recovered_before, sealed=waits)
        self.knows(run, folder, command, changed=changed)
        self._say_lines(run)

    def _say_lines(self, run: Run) -> None:
        self._close()
        if self._voice.screen:
            self._voice.screen.say("", "info")
        if not self._quiet:
            self._write(self._out, self._lines)
        elif run.exit_code and not self._voice.as_json:
            self._write(self._err, self._lines)

    def next_command(self, manifest: Path, folder: Path, before: str, *, sealed: bool = False) -> str:
        """The command that continues this run as it stands now (see `shell`). `sealed`: pairs that are sealed wait."""
        return next_command(manifest, folder, self._options, before, sealed=sealed or self._unread)

    def knows(self, run: Run, folder: Path, command: str, *, changed: bool) -> None:
        """Remember how the run ended, for `news`. `changed`: other installs failed than in the run before."""
        self._input, self._run, self._folder, self._changed = self._input or run.input, run, folder, changed
        identity = identity_word(dict(self._options).get("--identity"))
        self._lines = closing(run, folder, command, self._nothing, identity)

    def broke(self, problems: Sequence[str], text: str = "") -> None:
        """Say why the command could not go on: what a person must correct, or a text such as a traceback."""
        self._close()
        self._begun, self._broke = self._begun or not self._voice.as_json, True
        self._problems += problems
        if self._voice.as_json:
            self._start()
            for problem in problems:
                self._voice.tell(Event.ERROR, {"message": problem}, asked=True)
            if text:
                self._voice.tell(Event.BUG, {"traceback": text.splitlines()}, asked=True)
        else:
            self._write(self._err, [f"error: {problem}" for problem in problems] + text.splitlines())

    def news(self, code: int) -> News | None:
        """How the run ended, for those who are notified. None if nothing ran and nothing went wrong."""
        from jobs.outgoing.notify import News

        if self._run is None and not code:
            return None
        problems = [self._err.scrub(problem) for problem in self._problems]
        return News(Exit(code), self._input, self._run, self._folder, self._lines, problems, self._changed)

    def exits(self, code: int) -> None:
        """Print the last line: the exit code in words."""
        self._close()
        run = self._run
        said = run is not None and code == run.exit_code
        line = last_line(code, run.met if run and said else "", run.stopped_because if run else None, self._words)
        if self._for_run and self._voice.as_json:
            self._finish_log(code, line)
        if (self._broke or self._quiet) and not self._voice.as_json:
            self._write(self._err, [line] if code else [])
        elif (self._for_run or code) and not self._quiet:
            self._write(self._out, [line] if run or code else [])
        until = time.monotonic() + LATE_SECONDS
        for stream in (self._out, self._err):
            stream.drain(max(0.0, until - time.monotonic()))

    def _finish_log(self, code: int, line: str) -> None:
        if self._quiet and not code:
            return
        run = self._run or Run("", self._input, "", "")
        self._start()
        fields = {
            "exit_code": code,
            "reason": (run.stopped_because if run.exit_code == code else None)
            or _REASONS.get(Exit(code), Exit(code).name.lower()),
            "words": line.partition(": ")[2],
            "counts": asdict(run.counts),
            "this_run": asdict(run.this_run),
            "retryable": run.retryable,
            "failures_by_cause": run.failures_by_cause,
            "failures_by_owner": run.failures_by_owner,
            "output": str(self._folder) if self._folder else None,
            **self._more,
        }
        self._voice.tell(Event.RUN_FINISHED, fields, asked=True)

    def cut_short(self, code: Exit, words: str = "") -> None:
        """Print the last line when a second signal ends the run at once. The signal handler calls this."""
        what = words or (
            f"stopped at once; what was in flight is pending; the reports in {self._folder} are being written"
        )
        try:
            if self._voice.as_json:
                self._finish_log(code, f"exit {int(code)}: {what}")
            else:
                self._err.write(f"\nexit {int(code)}: {what}\n")
            self._err.drain(_LATE_AT_ONCE_SECONDS)
        except RuntimeError:  # The signal interrupted a write to this stream.
            return

    def _close(self) -> None:
        if self._voice.screen:
            self._voice.screen.close()

    def _write(self, stream: Stream, lines: Iterable[str]) -> None:
        # Both may be the same terminal, and each has its own writing thread. Earlier text must come first.
        (self._out if stream is self._err else self._err).drain(LATE_SECONDS)
        width = shutil.get_terminal_size().columns if stream.isatty() else None
        for line in lines:
            stream.write("\n".join(broken(line, width)) + "\n")
