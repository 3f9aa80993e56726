"""The file of metrics that a monitor reads: Prometheus, by the textfile collector of node_exporter.

All of them are gauges with the label `list`, the name of the output folder. No id is a label. A file that cannot be written
is a warning and never changes how a run ends.
"""

from __future__ import annotations

import errno
import os
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from jobs import __version__
from jobs.core.causes import ADVICE
from jobs.core.errors import Exit
from jobs.core.file_errors import FileError
from jobs.core.model import Cause, Run, Status
from jobs.system.files import clear_left_behind, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from prometheus_client import Metric

PREFIX = "highlevel_recovery_"
Values: TypeAlias = "Mapping[str, Mapping[tuple[str, ...], float]]"
_ANYBODY_READS = 0o644


class Gauge(NamedTuple):
    """What a metric tells, and its labels beside `list`."""

    help: str
    labels: tuple[str, ...] = ()


GAUGES: Mapping[str, Gauge] = {
    "last_start_timestamp_seconds": Gauge("When the last run began."),
    "last_end_timestamp_seconds": Gauge("When a run last ended, 0 if none has."),
    "last_success_timestamp_seconds": Gauge("When a run last ended with exit code 0, 0 if none has."),
    "last_exit_code": Gauge("The exit code of the run that ended last."),
    "duration_seconds": Gauge("How long the last run took, or has taken by now."),
    "running": Gauge("1 while a run is under way, and after one was killed."),
    "installs": Gauge("Installs of the list, by their state.", ("state",)),
    "failures": Gauge("Installs of the list that failed, by cause and by who acts next.", ("cause", "owner")),
    "undelivered_installs": Gauge("Installs whose new pair the app's own store has not taken yet."),
    "requests": Gauge("Requests that the last run sent to HighLevel."),
    "rate_limited_requests": Gauge("Those that HighLevel answered with 429."),
    "hold_until_timestamp_seconds": Gauge("Until when HighLevel asked to send nothing, 0 if it did not."),
    "build_info": Gauge("The version of the job.", ("version",)),
}
"""Every metric by its name without the prefix."""
_BUILD: Values = {"build_info": {(__version__,): 1.0}}


class Figures(NamedTuple):
    """What the metrics are made from: the newest `run`, the one that `ended` last before it, when a run `succeeded_at` before
    it (UTC, ISO 8601, '' if none has), and until when HighLevel asked to send nothing (seconds since 1970, or 0).
    """

    run: Run
    ended: Run | None = None
    succeeded_at: str = ""
    hold_until: float = 0.0


class MetricsFile:
    """The file at `path` about the list with this `name`. `warn` hears once if it cannot be written. `clock` gives the
    seconds since 1970.
    """

    def __init__(self, path: Path, name: str, warn: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._path = path
        self._name = name.encode(errors="replace").decode()
        self._warn = warn
        self._clock = clock
        self._warned = False

    def begin(self, figures: Figures) -> None:
        """Write it for the first time in a run. What a killed run left half-written beside it is removed."""
        try:
            clear_left_behind(self._path.parent, self._path.name)
        except FileError as error:
            self._complain(error)
        self.write(figures)

    def write(self, figures: Figures) -> None:
        """Write it, whole."""
        self._write(_families(self._name, _values(figures, self._clock())))

    def amend(self, changes: Mapping[str, float]) -> None:
        """Change these values in it. What else it says stays, and a lost file tells these alone, since nothing else is known.

        A file that is not of this list alone is left as it is.
        """
        found = self._found()
        if found is None:
            return
        for family in found:
            value = changes.get(family.name.removeprefix(PREFIX))
            if value is not None:
                family.samples[:] = [sample._replace(value=value) for sample in family.samples]
        known: Values = {name: {(): value} for name, value in changes.items()}
        self._write(found or _families(self._name, {**known, **_BUILD}))

    def _found(self) -> list[Metric] | None:
        """The metrics in it, none if it is lost or empty. None: it is not of this list alone, or cannot be read."""
        from prometheus_client.parser import text_string_to_metric_families

        try:
            _refuse_special(self._path)
            content = self._path.read_bytes()
            found = [*text_string_to_metric_families(content.decode())]
        except FileNotFoundError:
            return []
        except ValueError:
            return None
        except OSError as error:
            self._complain(error)
            return None
        whose = {
            (name.startswith(PREFIX), labels.get("list")) for family in found for name, labels, *_ in family.samples
        }
        return found if whose == {(True, self._name)} or not content else None

    def _write(self, families: list[Metric]) -> None:
        from prometheus_client import generate_latest

        try:
            _refuse_special(self._path)
            with replacing(self._path, _ANYBODY_READS) as file:
                file.write(generate_latest(_Collected(families)))
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            why = os.strerror(error.errno or 0)
            self._warn(f"metrics.textfile: {self._path} cannot be written ({why}); the run goes on without it")


def _refuse_special(path: Path) -> None:
    """Raise OSError if a device or the like is there, which would be replaced by a file, or read without an end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "", str(path))


class _Collected(NamedTuple):
    """Metrics as the library asks for them."""

    families: list[Metric]

    def collect(self) -> list[Metric]:
        """All of them."""
        return self.families


def _families(name: str, values: Values) -> list[Metric]:
    """The metrics of the list `name` that have `values`, which are by their labels."""
    from prometheus_client.core import GaugeMetricFamily

    families: list[Metric] = []
    for metric, by_labels in values.items():
        gauge = GAUGES[metric]
        family = GaugeMetricFamily(PREFIX + metric, gauge.help, labels=("list", *gauge.labels))
        for labels, value in by_labels.items():
            family.add_metric([name, *labels], value)
        families.append(family)
    return families


def _values(figures: Figures, now: float) -> Values:
    """The values of each metric, by its labels beside `list`."""
    run = figures.run
    ended = run if run.finished_at else figures.ended
    succeeded_at = run.finished_at if run.exit_code == Exit.OK else figures.succeeded_at
    began = _seconds(run.started_at)
    single = {
        "last_start_timestamp_seconds": began,
        "last_end_timestamp_seconds": _seconds(ended.finished_at) if ended else 0.0,
        "last_success_timestamp_seconds": _seconds(succeeded_at),
        "last_exit_code": (ended.exit_code or 0) if ended else 0,
        "duration_seconds": (_seconds(run.finished_at) or now) - began if began else 0.0,
        "running": not run.finished_at,
        "undelivered_installs": run.counts.undelivered,
        "requests": run.this_run.requests,
        "rate_limited_requests": run.rate_limited,
        "hold_until_timestamp_seconds": figures.hold_until,
    }
    return {
        **{name: {(): float(value)} for name, value in single.items()},
        "installs": {(state.value,): float(getattr(run.counts, state)) for state in Status},
        "failures": dict(_failures(run.failures_by_cause)),
        **_BUILD,
    }


def _failures(by_cause: Mapping[str, int]) -> Iterator[tuple[tuple[str, ...], float]]:
    for cause in Cause:
        yield (cause.value, ADVICE[cause].owner.value), float(by_cause.get(cause, 0))


def _seconds(moment: str) -> float:
    """A moment (UTC, ISO 8601) in seconds since 1970. 0 if it is empty."""
    return datetime.fromisoformat(moment).timestamp() if moment else 0.0
