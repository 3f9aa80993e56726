"""What a run needs before it may begin: settings, apps, the address of the API, the manifest.

All problems of a start are gathered, so that a person mends them in one go.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dotenv.parser import parse_stream

from jobs.apps import Apps, base_url, load_apps, too_open
from jobs.core.errors import Problem, UserError, refuse
from jobs.core.file_errors import what_to_do
from jobs.egress import check_way_out
from jobs.manifest import Manifest, open_manifest
from jobs.noticed import Noticed
from jobs.opening import LEDGER
from jobs.plan import needed_apps
from jobs.reports.messages import Messages, load_messages
from jobs.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobs.layout import Chosen

MESSAGES = Path("config") / "messages"
PROJECT = Path(__file__).resolve().parent.parent
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Start:
    """Everything that is known before the first request. `needed` are the configured client ids that INPUT needs."""

    settings: Settings
    apps: Apps
    base_url: str
    manifest: Manifest
    needed: frozenset[str]
    messages: Messages
    environment: Mapping[str, str]
    noticed: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know before the run, and what keeps it from nothing."""
        left_out = ", ".join(self.manifest.left_out)
        words = [f"columns that the reports write themselves are left out: {left_out}"] if left_out else []
        open_pairs = too_open(self.manifest.path) if self.manifest.with_old_pairs else ""
        return (
            *self.apps.warnings,
            *words,
            *([open_pairs] if open_pairs else []),
            *self.noticed,
            *self.messages.warnings,
        )


def environment_of(project: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, laid over what the project's `.env` says. Raises UserError where that cannot be read."""
    file = project / ".env"
    try:
        text = file.read_text(encoding="utf-8-sig") if file.is_file() else ""
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        todo = what_to_do(error, "correct the file or its rights")
        raise refuse(f"cannot be read ({reason})", str(file), todo) from None
    lines = list(parse_stream(io.StringIO(text)))
    if bad := [str(line.original.line) for line in lines if line.error]:
        raise refuse(
            f"holds what is no NAME=value (line {', '.join(bad)})", str(file), "mend it, with quotes if need be"
        )
    return {line.key: line.value for line in lines if line.key and line.value is not None} | dict(environment)


def make_start(
    project: Path,
    environment: Mapping[str, str],
    manifest: Path,
    options: Mapping[str, str],
    chosen: Chosen | None = None,
) -> Start:
    """Read all that a run needs, INPUT to its last line. `options` are settings of the command line, by option.
    `chosen` says which column of INPUT is which.

    Raises UserError with every problem found.
    """
    problems: list[Problem] = []

    def take(read: Callable[[], _T]) -> _T | Any:
        try:
            return read()
        except UserError as error:
            problems.extend(error.problems)
            return None

    known = take(lambda: environment_of(project, environment)) or dict(environment)
    settings = take(lambda: load_settings(project / "config" / "recovery.toml", known, options))
    apps = take(lambda: load_apps(project, known))
    url = take(lambda: base_url(known))
    take(lambda: check_way_out(url or "https://", known))
    opened = take(lambda: open_manifest(manifest, chosen or {}))
    noticed = Noticed()
    needed = take(lambda: needed_apps(opened.rows(noticed), apps or Apps())) if opened else set()
    messages = load_messages(project / MESSAGES)
    if problems:
        raise UserError(*problems)
    told = tuple(noticed.warnings())
    return Start(settings, apps, url, opened, frozenset(needed), messages, known, told)


def output_for(project: Path, manifest: Path, given: Path | None) -> Path:
    """The output folder: the one that was given, the one the manifest lies in, or `data/<its stem>`."""
    if given is not None:
        return given
    for folder in (manifest.parent, manifest.resolve().parent):
        if (folder / LEDGER).exists():
            return folder
    # Not `Path.stem`: it reads names that begin with dots in another way from Python 3.14 on.
    stem = manifest.name.rpartition(".")[0] if "." in manifest.name else manifest.name
    if not stem.strip(". "):
        raise refuse("makes no name for the output folder", str(manifest), "give --output")
    return project / "data" / stem
