"""Where the ledger of an output folder is: in the folder, or in PostgreSQL if its address is set."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.config.settings import LedgerSettings
from jobs.core.errors import refuse
from jobs.ledger import opening
from jobs.ledger.unwritten import UNWRITTEN, take_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from jobs.ledger.ledger import Ledger
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

    def open(self, wait: Wait, holder: str, client_ids: Iterable[str] = ()) -> Ledger:
        """The ledger, made if it is missing, with the pairs that an earlier run had to set aside. In a database, `holder` has
        the leases of it and of these apps until it is closed.

        `wait` says how to wait if another program holds it. Raises UserError, with exit 11 if another run has a lease.
        """
        self._refuse_both()
        ledger = self._opened(wait, holder, client_ids)
        try:
            if taken := take_in(ledger, self.folder, self.base_url):
                wait.patience.say(f"{taken} pairs of {UNWRITTEN} are in the ledger now")
        except BaseException:
            ledger.close()
            raise
        return ledger

    def _opened(self, wait: Wait, holder: str, client_ids: Iterable[str]) -> Ledger:
        if not self.in_database:
            return opening.open_ledger(self.folder, self.base_url, wait)
        from jobs.ledger.in_database import open_in_database  # slow to import, and needed only with a database

        return open_in_database(self.settings, self.folder, self.base_url, wait, holder, client_ids)

    def open_beside(self, wait: Wait, lease: str = "") -> Ledger:
        """The ledger of a run that may be under way, or that was cut short and had this `lease`. Raises UserError."""
        self.must_exist()
        if not self.in_database:
            return opening.open_ledger(self.folder, self.base_url, wait)
        from jobs.ledger.in_database import open_beside

        return open_beside(self.settings, self.folder, self.base_url, wait, lease)

    def end_lease(self, lease: str) -> None:
        """End the leases of a run that was cut short, if it had any."""
        if lease:
            from jobs.ledger.in_database import end_leases

            end_leases(self.settings, lease)

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

    def exists(self) -> bool:
        """Whether a run has begun it. Raises UserError."""
        if not self.in_database:
            return opening.is_begun(self.folder / opening.LEDGER)
        from jobs.ledger.in_database import exists

        return exists(self.settings, self.folder, self.base_url)

    def must_exist(self) -> None:
        """Raise UserError if there is no ledger."""
        self._refuse_both()
        if not self.in_database:
            opening.must_hold_ledger(self.folder)
        elif not self.exists():
            raise refuse("has no ledger in the database", str(self.folder), "use the output folder of a run")

    def _refuse_both(self) -> None:
        if self.in_database and (self.folder / opening.LEDGER).exists():
            what = f"holds {opening.LEDGER}, but RECOVERY_LEDGER__URL is set"
            todo = f"move it into the database: `recover ledger copy {self.folder} database`"
            raise refuse(what, str(self.folder), todo)
