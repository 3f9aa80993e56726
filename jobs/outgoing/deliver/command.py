"""A target that is a command: one process for each run, which reads a pair as one JSON line on its standard input.

It answers `{"pair_id": "..."}` on a line of standard output for each pair that it has stored, in any order and at any
time, and `{"pair_id": "...", "error": "why"}` for one that it cannot store. The ledger knows which pairs the command has,
so that memory does not grow with them. A pair that it has not acknowledged when it ends is not delivered.
"""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from jobs.core.batches import in_batches
from jobs.core.clock import Every
from jobs.core.model import Delivery
from jobs.core.secret import plain, scrub
from jobs.ledger.refusals import UnwritableError
from jobs.outgoing.deliver.courier import LOOK_SECONDS, Courier
from jobs.outgoing.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from jobs.core.secret import Secret
    from jobs.ledger.deliveries import WaitingPair
    from jobs.outgoing.deliver.pair import Pair
    from jobs.outgoing.deliver.store import Store
    from jobs.outgoing.program import Heard

TURN_SECONDS = 0.1
# A program that floods its outputs is read slowly, so that it waits and the job does not.
_NOISE_SECONDS = 0.1
_BATCH = 100
_MOST_WORDS = 200
_MOST_LINES = 1_000
# How many pairs' tokens are looked for in a line of standard error, in case they do not look like tokens.
_SCRUBBED_PAIRS = 200


class Answer(NamedTuple):
    """What a command says about a pair. `error` is None if it has stored the pair."""

    pair_id: str
    error: str | None


class CommandCourier(Courier):
    """Hands over what waits in `store` to one process of `command`, in `folder`.

    Each line of its standard error goes to `said`, scrubbed. If it should read or answer and does neither for `seconds`,
    it is killed and delivery rests.
    """

    def __init__(
        self,
        store: Store,
        command: Sequence[str],
        folder: Path,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(store, "command", clock)
        self._command = command
        self._folder = folder
        self._seconds = seconds
        self._lines = Lines(self._said.put)
        self._looks = Every(LOOK_SECONDS, clock)
        self._more = True

    def _hand_over_all(self) -> None:
        first = self._first()
        if not first:
            return
        try:
            program = Program(self._command, self._folder)
        except OSError as error:
            self._rest(f"{self._command[0]} cannot be run ({error.strerror})")
            return
        try:
            self._give(program, first)
            self._converse(program)
            code = program.code
        finally:
            program.close()
        self._conclude(program, code)

    def _first(self) -> list[WaitingPair]:
        """The first pairs. It waits for them, and gives none if none came until the end."""
        while not self._stopping.is_set():
            finishing = self._finishing  # Before the ledger is read: what came before that is seen.
            self._look.clear()
            if pairs := self._next():
                return pairs
            if finishing:
                break
            self._look.wait(LOOK_SECONDS)
        return []

    def _next(self) -> list[WaitingPair]:
        found = self._found(partial(self._store.hand_out, _BATCH))
        self._more = found.full
        return found.pairs

    def _give(self, program: Program, waiting: Iterable[WaitingPair]) -> None:
        pairs = [self._store.pair(one) for one in waiting]
        self._lines.may_hold(pairs)
        program.give(map(as_line, pairs))

    def _converse(self, program: Program) -> None:
        """Give it every waiting pair and take its answers, until it ends or nothing moves any more."""
        moved = self._clock()
        while program.code is None and self._clock() - moved <= self._seconds:
            if self._stopping.is_set():
                program.cut_short()
            elif program.wants_more:
                self._feed(program)
            heard = program.turn(TURN_SECONDS)
            answers = self._lines.answers(heard)
            settled = self._take(answers)
            if heard.read or settled or not program.owes:
                moved = self._clock()
            if not settled and (heard.output or heard.errors):
                time.sleep(_NOISE_SECONDS)

    def _feed(self, program: Program) -> None:
        finishing = self._finishing  # Before the ledger is read: what came before that is seen.
        if not self._looks.due(asked=self._more or self._look.is_set()):
            return
        self._look.clear()
        pairs = self._next()
        self._give(program, pairs)
        if finishing and not pairs:
            program.finish()

    def _take(self, answers: Sequence[Answer]) -> int:
        """Write answers down, then count and tell them. Returns how many pairs they settle. The first answer to a
        pair counts.
        """
        count = 0
        for batch in in_batches(answers, _BATCH):
            errors = {answer.pair_id: partial(_judged, error=answer.error) for answer in reversed(batch)}
            try:
                settled = self._store.answered(errors)
            except UnwritableError as refused:
                self._rest(str(refused))
                break
            for one in settled:
                self._tell(*one)
            count += len(settled)
        return count

    def _conclude(self, program: Program, code: int | None) -> None:
        """Say why it took no more, if it did not do everything. `code` is its own exit code."""
        left = max(0, program.begun - self.report.attempted)
        self.report = replace(self.report, attempted=self.report.attempted + left, failed=self.report.failed + left)
        if left or not (program.finished or self._stopping.is_set()):
            lacking = f", and has not acknowledged {left:,} of {self.report.attempted:,}" if left else ""
            self._rest(f"{self._command[0]} {how_it_ended(code, self._seconds)}{lacking}")


class Lines:
    """What a command says: answers, and a limited number of lines for the log, without secrets."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._left = _MOST_LINES
        self._secrets: deque[Secret] = deque(maxlen=2 * _SCRUBBED_PAIRS)

    def may_hold(self, pairs: Iterable[Pair]) -> None:
        """Look for the tokens of these pairs in what it says from now on."""
        for pair in pairs:
            self._secrets.extend(pair.secrets)

    def answers(self, heard: Heard) -> list[Answer]:
        """The answers in what was heard. Everything else is told."""
        found = [(line, _answer_in(line)) for line in heard.output]
        self._tell([*(line for line, answer in found if answer is None), *heard.errors])
        return [answer for _, answer in found if answer is not None]

    def _tell(self, lines: Sequence[bytes]) -> None:
        for line in lines[: self._left]:
            self._say(plain(scrub(line.decode(errors="replace"), self._secrets), _MOST_WORDS))
        if self._left and len(lines) > self._left:
            self._say(f"more than {_MOST_LINES:,} lines; the rest is left out")
        self._left = max(0, self._left - len(lines))


def as_line(pair: Pair) -> bytes:
    """A pair as a command gets it."""
    return json.dumps(pair.data, ensure_ascii=True).encode() + b"\n"


def how_it_ended(code: int | None, seconds: float) -> str:
    """How a command ended: with `code`, or because it did nothing for so many seconds."""
    if code is None:
        return f"neither read nor answered for {seconds:g} s and was killed"
    return f"ended with {code}" if code >= 0 else f"was ended by signal {-code}"


def refusal(error: str, secrets: Iterable[Secret]) -> str:
    """Why a command refuses a pair, without the pair's secrets."""
    return plain(scrub(error, secrets), _MOST_WORDS) or "it gave no reason"


def _judged(waiting: WaitingPair, error: str | None) -> tuple[Delivery, str]:
    if error is None:
        return Delivery.DELIVERED, ""
    if not waiting.tokens.is_open:  # The command has had a sealed pair for too long, so it is not known any more.
        return Delivery.REFUSED, "its reason is not shown, since it may hold the pair's tokens"
    return Delivery.REFUSED, refusal(error, (waiting.tokens.access_token, waiting.tokens.refresh_token))


def _answer_in(line: bytes) -> Answer | None:
    """The answer that a line is, or None for any other."""
    try:
        told = json.loads(line) if line.lstrip().startswith(b"{") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not isinstance(told.get("pair_id"), str):
        return None
    error = told.get("error")
    # Many programs write `null` or `false` if there was no error.
    return Answer(told["pair_id"], None if error is None or error is False else _text(error))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
