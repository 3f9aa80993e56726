"""The story of `ledger copy`: a whole ledger goes from a folder into the database or back, and the old one is retired."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from jobs.config.settings import LedgerSettings, SealSettings, load_section
from jobs.core.errors import refuse
from jobs.core.plurals import counted
from jobs.ledger.copying import copy_rows
from jobs.ledger.engines import Purpose
from jobs.ledger.moves import Marks, is_copied, mark, marks_of, may_replace, refuse_moved
from jobs.ledger.place import Place
from jobs.ledger.refusals import usual_wait
from jobs.ledger.sealed import command_for, refuse_half_sealed, refuse_open
from jobs.ledger.unwritten import take_in
from jobs.start import SETTINGS, hold_folder, place_of, readable_environment
from jobs.system.files import clear_left_behind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Connection

    from jobs.ledger.ledger import Ledger

_HOLDER = "`recover ledger copy`"
_BACKUPS = "its pairs are still in it: keep it as safe as the copy, or remove it"


def copy(
    folder: Path, project: Path, environment: Mapping[str, str], say: Callable[[str], None], *, into_database: bool
) -> Iterator[str]:
    """Copy the ledger of `folder` into the database, or the other way round. Yields lines for a person.

    Raises UserError, with exit 11 if a run is under way on either side. It may be killed at any moment: repeated, it
    finishes what it began.
    """
    database = place_of(project, environment, folder)
    if not database.in_database:
        todo = "set RECOVERY_LEDGER__URL=postgresql://user:password@host/name"
        raise refuse("is not set, so there is no database to copy from or to", "RECOVERY_LEDGER__URL", todo)
    in_folder = Place(folder, database.base_url, LedgerSettings())
    source, target = (in_folder, database) if into_database else (database, in_folder)
    had = source.marks()
    if had is None:
        raise refuse("holds no ledger", str(source), "copy the ledger of a run")
    with ExitStack() as held:
        hold_folder(held, folder, "recover ledger copy")
        clear_left_behind(folder)
        there = target.marks()
        if is_copied(had, there):
            yield f"nothing to do: {target} is the copy of {source} already"
            return
        _refuse(source, had, target, there)
        ledger = source.open(usual_wait(say), _HOLDER, even_moved=True)
        held.callback(ledger.close)
        todo = f"run {command_for(folder)}{' without RECOVERY_LEDGER__URL' if into_database else ''}"
        ledger.ask(partial(refuse_half_sealed, folder=folder, todo=todo))
        if load_section(SealSettings, project / SETTINGS, readable_environment(project, environment)).recipients:
            ledger.ask(partial(refuse_open, folder=folder, todo=todo), Purpose.ONE_MOMENT)
        take_in(ledger, folder, source.base_url)
        if ledger.ask(marks_of) != had:  # Nobody else can move it from here on.
            raise refuse("was copied by somebody else meanwhile", str(source), "see where it is now, then repeat this")
        installs = _copied(ledger, had, target, say, replaces=there is not None)
    copied = counted(installs, "install is", "installs are")
    yield f"{copied} copied from {source} to {target}; every table has the same rows and fingerprints"
    yield f"runs over {source} are refused from now on; {_BACKUPS}"
    yield f"{'keep RECOVERY_LEDGER__URL set' if into_database else 'unset RECOVERY_LEDGER__URL'} for every command on {folder}"


def _refuse(source: Place, had: Marks, target: Place, there: Marks | None) -> None:
    """Raise UserError if the source is not the newest copy of its ledger, or the target holds something that would be lost."""
    if had.moved_to and had.moved_to != str(target):
        raise refuse_moved(str(source), had.moved_to, "copy from there")
    if there is None or (target.in_database and may_replace(had, there)):
        return
    if may_replace(had, there):
        todo = f"it was moved to {source}: remove it, then repeat this"
    elif target.in_database:
        todo = "use a different ledger.name"
    else:
        todo = "use a folder without one"
    raise refuse("holds a ledger", str(target), todo)


def _copied(ledger: Ledger, had: Marks, target: Place, say: Callable[[str], None], *, replaces: bool) -> int:
    """How many installs were copied. The source is marked as moved just before the target is there: never are both in use."""
    own, installs = secrets.token_hex(8), 0

    def fill(new: Connection) -> None:
        nonlocal installs
        with ledger.at_one_moment() as old:
            installs = copy_rows(old, new)
        mark(new, Marks(came_as=own))

    def retire() -> None:
        ledger.write(lambda connection: mark(connection, Marks(had.came_as, own, str(target))))

    target.fill(usual_wait(say), _HOLDER, fill, retire, replaces=replaces)
    return installs
