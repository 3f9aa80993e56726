"""Whether somebody uses this project. Its tests run the job in it, so they would go where the user's own runs go."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from msgspec.structs import fields

from jobs.config.settings import Settings, load_section_or_defaults
from jobs.sandbox.alone import ALONE
from jobs.start import PROJECT, SETTINGS

if TYPE_CHECKING:
    from pathlib import Path


def why_not_here(project: Path) -> str:
    """Why nothing may be tested in this project, in one line. '' if it may."""
    found = [name for name in (".env", "config/apps.toml") if (project / name).exists()]
    if _names_somebody(project / SETTINGS):
        found.append(str(SETTINGS))
    said = f"this project is in use, and its tests would send to what its {' and '.join(found)} name"
    return f"{said}: run them in a fresh clone" if found else ""


def _names_somebody(file: Path) -> bool:
    """Whether settings in this file name somebody or a place outside the project."""
    sections = [field.type for field in fields(Settings)]
    return any(
        load_section_or_defaults(one, file, {}) != load_section_or_defaults(one, file, ALONE) for one in sections
    )


if __name__ == "__main__":
    sys.exit(why_not_here(PROJECT) or 0)
