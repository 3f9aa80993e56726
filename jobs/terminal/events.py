"""The events of a run, by the names in the log. Programs that read the log rely on this list."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Event(StrEnum):
    """The name of an event, under `event` in each line of the JSON log."""

    RUN_STARTED = "run_started"
    WARNING = "warning"
    TRYING_ONE_FIRST = "trying_one_first"
    RECOVERED = "recovered"
    FAILED = "failed"
    HELD_BACK = "held_back"
    PACE_CHANGED = "pace_changed"
    PROGRESS = "progress"
    STOPPING = "stopping"
    MESSAGES_LOST = "messages_lost"
    ERROR = "error"
    BUG = "bug"
    DELIVERED = "delivered"
    DELIVERY_FAILED = "delivery_failed"
    DELIVERY_RESTS = "delivery_rests"
    CHECKED = "checked"
    AFFECTED = "affected"
    RUN_FINISHED = "run_finished"


@dataclass(frozen=True, slots=True)
class Kind:
    """How severe an event is, and whether it is told whatever `log.level` says."""

    level: str
    always: bool = False


KINDS: Mapping[Event, Kind] = {
    Event.RUN_STARTED: Kind("info", always=True),
    Event.WARNING: Kind("warning"),
    Event.TRYING_ONE_FIRST: Kind("info"),
    Event.RECOVERED: Kind("info"),
    Event.FAILED: Kind("warning"),
    Event.HELD_BACK: Kind("warning"),
    Event.PACE_CHANGED: Kind("warning"),
    Event.PROGRESS: Kind("info"),
    Event.STOPPING: Kind("warning"),
    Event.MESSAGES_LOST: Kind("warning"),
    Event.ERROR: Kind("error"),
    Event.BUG: Kind("error"),
    Event.DELIVERED: Kind("info"),
    Event.DELIVERY_FAILED: Kind("warning"),
    Event.DELIVERY_RESTS: Kind("warning"),
    Event.CHECKED: Kind("info"),
    Event.AFFECTED: Kind("warning"),
    Event.RUN_FINISHED: Kind("info", always=True),
}
