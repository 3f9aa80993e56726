"""Where events are told: on the screen, in the log, or nowhere when quiet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.terminal.events import KINDS, LEVELS, Event
from jobs.terminal.words import NOT_ASKED_FOR, hold

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from jobs.terminal.live import LiveScreen
    from jobs.terminal.log import Log
    from jobs.terminal.streams import Stream


class Voice:
    """Tells events on standard error. `screen` is set if a person looks at a terminal that can draw."""

    def __init__(self, err: Stream, *, quiet: bool, as_json: bool, screen: LiveScreen | None) -> None:
        self._err = err
        self._quiet = quiet
        self._log: Log | None = None
        self.as_json = as_json
        self.screen = screen
        self.level = "info"

    def tell(self, event: Event, fields: Mapping[str, object], words: str = "", *, asked: bool = False) -> None:
        """Tell one event: its `fields` in the log, or its `words` on the screen. `asked`: also when quiet."""
        kind = KINDS[event]
        if self._quiet and not asked:
            return
        if not (asked or (kind.always and self.as_json) or LEVELS[kind.level] >= LEVELS[self.level]):
            return
        if self.screen is None:
            self.log.tell(event, kind.level, fields)
        elif words:
            self.screen.say(self._err.scrub(words), kind.level)

    def warn(self, text: str, *, asked: bool = False) -> None:
        """Tell a warning."""
        self.tell(Event.WARNING, {"message": text}, f"warning: {text}", asked=asked)

    def holds(self, until: datetime, status: int) -> None:
        """Tell that all requests are held back, and why."""
        fields = {"until": until.isoformat(timespec="seconds"), "http_status": status}
        self.tell(Event.HELD_BACK, fields, hold(until, status) + ("" if status else NOT_ASKED_FOR))

    def stops(self, in_flight: int) -> None:
        """Tell that the first signal came, and that so many requests are in flight."""
        words = f"stopping gracefully: {in_flight:,} in flight; Ctrl-C again to stop now"
        self.tell(Event.STOPPING, {"in_flight": in_flight}, words)

    @property
    def log(self) -> Log:
        """The log. It is slow to import and not always needed."""
        if self._log is None:
            from jobs.terminal.log import Log

            self._log = Log(self._err, as_json=self.as_json)
        return self._log


class Stray:
    """Standard error while every line must be a JSON object. Each line that other code prints becomes a warning."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._unfinished = ""

    def write(self, text: str) -> int:
        """Warn of each whole line of `text`."""
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in filter(str.strip, lines):
            self._warn(line)
        return len(text)

    def flush(self) -> None:
        """Do nothing: a line goes out when it is complete."""

    def isatty(self) -> bool:
        """False, since it is not a terminal."""
        return False
