"""What a run needs before it may begin: settings, apps, the address of the API, the manifest.

All problems of a start are gathered, so that a person mends them in one go.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dotenv import dotenv_values

from jobs.apps import Apps, base_url, load_apps
from jobs.errors import Problem, UserError, refuse
from jobs.manifest import Manifest, open_manifest
from jobs.opening import LEDGER
from jobs.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROJECT = Path(__file__).resolve().parent.parent
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Start:
    """Everything that is known before the first request."""

    settings: Settings
    apps: Apps
    base_url: str
    manifest: Manifest
    environment: Mapping[str, str]


def environment_of(project: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, laid over what the project's `.env` says."""
    file = project / ".env"
    given = dotenv_values(file, interpolate=False) if file.is_file() else {}
    return {name: value for name, value in given.items() if value is not None} | dict(environment)


def make_start(project: Path, environment: Mapping[str, str], manifest: Path, overrides: Mapping[str, str]) -> Start:
    """Read all that a run needs. `overrides` are settings of the command line, as variables of the environment.

    Raises UserError with every problem found.
    """
    problems: list[Problem] = []

    def take(read: Callable[[], _T]) -> _T | Any:
        try:
            return read()
        except UserError as error:
            problems.extend(error.problems)
            return None

    known = environment_of(project, environment)
    settings = take(lambda: load_settings(project / "config" / "recovery.toml", known | dict(overrides)))
    apps = take(lambda: load_apps(project, known))
    url = take(lambda: base_url(known))
    rows = take(lambda: open_manifest(manifest))
    if problems:
        raise UserError(*problems)
    return Start(settings, apps, url, rows, known)


def output_for(project: Path, manifest: Path, given: Path | None) -> Path:
    """The output folder: the one that was given, the one the manifest lies in, or `data/<its stem>`."""
    if given is not None:
        return given
    if (manifest.parent / LEDGER).exists():
        return manifest.parent
    stem = manifest.stem
    if not stem.strip(". "):
        raise refuse("makes no name for the output folder", str(manifest), "give --output")
    return project / "data" / stem
