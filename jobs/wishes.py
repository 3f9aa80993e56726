"""What the user asked of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.model import Cause


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked of one run; `max_duration` in seconds."""

    limit: int | None = None
    max_duration: float | None = None
    causes: tuple[Cause, ...] = ()
    force: bool = False
