"""Protects token pairs in an earlier report: pairs that the ledger beside it does not have are never overwritten."""

from __future__ import annotations

import csv
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.core.batches import in_batches
from jobs.core.errors import refuse
from jobs.core.fingerprints import fingerprint, sealed_mark
from jobs.core.model import ARMOR
from jobs.ledger.opening import RESULTS
from jobs.ledger.reads import knows_pairs
from jobs.ledger.refusals import UnwritableError
from jobs.manifest.reader import SEPARATORS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection


_TODO = "move it to a safe place and run the job again"
# A pair that was changed in the ledger comes into the table again and again.
_TODO_IF_UNKNOWN = f"{_TODO}; if this comes back, somebody has changed a pair in the ledger: put back a backup of the ledger, or use a different --output"


def holds_open_pairs(folder: Path) -> bool:
    """Whether results.csv holds tokens that are not sealed. Raises UserError if it cannot be read."""
    path = folder / RESULTS
    with _readable(path):
        return any(row["access_token"] or row["refresh_token"] for row in _rows(path))


def refuse_unknown_tokens(connection: Connection, folder: Path) -> None:
    """Raise UserError if results.csv holds tokens that the ledger does not know. The run would lose them.

    Raises UnwritableError if the ledger cannot be read.
    """
    path = folder / RESULTS
    with _readable(path):
        for batch in in_batches(_pairs(path)):
            if not knows_pairs(connection, batch):
                raise refuse("holds tokens that the ledger beside it does not know", str(path), _TODO_IF_UNKNOWN)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """For a block that reads a report. Raises UserError if it cannot be read."""
    try:
        yield
    except UnwritableError:
        raise  # It is the ledger that cannot be read, not the report.
    except (OSError, UnicodeError, csv.Error) as error:
        what = f"may hold tokens, but the job cannot read it ({type(error).__name__})"
        raise refuse(what, str(path), _TODO) from None


def _pairs(path: Path) -> Iterator[str]:
    """The fingerprints of the pairs in a results.csv."""
    for row in _rows(path):
        access, refresh = row["access_token"] or "", row["refresh_token"] or ""
        if access or refresh:
            yield fingerprint(access, refresh)
        # A list of the user's may have had a column of this name before the reports had one.
        if (sealed := row.get("sealed") or "").startswith(ARMOR):
            yield sealed_mark(sealed)


def _rows(path: Path) -> Iterator[dict[str, str | None]]:
    """The rows of a results.csv. A spreadsheet may have saved it with a different separator."""
    if path.is_symlink() or not path.is_file():
        return  # The report replaces a link and never writes to its target.
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        separator = next((one for one in SEPARATORS if _names_pairs(header, one)), None)
        if separator is None and (header.strip() or file.read(1)):
            raise csv.Error("its first line does not name the columns of a pair")
        file.seek(0)
        yield from csv.DictReader(file, delimiter=separator or ",")


def _names_pairs(header: str, separator: str) -> bool:
    return {"access_token", "refresh_token"} <= set(next(csv.reader([header], delimiter=separator), ()))
