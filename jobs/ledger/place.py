"""Where the ledger of an output folder is: in the folder, or in PostgreSQL if its address is set."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.config.settings import LedgerSettings
from jobs.core.errors import refuse
from jobs.ledger import opening
from jobs.ledger.moves import is_copied, refuse_moved
from jobs.ledger.tables import remembered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from jobs.ledger.ledger import Ledger
    from jobs.ledger.moves import Marks
    from jobs.ledger.refusals import Wait


@dataclass(frozen=True, slots=True)
class Place:
    """The place of the ledger of `folder`, for the API at `base_url` ('': any, but only in a folder)."""

    folder: Path
    base_url: str = ""
    settings: LedgerSettings = field(default_factory=LedgerSettings)

    @property
    def in_database(self) -> bool:
        """Whether it is in PostgreSQL."""
        return self.settings.in_database

    @property
    def left_behind(self) -> Path | None:
        """The file of a ledger that was moved into the database, if it is still there."""
        path = self.folder / opening.LEDGER
        return path if self.in_database and path.exists() else None

    def __str__(self) -> str:
        """The place of it, for a person."""
        if not self.in_database:
            return str(self.folder.absolute() / opening.LEDGER)
        from jobs.ledger.in_database import named  # slow to import, and needed only with a database

        return named(self.settings, self.folder)

    def open(
        self,
        wait: Wait,
        holder: str,
        client_ids: Iterable[str] = (),
        *,
        even_moved: bool = False,
    ) -> Ledger:
        """The ledger, made if it is missing. In a database, `holder` has the leases of it and of these apps until it is
        closed.

        `wait` says how to wait if another program holds it. `even_moved`: also one that was moved. Raises UserError, with
        exit 11 if another run has a lease.
        """
        self._refuse_both()
        if not self.in_database:
            return opening.open_ledger(self.folder, self.base_url, wait, even_moved=even_moved)
        from jobs.ledger.in_database import open_in_database

        return open_in_database(
            self.settings, self.folder, self.base_url, wait, holder, client_ids, even_moved=even_moved
        )

    def fill(
        self,
        wait: Wait,
        holder: str,
        fill: Callable[[Connection], None],
        retire: Callable[[], None],
        *,
        replaces: bool = False,
    ) -> None:
        """Make the ledger with what `fill` writes, whole or not at all.

        `retire` is called just before it is there, so that its source is used no more.
        `replaces`: it replaces one that is there, which only a database can do. Raises UserError, FileError, and what the
        two raise.
        """
        if not self.in_database:
            opening.fill_new(self.folder, self.base_url, wait, fill, retire)
            return
        from jobs.ledger.in_database import fill_in_database

        fill_in_database(self.settings, self.folder, self.base_url, holder, fill, retire, replaces=replaces)

    def marks(self) -> Marks | None:
        """Where the ledger came from and went, or None if there is none. Raises UserError."""
        if not self.in_database:
            return opening.marks_in(self.folder)
        from jobs.ledger.in_database import marks_in_database

        return marks_in_database(self.settings, self.folder, self.base_url)

    def open_beside(self, wait: Wait, lease: str = "") -> Ledger:
        """The ledger of a run that may be under way, or that was cut short and had this `lease`. Raises UserError."""
        if not self.in_database:
            return opening.open_ledger(self.folder, self.base_url, wait)
        from jobs.ledger.in_database import open_beside

        return open_beside(self.settings, self.folder, self.base_url, wait, lease)

    def end_lease(self, lease: str) -> None:
        """End the leases of a run that was cut short, if it had any."""
        if lease:
            from jobs.ledger.lease import end_leases
            from jobs.ledger.postgres import database_of

            end_leases(database_of(self.settings), lease)

    @contextmanager
    def reading(self) -> Iterator[Ledger]:
        """The ledger, only to read, or an empty one if there is none. Raises UserError."""
        self._refuse_both()
        if not self.in_database:
            with opening.reading(self.folder / opening.LEDGER, self.base_url) as ledger:
                yield ledger
            return
        from jobs.ledger.in_database import reading_from

        with reading_from(self.settings, self.folder, self.base_url) as ledger:
            yield ledger

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """A block in which the ledger is read for long.

        Raises UserError at its end if somebody has begun to write to the file, which was read without a lock.
        """
        path = self.folder / opening.LEDGER
        before = None if self.in_database else opening.stamp_of(path)
        yield
        if before is not None and opening.stamp_of(path) != before:
            raise refuse("has changed while it was read", str(path), "run this again")

    def exists(self) -> bool:
        """Whether a run has begun it. Raises UserError."""
        if not self.in_database:
            return opening.is_begun(self.folder / opening.LEDGER)
        from jobs.ledger.in_database import exists_in_database

        return exists_in_database(self.settings, self.folder, self.base_url)

    def bound_to(self, connection: Connection) -> str:
        """The address of the API whose pairs the ledger holds."""
        return self.base_url or remembered(connection, "base_url") or ""

    def must_exist(self) -> None:
        """Raise UserError if there is no ledger."""
        self._refuse_both()
        if not self.in_database:
            opening.must_hold_ledger(self.folder)
        elif not self.exists():
            raise refuse("has no ledger in the database", str(self.folder), "use the output folder of a run")

    def _refuse_both(self) -> None:
        """Raise UserError if the folder holds a ledger although it belongs in the database, unless it was moved there."""
        left = opening.marks_in(self.folder) if self.in_database else None
        if left is None or is_copied(left, self.marks() if left.moved_to else None):
            return
        path = self.folder / opening.LEDGER
        if left.moved_to:
            todo = f"{self} is not the copy of it: set RECOVERY_LEDGER__URL and RECOVERY_LEDGER__NAME as they were"
            raise refuse_moved(str(path), left.moved_to, todo)
        what = f"holds {opening.LEDGER}, but RECOVERY_LEDGER__URL is set"
        todo = f"move it into the database (`recover ledger copy {self.folder} database`), or unset that variable"
        raise refuse(what, str(self.folder), todo)
