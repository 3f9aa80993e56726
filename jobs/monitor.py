"""The story of a run's metrics: what they are made from, and when their file is written.

A run writes it at its start, each minute, and at its end. `recover deliver`, `recover purge` and `recover seal` change in it how
many pairs wait, and a run that cannot start changes the end and its code.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from jobs.config.settings import LedgerSettings, MetricsSettings
from jobs.core.clock import utc_now
from jobs.core.endings import ending_of
from jobs.core.errors import Exit, UserError
from jobs.ledger.counts import as_it_stands
from jobs.ledger.reads import last_ended
from jobs.outgoing.metrics import Figures, MetricsFile
from jobs.start import output_for, section_of
from jobs.system.signals import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Connection

    from jobs.core.model import Run
    from jobs.ledger.ledger import Ledger
    from jobs.pace.gate import Held

_EVERY_SECONDS = 60.0
# A count of a million installs takes seconds, and a database takes no outcome meanwhile. So it may cost one percent.
_REST = 100


@dataclass(slots=True)
class Latest:
    """A run as far as it is known by now, and why nothing is sent now. The run changes it, and others look at it."""

    run: Run
    held: Held | None = None


class Monitor:
    """Keeps the file of a run up to date, if there is one, whatever the run waits for.

    `clock` gives monotonic seconds. `ending` is set at the end, and waits between two writes.
    """

    def __init__(
        self,
        file: MetricsFile | None,
        ledger: Ledger,
        latest: Latest,
        clock: Callable[[], float] = time.monotonic,
        ending: threading.Event | None = None,
    ) -> None:
        self._file = file
        self._ledger = ledger
        self._latest = latest
        self._clock = clock
        self._count_again_at = float("-inf")
        self._before = Figures(latest.run)
        self._ending = ending or threading.Event()
        self._thread = threading.Thread(target=self._keep, name="metrics", daemon=True)

    def __enter__(self) -> Self:
        """Write the file, and again and again from now on."""
        if self._file is not None:
            self._before = self._ledger.ask(lambda connection: figures_of(connection, self._latest.run))
            self._file.begin(self._before)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the file for the last time. What escapes from the block is a bug."""
        if self._file is None:
            return
        self._ending.set()
        self._thread.join()
        run = self._latest.run
        if kind is not None:
            run = replace(run, finished_at=utc_now(), exit_code=int(Exit.BUG))
        self._file.write(self._figures(run))

    def _keep(self) -> None:
        assert self._file is not None
        counted = self._latest.run
        while not self._ending.wait(_EVERY_SECONDS):
            counted = self._counted(counted)
            self._file.write(self._figures(counted))

    def _counted(self, before: Run) -> Run:
        """The run with its installs as they stand now, or as they stood `before` if it is too early to count them again, or the
        ledger cannot be read.
        """
        run, began = self._latest.run, self._clock()
        if began >= self._count_again_at:
            # Not by `ask`, which waits for a ledger that is away: the file must not grow old meanwhile.
            with suppress(OSError), self._ledger.at_a_glance() as connection:
                before = as_it_stands(connection, run, run.counts.rows)
                self._count_again_at = began + _REST * (self._clock() - began)
        return replace(before, this_run=run.this_run, rate_limited=run.rate_limited)

    def _figures(self, run: Run) -> Figures:
        held = self._latest.held
        seconds = held.until - self._clock() if held else 0.0
        return self._before._replace(run=run, hold_until=time.time() + seconds if seconds > 0 else 0.0)


def monitor_of(
    settings: MetricsSettings, project: Path, folder: Path, ledger: Ledger, latest: Latest, warn: Callable[[str], None]
) -> Monitor:
    """A monitor of the run, which writes the file that the settings name, or none."""
    return Monitor(_file(settings, project, folder, warn), ledger, latest)


def figures_of(connection: Connection, run: Run) -> Figures:
    """What the metrics tell about the newest run, and about those before it."""
    success = last_ended(connection, Exit.OK)
    return Figures(run, last_ended(connection), success.finished_at if success else "")


def write_end(
    ledger: Ledger,
    folder: Path,
    project: Path,
    environment: Mapping[str, str],
    run: Run,
    warn: Callable[[str], None],
) -> None:
    """Write the metrics of a run that somebody else has ended."""
    file = _file(section_of(MetricsSettings, project, environment), project, folder, warn)
    if file is not None:
        file.write(ledger.ask(lambda connection: figures_of(connection, run)))


def note(
    changes: Mapping[str, float],
    folder: Path,
    project: Path,
    environment: Mapping[str, str],
    warn: Callable[[str], None],
) -> None:
    """Change these values of the metrics. A run may have been killed, or could not start, and what was told of that stays."""
    file = _file(section_of(MetricsSettings, project, environment), project, folder, warn)
    if file is not None:
        file.amend(changes)


def end_with(code: Exit) -> dict[str, float]:
    """What the metrics tell of an end of which nothing but the exit code is known."""
    return {"last_exit_code": float(code), "last_end_timestamp_seconds": time.time()}


@contextmanager
def noting_refusals(
    manifest: Path, output: Path | None, project: Path, environment: Mapping[str, str], warn: Callable[[str], None]
) -> Iterator[None]:
    """A block that starts a run. If the run cannot start, its exit code is noted, unless another run is under way."""
    try:
        yield
    except (Exception, Interrupted) as error:
        code = error.code if isinstance(error, Interrupted) else ending_of(error).code
        if code is not Exit.HELD:
            with suppress(UserError, OSError):  # A list without a name has no output folder.
                ledger = section_of(LedgerSettings, project, environment)
                folder = output_for(project, manifest, output, in_database=ledger.in_database)
                note(end_with(code), folder, project, environment, warn)
        raise


def _file(settings: MetricsSettings, project: Path, folder: Path, warn: Callable[[str], None]) -> MetricsFile | None:
    """The file that the settings name, or None."""
    if not settings.textfile:
        return None
    name = os.path.realpath(folder).rpartition("/")[2]  # Not `Path.resolve`: see `output_for`.
    return MetricsFile(project / settings.textfile, name, warn, time.time)
