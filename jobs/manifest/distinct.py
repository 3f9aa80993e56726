"""The installs of a long list, each once, in bounded memory. What does not fit goes into a temporary file."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.core.errors import Problem
from jobs.core.file_errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.core.model import InstallKey

_MOST_MEMORY_KIB = 32_768


class Distinct:
    """A set of installs, of which it keeps only the ids. Raises FileError if the disk of the temporary file is full."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for statement in (
            f"PRAGMA cache_size = -{_MOST_MEMORY_KIB}",
            "PRAGMA journal_mode = OFF",
            "CREATE TABLE keys (client_id, level, account_id, PRIMARY KEY (client_id, level, account_id)) WITHOUT ROWID",
            "BEGIN",  # A transaction for each statement would take most of the time.
        ):
            self._connection.execute(statement)

    def close(self) -> None:
        """Forget them all."""
        self._connection.close()

    def add(self, key: InstallKey) -> bool:
        """Remember an install. Returns whether it is new."""
        with _blaming_the_disk():
            return self._connection.execute("INSERT OR IGNORE INTO keys VALUES (?, ?, ?)", key).rowcount == 1

    def take(self, key: InstallKey) -> bool:
        """Forget an install. Returns whether it was there."""
        where = "client_id = ? AND level = ? AND account_id = ?"
        with _blaming_the_disk():
            return self._connection.execute(f"DELETE FROM keys WHERE {where}", key).rowcount == 1  # noqa: S608


@contextmanager
def _blaming_the_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        todo = "make room in the folder for temporary files, or set SQLITE_TMPDIR to another one"
        raise FileError(Problem(f"the ids of the list cannot be kept ({error})", "", todo)) from None
