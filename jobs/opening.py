"""Opening a ledger, and keeping what only an earlier report still knows."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING

from sqlalchemy import inspect, select, text
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError

from jobs import schema
from jobs.errors import refuse
from jobs.folder import make_private_file
from jobs.ledger import Ledger, in_batches
from jobs.records import fingerprint
from jobs.schema import meta

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

LEDGER = "ledger.sqlite3"
RESULTS = "results.csv"
_UPGRADABLE = range(1, schema.VERSION)


def open_ledger(folder: Path, base_url: str) -> Ledger:
    """The ledger of an output folder, made where it is missing. Raises UserError where it must not be used."""
    path = folder / LEDGER
    try:
        make_private_file(path)
        engine = schema.open_file(path)
        with engine.begin() as connection:
            if connection.scalar(text("PRAGMA user_version")) == 0:
                _make_tables(connection, base_url)
            elif connection.scalar(text("PRAGMA user_version")) in _UPGRADABLE:
                _add_tables(connection)
            refuse_another(connection, path, base_url)
        return Ledger(engine)
    except (schema.DamagedError, DatabaseError):
        raise refuse("is damaged", str(path), "restore it, or move it away and give another --output") from None
    except OSError as error:
        todo = "make room, mend the folder's rights, or give another --output"
        raise refuse(f"cannot be opened ({error.strerror})", str(path), todo) from None


def _make_tables(connection: Connection, base_url: str) -> None:
    """Make a fresh ledger, whole or not at all: left alone, Python's SQLite would commit each table by itself."""
    connection.execute(text("BEGIN IMMEDIATE"))
    if not inspect(connection).get_table_names():
        schema.metadata.create_all(connection)
        connection.execute(upsert(meta).values(name="base_url", value=base_url))
        connection.execute(text(f"PRAGMA user_version = {schema.VERSION}"))


def refuse_another(connection: Connection, path: Path, base_url: str) -> None:
    """Raise UserError for a ledger of another version, or of another API than `base_url` (empty: of any)."""
    version = connection.scalar(text("PRAGMA user_version"))
    if version not in (schema.VERSION, *_UPGRADABLE):
        what = f"has the version {version}, and this job knows {schema.VERSION}"
        raise refuse(what, str(path), "use the newer release of the job, or give another --output")
    bound = connection.scalar(select(meta.c.value).where(meta.c.name == "base_url"))
    if base_url and bound != base_url:
        todo = "give another --output, or set HIGHLEVEL_BASE_URL as it was"
        raise refuse(f"belongs to {bound}, not to {base_url}", str(path), todo)


def _add_tables(connection: Connection) -> None:
    """Bring a ledger of an earlier version up to this one: every version since has added tables, and nothing else."""
    connection.execute(text("BEGIN IMMEDIATE"))
    schema.metadata.create_all(connection)
    connection.execute(text(f"PRAGMA user_version = {schema.VERSION}"))


def refuse_unknown_tokens(folder: Path, ledger: Ledger) -> None:
    """Raise UserError where results.csv holds tokens that the ledger does not know: they would be lost."""
    path = folder / RESULTS
    if not path.is_file():
        return
    try:
        for batch in in_batches(_pairs(path)):
            if not ledger.knows_pairs(batch):
                todo = "move it to a safe place, then run again"
                raise refuse("holds tokens that the ledger beside it does not know", str(path), todo)
    except (OSError, UnicodeError, csv.Error) as error:
        raise refuse(f"cannot be read ({type(error).__name__})", str(path), "move it to a safe place") from None


def _pairs(path: Path) -> Iterator[str]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            access, refresh = row.get("access_token") or "", row.get("refresh_token") or ""
            if access or refresh:
                yield fingerprint(access, refresh)
