"""The story of `open`: the table of results.csv with the tokens of its sealed pairs, for whoever has an identity.

It reads the ledger, and changes nothing of it. A run may go on beside it.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from jobs.core.errors import Exit, refuse
from jobs.core.model import InstallKey, Tokens
from jobs.core.plurals import counted
from jobs.core.secret import Secret
from jobs.ledger.engines import Purpose
from jobs.ledger.opening import LEDGER
from jobs.ledger.reads import records, user_columns
from jobs.ledger.sealed import holds_sealed_pairs, refuse_half_sealed
from jobs.ledger.unwritten import UNWRITTEN, notice
from jobs.reports.files import OPENED, REPORTS
from jobs.reports.tables import write_results
from jobs.sealing.opener import Unread
from jobs.start import opener_of, place_of
from jobs.system.files import clear_left_behind, replacing
from jobs.system.locks import LOCK
from jobs.system.output_folder import RESERVE, make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from jobs.core.model import Record
    from jobs.ledger.ledger import Ledger
    from jobs.sealing.opener import Opener

STANDARD_OUTPUT = Path("-")
_STDOUT = 1
_MOST_NAMED = 20
_NO = Secret("")
_OTHERS = {*REPORTS, LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm", UNWRITTEN, LOCK, RESERVE}
_OF_THE_SYSTEM = ("/dev/", "/proc/")


@dataclass(slots=True)
class _Tally:
    """Counts what was opened and what was refused, and names the first refusals."""

    say: Callable[[str], None]
    opened: int = 0
    refused: int = 0

    def refuse(self, key: InstallKey, why: str) -> None:
        self.refused += 1
        if self.refused <= _MOST_NAMED:
            self.say(f"{key.account_id} (client id {key.client_id}): its pair is not opened: {why}")

    def lines(self, target: Path) -> Iterator[str]:
        """What was done, for a person."""
        if self.refused > _MOST_NAMED:
            yield f"{self.refused - _MOST_NAMED:,} more are not opened"
        where = "" if target == STANDARD_OUTPUT else f" in {target}"
        yield f"{counted(self.opened, 'pair is', 'pairs are')} open{where}, {self.refused:,} refused"
        if where and self.opened:
            yield "whoever can read that file can use the connections: remove it once you have used it"


def open_pairs(
    folder: Path,
    project: Path,
    environment: Mapping[str, str],
    identity: Path,
    output: Path | None,
    ask: Callable[[str], str],
    say: Callable[[str], None],
    tell: Callable[[str], None],
) -> Exit:
    """Write the table of the pairs in `folder`, opened with `identity`. Returns the exit code.

    `ask` gives the passphrase for what is asked about. A person is warned by `say`, and `tell` says what was done. Raises
    UserError and FileError.
    """
    place, target = place_of(project, environment, folder), output or folder / OPENED
    place.must_exist()
    _refuse_target(target, folder, identity)
    for warning in notice(folder):
        say(warning)
    with place.reading() as ledger:
        if not ledger.ask(holds_sealed_pairs, Purpose.ONE_MOMENT):
            open_in = f"look into {folder / 'results.csv'}, where its pairs are open, if it has any"
            raise refuse("holds no sealed pairs", str(place), open_in)
        ledger.ask(partial(refuse_half_sealed, folder=folder), Purpose.ONE_MOMENT)
        opener = opener_of(identity, ledger.ask(place.bound_to), ask, say)
        assert opener is not None
        tally = _Tally(say)
        with _file(target, folder) as file, place.unchanged():
            _write(file, ledger, opener, tally)
    for line in tally.lines(target):
        tell(line)
    return Exit.SOME_FAILED if tally.refused else Exit.OK


def _refuse_target(target: Path, folder: Path, identity: Path) -> None:
    """Raise UserError if the table must not replace what is at `target`."""
    if target == STANDARD_OUTPUT:
        if getattr(sys.stdout, "failed", False):  # Its number may be that of another file by now.
            raise refuse("is closed", "standard output", "send it to a program or a file")
        if os.isatty(_STDOUT):
            what = "is a terminal, where the tokens would stay to be read"
            raise refuse(what, "standard output", "send it to a program (`| ...`), or give the name of a file")
        return
    if str(target.absolute()).startswith(_OF_THE_SYSTEM):
        raise refuse("is not a file", str(target), "give `--output -` for standard output")
    if target.is_dir() and not target.is_symlink():
        raise refuse("is a folder", str(target), "give the name of a file to --output")
    with suppress(OSError):
        if target.samefile(identity):
            raise refuse("is the identity itself", str(target), "give another name to --output")
    with suppress(OSError):
        if target.name in _OTHERS and target.parent.samefile(folder):
            raise refuse("is a file of the job", str(target), "give another name to --output")


@contextmanager
def _file(target: Path, folder: Path) -> Iterator[BinaryIO]:
    """The file for the table. It is there whole when the block ends without an error, or not at all."""
    if target == STANDARD_OUTPUT:
        with _standard_output() as file:
            yield file
        return
    if target.parent == folder:
        make_folder(folder)  # The ledger may be in a database, and the folder on another machine.
    clear_left_behind(target.parent, target.name)
    with replacing(target) as file:
        yield file


@contextmanager
def _standard_output() -> Iterator[BinaryIO]:
    """Standard output itself: no word of the job passes through it."""
    try:
        with open(_STDOUT, "wb", closefd=False) as file:
            yield file
    except OSError as error:
        todo = "check the program that reads it, or give the name of a file"
        raise refuse(f"cannot be written ({error.strerror})", "standard output", todo) from None


def _write(file: BinaryIO, ledger: Ledger, opener: Opener, tally: _Tally) -> None:
    with ledger.at_one_moment() as connection:
        write_results(file, user_columns(connection), _opened(records(connection), opener, tally))


def _opened(found: Iterable[Record], opener: Opener, tally: _Tally) -> Iterator[Record]:
    """The records with their tokens. A pair that is refused stays empty."""
    for record in found:
        if record.tokens is None or record.tokens.is_purged or record.level is None:
            yield record
            continue
        opened = (
            opener.open(record.key, record.tokens) if record.tokens.sealed else Unread("it is open beside sealed ones")
        )
        match opened:
            case Unread(why):
                tally.refuse(record.key, why)
                yield replace(record, tokens=replace(record.tokens, access_token=_NO, refresh_token=_NO, sealed=None))
            case Tokens() as tokens:
                tally.opened += 1
                yield replace(record, tokens=tokens)
