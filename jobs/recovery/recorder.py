"""Writes outcomes to disk, even to a disk that fills up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from jobs.core.errors import Exit
from jobs.core.file_errors import FileError
from jobs.core.model import Recovered
from jobs.ledger.refusals import DatabaseRefusedError, HeldError, UnwritableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.core.model import Install, Outcome
    from jobs.ledger.ledger import Ledger
    from jobs.recovery.stop import Stop
    from jobs.sealing.sealer import Sealer

_LAST_WAIT_SECONDS = 600.0


@dataclass(slots=True)
class Recorder:
    """Writes outcomes down. If the ledger refuses one, `let_nothing_out` is called and the run stops.

    The disk space that was reserved is used then, and no outcome is given up before the end. `held`: another program
    holds the ledger. At the end, pairs in hand wait `last_wait` seconds for that program. `set_aside` keeps pairs that a
    database did not take; a ledger on this disk has nothing better. With a `sealer`, a pair is sealed before it is
    written anywhere. One that cannot be sealed is never written: it stays `unsealed` until the end, and is named then.
    """

    ledger: Ledger
    stop: Stop
    make_room: Callable[[], None]
    let_nothing_out: Callable[[], None]
    set_aside: Callable[[list[tuple[Install, Recovered]]], Path] | None = None
    sealer: Sealer | None = None
    last_wait: float = _LAST_WAIT_SECONDS
    unsealed: list[tuple[Install, Outcome]] = field(default_factory=list)
    unwritten: list[tuple[Install, Outcome]] = field(default_factory=list)
    held: bool = False

    def write(self, ended: list[tuple[Install, Outcome]]) -> list[tuple[Install, Outcome]]:
        """Record outcomes, also those that could not be recorded before. Returns those that are on disk now."""
        self.unsealed += ended
        self._seal()
        if not self.unwritten:
            return []
        try:
            return self._record()
        except UnwritableError as refused:
            self.let_nothing_out()
            self.stop.ask(refused.because, Exit.STOPPED_EARLY, str(refused))
            self.held = isinstance(refused, HeldError)
            self._be_patient(0.0)  # Outcomes that come back now are kept for the end, when there is time to wait.
        self.make_room()
        try:
            return self._record()
        except UnwritableError:
            return []

    def _seal(self) -> None:
        try:
            while self.unsealed:
                install, outcome = self.unsealed[0]
                self.unwritten.append((install, self._sealed(install, outcome)))
                del self.unsealed[0]
        except Exception:
            self.let_nothing_out()  # Not even codes in hand: their pairs could not be kept.
            raise

    def _seal_the_rest(self) -> None:
        """Try to seal each outcome that is left, and name those that cannot be: their pairs are lost."""
        left, self.unsealed = self.unsealed, []
        for install, outcome in left:
            try:
                self.unwritten.append((install, self._sealed(install, outcome)))
            except Exception as error:  # noqa: BLE001 - the run ends by it already
                words = f"the new pair of {install.key.account_id} could not be sealed ({error}), so it was not written"
                self.ledger.wait.patience.say(f"{words}: it is lost, and the next run tries this install again")

    def _sealed(self, install: Install, outcome: Outcome) -> Outcome:
        if self.sealer is None or not isinstance(outcome, Recovered):
            return outcome
        return replace(outcome, tokens=self.sealer.seal(install.key, outcome.tokens, outcome.at))

    def _record(self) -> list[tuple[Install, Outcome]]:
        self.ledger.record(self.unwritten)
        written, self.unwritten = self.unwritten, []
        return written

    def close(self) -> None:
        """Try the rest a last time, one by one, and wait for the program that holds the ledger. Say what is lost."""
        self._seal_the_rest()
        pairs = len(self._pairs_in_hand())
        if pairs and self.held:  # Even if something else stopped the run first.
            words = f"new pairs not yet stored: {pairs}; end the program that holds the ledger within {self.last_wait:.0f} s"
            self.ledger.wait.patience.say(words)
            self._be_patient(self.last_wait)
        refused: UnwritableError | None = None
        left, self.unwritten = self.unwritten, []
        for number, one in enumerate(left):
            if isinstance(refused, DatabaseRefusedError):  # Each try would wait for an answer again.
                self.unwritten.append(one)
                continue
            try:
                self.ledger.record([one])
            except UnwritableError as again:
                self.unwritten.append(one)
                refused = again
            except Exception:  # A bug, or tables that are not as they were: what is in hand is kept all the same.
                self.unwritten += left[number:]
                self._left()
                raise
            self._be_patient(0.0)
        if refused is not None:
            words, kept = self._left()
            is_elsewhere = kept and isinstance(refused, DatabaseRefusedError)
            self.stop.refused(refused.because, "; ".join(filter(None, [str(refused), words])), kept=is_elsewhere)

    def _left(self) -> tuple[str, bool]:
        """What becomes of the pairs that could not be stored, in words ('' if there are none), and whether they are kept."""
        pairs = self._pairs_in_hand()
        if not pairs:
            return "", True
        file, why = None, ""
        try:
            file = self.set_aside(pairs) if self.set_aside else None
        except FileError as error:
            why = f" ({error})"
        if file is None:
            return f"{len(pairs)} new pairs could not be stored{why}, and their installs stay as they were", False
        keep = "the next run on that folder takes them in; in a container, copy that file out before the container is removed"
        return f"{len(pairs)} new pairs are in {file}: {keep}", True

    def _pairs_in_hand(self) -> list[tuple[Install, Recovered]]:
        return [(install, outcome) for install, outcome in self.unwritten if isinstance(outcome, Recovered)]

    def _be_patient(self, seconds: float) -> None:
        self.ledger.wait.patience = replace(self.ledger.wait.patience, seconds=seconds)
