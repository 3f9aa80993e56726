"""What a run says at its end: the counts, who acts next, the files, and what to run next. The exit code follows."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING

from jobs.core.causes import ADVICE
from jobs.core.errors import EXIT_WORDS, Exit
from jobs.core.model import Cause
from jobs.terminal.deliveries import closing as deliveries
from jobs.terminal.shell import open_command, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from jobs.core.model import Run

# Each file and its reader. The files of failures are named only if there are failures, and each file only if it is there.
_RESULTS = ("results.csv", "the tokens, for the developer to load into the app")
_SEALED = ("results.csv", "the tokens, sealed; this opens them, wherever the identity is:")
_FAILURES = (
    ("failures.html", "for support staff, to read"),
    ("failures.xlsx", "for support staff, to filter and to send back"),
    ("failures.csv", "the same as a table, and as a list for another run"),
)


def closing(run: Run, folder: Path, command: str, nothing: str, identity: str) -> list[str]:
    """The closing block without its last line. `nothing` says why there was nothing to do, if so. The file `identity` opens
    sealed pairs.
    """
    return list(_lines(run, folder, command, nothing, identity))


def _lines(run: Run, folder: Path, command: str, nothing: str, identity: str) -> Iterator[str]:
    counts, this_run = run.counts, run.this_run
    if nothing:
        yield nothing
    yield (
        f"{counts.recovered:,} of {counts.installs:,} installs are back, {counts.failed:,} failed, "
        f"{counts.pending:,} are pending ({this_run.recovered:,} recovered in this run, {this_run.requests:,} requests)"
    )
    if run.kept:
        yield f"{run.kept:,} of those that are back were tried again without success; they keep the pair they had"
    yield from causes(run)
    yield from deliveries(run, folder, identity)
    yield f"files in {shown(folder)}:"
    for name, purpose in (_SEALED if run.sealed else _RESULTS, *(_FAILURES if counts.failed else ())):
        if not os.access(folder / name, os.F_OK):
            continue
        yield f"  {name:<15}{purpose}"
        if (name, purpose) == _SEALED:
            yield f"{'':<17}{open_command(folder, identity)}"
    if run.exit_code:
        yield f"{when_to_run_again(run)}:"
        yield f"  {command}"


def causes(run: Run) -> Iterator[str]:
    """A line for each cause: its name, how many installs, who acts, and the next step."""
    found = sorted(run.failures_by_cause.items(), key=lambda item: (-item[1], item[0]))
    wide = max((len(cause) for cause, _ in found), default=0)
    much = max((len(f"{count:,}") for _, count in found), default=0)
    for cause, count in found:
        advice = ADVICE[Cause(cause)]
        yield f"  {cause:<{wide}}  {count:>{much},}  {advice.owner.value:<9}  {advice.next_step}"


def broken(line: str, width: int | None) -> list[str]:
    """The line, broken between words at `width`. Paths, commands and the last line stay whole."""
    if width is None or len(line) <= width or "/" in line or line.startswith("exit "):
        return [line]
    return textwrap.wrap(line, width, subsequent_indent="      ", break_long_words=False, break_on_hyphens=False)


def when_to_run_again(run: Run) -> str:
    """When to run the next command, and why."""
    if run.retryable and run.stopped_because in {None, "time_limit", "install_limit", "signal"}:
        return f"{run.retryable:,} may come back if you run this again; recovered installs are left alone"
    if run.retryable:
        return "when that is fixed, continue with this; recovered installs are left alone"
    return "when those named above have acted, run this; recovered installs are left alone"


def last_line(code: int, met: str = "", because: str | None = None, words: Mapping[Exit, str] = EXIT_WORDS) -> str:
    """The exit code in words, and what the run met."""
    found = f" ({because}: {met})" if met and because else ""
    return f"exit {code}: {words[Exit(code)]}{found}"
