"""Outcomes onto the disk, also onto one that fills up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.errors import Exit
from jobs.model import Recovered
from jobs.schema import UnwritableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.ledger import Ledger
    from jobs.model import Install, Outcome
    from jobs.stop import Stop


@dataclass(slots=True)
class Book:
    """Writes outcomes down. On a full disk what was kept for them is used, and the run stops; none is given up before its end."""

    ledger: Ledger
    stop: Stop
    make_room: Callable[[], None]
    unwritten: list[tuple[Install, Outcome]] = field(default_factory=list)

    def write(self, ended: list[tuple[Install, Outcome]]) -> list[tuple[Install, Outcome]]:
        """Record what has ended, and what could not be recorded before. Returns what is on disk now."""
        self.unwritten += ended
        if not self.unwritten:
            return []
        try:
            return self._record()
        except UnwritableError as full:
            self.stop.ask("disk", Exit.STOPPED_EARLY, str(full))
        self.make_room()
        try:
            return self._record()
        except UnwritableError:
            return []

    def _record(self) -> list[tuple[Install, Outcome]]:
        self.ledger.record(self.unwritten)
        written, self.unwritten = self.unwritten, []
        return written

    def close(self) -> None:
        """Try what is left a last time, one by one; what is lost is said."""
        lost = 0
        for one in self.unwritten:
            try:
                self.ledger.record([one])
            except UnwritableError as full:
                lost += isinstance(one[1], Recovered)
                met = f"{full}; {lost} new pairs could not be stored, their installs stay as they were"
                self.stop.must("disk", Exit.STOPPED_EARLY, met if lost else str(full))
