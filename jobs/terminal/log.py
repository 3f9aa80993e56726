"""The log for programs, files and mails: structlog, in readable lines or as JSON objects."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TextIO, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs.terminal.events import Event
    from jobs.terminal.streams import Stream

_UNCLEAR = re.compile(r"[\s=\"']")


class Log:
    """Writes one line for each event to `stream`, without secrets and control characters."""

    def __init__(self, stream: Stream, *, as_json: bool) -> None:
        self._stream = stream
        self._with_empty = as_json
        renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False) if as_json else _as_line
        self._logger = structlog.wrap_logger(
            structlog.PrintLogger(cast("TextIO", stream)),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                self._prepared,
                renderer,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        ).bind()  # Bound once, since a lazy logger would be bound for every line.

    def tell(self, event: Event, level: str, fields: Mapping[str, object]) -> None:
        """Write one event."""
        getattr(self._logger, level)(event.value, **fields)

    def _prepared(self, _logger: object, _method: str, told: Any) -> Any:
        """The fields without secrets, in reading order. Readable lines leave out the empty ones."""
        first = {name: told.pop(name) for name in ("timestamp", "level", "event")}
        fields = {name: self._clean(value) for name, value in told.items()}
        return first | {name: value for name, value in fields.items() if self._with_empty or value not in ("", None)}

    def _clean(self, value: object) -> object:
        if isinstance(value, str):
            return self._stream.scrub(value)
        if isinstance(value, list):
            return [self._clean(each) for each in value]
        return value


def _as_line(_logger: object, _method: str, told: Mapping[str, object]) -> str:
    """An event as a line: when, how severe, what, and its fields. An ambiguous value is in quotes."""
    (_, timestamp), (_, level), (_, event), *fields = told.items()
    shown = " ".join(f"{name}={_shown(value)}" for name, value in fields)
    return f"{timestamp} [{level:<9}] {event:<18} {shown}".rstrip()


def _shown(value: object) -> str:
    return value if isinstance(value, str) and not _UNCLEAR.search(value) else repr(value)
