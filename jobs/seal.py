"""The story of `seal`: the open pairs of a folder are sealed in every file there, and old sealed ones for new recipients.

Until it has ended, runs on that folder are refused. If it is killed, the next one goes through what is left.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from jobs.config.settings import load_settings
from jobs.core.clock import Every
from jobs.core.errors import Exit, refuse
from jobs.core.plurals import counted
from jobs.ledger import pair_pages, scrubbing
from jobs.ledger.engines import Purpose
from jobs.ledger.sealed import begin_sealing, command_for, end_sealing, is_half_sealed
from jobs.ledger.unwritten import UNWRITTEN, has_open_lines, seal_lines, take_in
from jobs.report import render_with
from jobs.reports.earlier import holds_open_pairs, refuse_unknown_tokens
from jobs.reports.files import OPENED
from jobs.sealing.opener import Unread, opened
from jobs.sealing.sealer import Sealer
from jobs.start import SETTINGS, environment_of, open_held, opener_of, place_by
from jobs.system.files import clear_left_behind
from jobs.system.locks import alone, patience_for_reports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from jobs.core.model import Tokens
    from jobs.ledger.ledger import Ledger
    from jobs.ledger.pair_pages import Pair
    from jobs.ledger.place import Place
    from jobs.sealing.opener import Opener


_MOST_NAMED = 20
_TELL_SECONDS = 60.0


@dataclass(slots=True)
class _Sealing:
    """Seals pairs, names those that it cannot open first, and counts. Without an `opener`, sealed pairs are left alone.

    When it is `due`, it tells how many are sealed.
    """

    sealer: Sealer
    opener: Opener | None
    say: Callable[[str], None]
    tell: Callable[[str], None]
    due: Every
    are_open: int = 0
    for_others: int = 0
    were_open: int = 0
    again: int = 0
    refused: int = 0

    def is_for(self, tokens: Tokens) -> bool:
        """Whether it has something to do with a pair."""
        return tokens.is_open or self._is_for_others(tokens)

    def _is_for_others(self, tokens: Tokens) -> bool:
        sealed = tokens.sealed
        return sealed is not None and self.opener is not None and sealed.recipients != self.sealer.named

    def seal(self, pair: Pair) -> Tokens | None:
        """The pair, sealed, or None if it cannot be opened."""
        key, tokens = pair.key, pair.tokens
        was_open = tokens.sealed is None
        if not was_open and not self._is_for_others(tokens):
            return tokens  # Somebody wrote an open pair beside it, which goes when it is written again.
        found = opened(self.opener, key, tokens)
        if isinstance(found, Unread):
            self.refused += 1
            if self.refused <= _MOST_NAMED:
                self.say(f"{key.account_id} (client id {key.client_id}): its pair stays as it was: {found.why}")
            return None
        self.were_open += was_open
        self.again += not was_open
        return self.sealer.seal(key, found, pair.recovered_at)

    @property
    def to_do(self) -> int:
        """How many pairs of the ledger it has to seal."""
        return self.are_open + (self.for_others if self.opener else 0)

    def begins(self) -> None:
        """Tell how many pairs there are."""
        pairs = counted(self.to_do, "pair", "pairs")
        self.tell(f"the ledger has {pairs} to seal; then it is written again, and so are the reports")

    def goes_on(self) -> None:
        """Tell how many are sealed, if it is time."""
        if self.due.due():
            self.tell(f"{counted(self.were_open + self.again, 'pair is', 'pairs are')} sealed so far")


def seal(
    folder: Path,
    project: Path,
    environment: Mapping[str, str],
    identity: Path | None,
    ask: Callable[[str], str],
    say: Callable[[str], None],
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Exit:
    """Seal the pairs in `folder`: the open ones, and with `identity` also those that are sealed for others.

    Returns the exit code.
    `ask` gives the passphrase for what is asked about. A person is told what was done by `tell`, each minute by `clock` also
    how far it is, and the rest by `say`. Raises UserError and FileError.
    """
    known = environment_of(project, environment)
    settings = load_settings(project / SETTINGS, known, {})
    recipients = settings.seal.recipients
    if not recipients:
        raise refuse("is empty, so there is nobody to seal for", "seal.recipients", "set it to one or more public keys")
    place = place_by(settings.ledger, known, folder)
    with ExitStack() as held:
        ledger = open_held(held, place, "recover seal", say)
        base_url = ledger.ask(place.bound_to)
        opener, due = opener_of(identity, base_url, ask, say), Every(_TELL_SECONDS, clock, clock())
        sealing = _Sealing(Sealer(recipients, base_url), opener, say, tell, due)
        # All of them look before it begins, and each refuses what it cannot read.
        works = any([_is_needed(ledger, sealing), has_open_lines(folder, base_url), holds_open_pairs(folder)])
        if works:
            ledger.ask(partial(refuse_unknown_tokens, folder=folder), Purpose.ONE_MOMENT)
            with _to_be_repeated(folder, say):
                _seal_files(ledger, sealing, folder, base_url)
                _leave_nothing_open(ledger, folder, project, known, say)
                ledger.write(end_sealing)
    for line in (*_results(sealing, folder, works=works), *_left_to_do(sealing, place, works=works)):
        tell(line)
    return Exit.SOME_FAILED if sealing.refused else Exit.OK


def _is_needed(ledger: Ledger, sealing: _Sealing) -> bool:
    """Whether the ledger has something to seal, or an earlier seal did not end."""
    _count(ledger, sealing)
    return bool(sealing.to_do or ledger.ask(is_half_sealed))


def _count(ledger: Ledger, sealing: _Sealing) -> int:
    """How many pairs are open. Those that are sealed for others are counted too."""
    count = partial(pair_pages.how_many, recipients=sealing.sealer.named)
    sealing.are_open, sealing.for_others = ledger.ask(count, Purpose.ONE_MOMENT)
    return sealing.are_open


@contextmanager
def _to_be_repeated(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """For a block that begins to seal. If it does not end, a person is told how to go on."""
    try:
        yield
    except BaseException:
        say(f"open pairs may be left in {folder}: run {command_for(folder)} again; until then, runs on it are refused")
        raise


def _seal_files(ledger: Ledger, sealing: _Sealing, folder: Path, base_url: str) -> None:
    """Seal the pairs that were set aside, and those of the ledger."""
    sealing.begins()
    ledger.write(begin_sealing)
    sealing.were_open += seal_lines(folder, base_url, sealing.sealer.seal)
    take_in(ledger, folder, base_url)
    _seal_pairs(ledger, sealing, folder)


def _seal_pairs(ledger: Ledger, sealing: _Sealing, folder: Path) -> None:
    """Seal the ledger's pairs, until none is open: a database that goes back brings some back. Raises UserError."""
    _seal_in_pages(ledger, sealing)
    while left := _count(ledger, sealing):
        if not _seal_in_pages(ledger, sealing):
            raise refuse(f"holds open pairs that cannot be sealed: {left:,}", str(folder), "correct or purge them")


def _seal_in_pages(ledger: Ledger, sealing: _Sealing) -> int:
    """How many pairs were written."""
    last = count = 0
    while pairs := ledger.ask(partial(pair_pages.pairs_after, last=last), Purpose.ONE_MOMENT):
        mine = [pair for pair in pairs if sealing.is_for(pair.tokens)]
        sealed = [(pair.number, tokens) for pair in mine if (tokens := sealing.seal(pair)) is not None]
        if sealed:
            ledger.write(partial(pair_pages.replace_tokens, sealed=sealed))
        count += len(sealed)
        last = pairs[-1].number
        sealing.goes_on()
    return count


def _leave_nothing_open(
    ledger: Ledger, folder: Path, project: Path, known: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """Replace the reports, and leave no trace of what the ledger held before."""
    with alone(folder, patience_for_reports(say)):
        clear_left_behind(folder)
    if ledger.last_run() is not None:  # Pairs may have been set aside for a ledger that has none yet.
        render_with(ledger, folder, project, known, say, None)
    scrubbing.scrub(ledger, scrubbing.SEAL)


def _results(sealing: _Sealing, folder: Path, *, works: bool) -> Iterator[str]:
    """What was done, for a person."""
    names = " and ".join(sealing.sealer.named)
    if not works:
        yield f"nothing to seal in {folder}: it holds no open pair"
        return
    if sealing.were_open:
        yield f"{counted(sealing.were_open, 'open pair is', 'open pairs are')} sealed for {names}"
    if sealing.again:
        which = counted(sealing.again, "pair that was sealed for others is", "pairs that were sealed for others are")
        yield f"{which} sealed again for {names}"
    yield f"no open pair is left in the ledger of {folder}, in its results.csv and in its {UNWRITTEN}"


def _left_to_do(sealing: _Sealing, place: Place, *, works: bool) -> Iterator[str]:
    """What is left for a person to do."""
    folder = place.folder
    if sealing.refused:
        yield f"{counted(sealing.refused, 'pair', 'pairs')} could not be opened: see above{'' if sealing.refused <= _MOST_NAMED else ', where the first are named'}"
    elif sealing.for_others and not sealing.opener:
        which = counted(sealing.for_others, "pair stays", "pairs stay")
        yield f"{which} sealed for other recipients: {command_for(folder, ' --identity FILE')} seals them again"
    if (folder / OPENED).exists():
        yield f"{folder / OPENED} holds open pairs: remove it once you have used it"
    if place.left_behind:
        yield f"{place.left_behind} was moved into the database, and still holds the pairs it had: remove it"
    if works:
        yield "lists with old pairs, backups and earlier copies are yours to find and remove; they stay as they are"
        if place.in_database:
            yield "so are the database's own log (WAL), its replicas and its backups, which keep what they had"
