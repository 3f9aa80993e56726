"""Outcomes onto the disk, also onto one that fills up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from jobs.core.errors import Exit
from jobs.core.model import Recovered
from jobs.ledger.sqlite import HeldError, UnwritableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.core.model import Install, Outcome
    from jobs.ledger.ledger import Ledger
    from jobs.recovery.stop import Stop

_LAST_WAIT_SECONDS = 600.0


@dataclass(slots=True)
class Recorder:
    """Writes outcomes down. Where the ledger refuses one, `let_nothing_out` is called and the run stops.

    `held`: it did so since another program holds it. What was kept for a full disk is used then, and no outcome is given up before the end, where pairs in hand wait for
    `last_wait` seconds for whoever holds the ledger.
    """

    ledger: Ledger
    stop: Stop
    make_room: Callable[[], None]
    let_nothing_out: Callable[[], None]
    last_wait: float = _LAST_WAIT_SECONDS
    unwritten: list[tuple[Install, Outcome]] = field(default_factory=list)
    held: bool = False

    def write(self, ended: list[tuple[Install, Outcome]]) -> list[tuple[Install, Outcome]]:
        """Record what has ended, and what could not be recorded before. Returns what is on disk now."""
        self.unwritten += ended
        if not self.unwritten:
            return []
        try:
            return self._record()
        except UnwritableError as refused:
            self.let_nothing_out()
            self.stop.ask(refused.because, Exit.STOPPED_EARLY, str(refused))
            self.held = isinstance(refused, HeldError)
            self._be_patient(0.0)  # What else comes back is kept for the end, when there is time to wait.
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
        """Try what is left a last time, one by one, and wait for whoever holds the ledger; what is lost is said."""
        pairs = self._pairs_in_hand()
        if pairs and self.held:  # Whatever else stopped the run first.
            words = f"new pairs in hand, not yet stored: {pairs}; let go of the ledger within {self.last_wait:.0f} s"
            self.ledger.wait.patience.say(words)
            self._be_patient(self.last_wait)
        refused: UnwritableError | None = None
        left, self.unwritten = self.unwritten, []
        for one in left:
            try:
                self.ledger.record([one])
            except UnwritableError as again:
                self.unwritten.append(one)
                refused = again
            self._be_patient(0.0)
        if refused is None:
            return
        lost = self._pairs_in_hand()
        met = f"{refused}; {lost} new pairs could not be stored, their installs stay as they were"
        self.stop.must(refused.because, Exit.STOPPED_EARLY, met if lost else str(refused))

    def _pairs_in_hand(self) -> int:
        return sum(isinstance(outcome, Recovered) for _, outcome in self.unwritten)

    def _be_patient(self, seconds: float) -> None:
        self.ledger.wait.patience = replace(self.ledger.wait.patience, seconds=seconds)
