"""Typed settings: config/recovery.toml, overridden by the environment."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.errors import Problem, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PREFIX = "RECOVERY_"
_Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
_Wait = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PaceSettings(_Section):
    """How fast: requests a second, workers (0: by need), seconds of patience with 429."""

    requests_per_second: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] = 10
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    patience_seconds: _Seconds = 600


class RetrySettings(_Section):
    """How often an install is tried in a run, and the seconds between."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 5
    min_wait_seconds: _Wait = 1
    max_wait_seconds: _Wait = 60


class HttpSettings(_Section):
    """Limits of one request, in seconds and bytes."""

    connect_timeout_seconds: _Seconds = 10
    read_timeout_seconds: _Seconds = 30
    total_timeout_seconds: _Seconds = 60
    max_answer_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 1_048_576


class StopSettings(_Section):
    """When failures in a row are an outage."""

    transient_installs: Annotated[int, Field(ge=1)] = 10


class LogSettings(_Section):
    """How much the log says."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(_Section):
    """Every setting of the job."""

    pace: PaceSettings = PaceSettings()
    retry: RetrySettings = RetrySettings()
    http: HttpSettings = HttpSettings()
    stop: StopSettings = StopSettings()
    log: LogSettings = LogSettings()


def load_settings(file: Path, environment: Mapping[str, str]) -> Settings:
    """The settings of `file` with those of the environment laid over. Raises UserError with every problem found."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        values = {}
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(Problem(f"cannot be read ({error})", str(file), "mend the file")) from None
    names: dict[tuple[str, ...], str] = {}
    problems: list[Problem] = []
    for name, text in environment.items():
        if name.startswith(_PREFIX):
            section, _, key = name.removeprefix(_PREFIX).lower().partition("__")
            place = values.setdefault(section, {})
            if not key or not isinstance(place, dict):
                problems.append(Problem("is no setting", name, "the form is RECOVERY_<SECTION>__<KEY>"))
                values.pop(section)
                continue
            place[key] = text
            names[section, key] = name
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems += [
            _problem(dict(found), names, file) for found in error.errors(include_url=False, include_context=False)
        ]
        raise UserError(*problems) from None
    if problems:
        raise UserError(*problems)
    return settings


def _problem(found: dict[str, object], names: Mapping[tuple[str, ...], str], file: Path) -> Problem:
    place = tuple(str(part) for part in found["loc"])  # type: ignore[attr-defined]
    where = names.get(place[:2]) or f"{file.name}, {'.'.join(place)}"
    if found["type"] == "extra_forbidden":
        return Problem("is an unknown setting", where, "correct its name or take it out")
    return Problem(f"has a value that does not fit ({found['msg']})", where, "correct the value")
