"""Opens a ledger to write or to read."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError

from jobs.core.errors import UserError, refuse
from jobs.core.file_errors import FileError, doing
from jobs.ledger import tables
from jobs.ledger.engines import Purpose, transaction
from jobs.ledger.ledger import Ledger
from jobs.ledger.moves import marks_of, refuse_moved
from jobs.ledger.refusals import DAMAGED, UnwritableError, Wait, usual_wait
from jobs.ledger.scratch import Scratch
from jobs.ledger.sqlite import (
    POOL,
    folder_for_temporary_files,
    in_one_file,
    open_file,
    open_memory,
    prepare,
    temp_store_for,
)
from jobs.system.files import clear_left_behind, make_private_file, name_while_new, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from jobs.ledger.moves import Marks

LEDGER = "ledger.sqlite3"
RESULTS = "results.csv"
_UPGRADABLE = range(1, tables.VERSION)
_CACHE_KIB = 48 << 10  # For the indexes of a whole ledger, which grow in random order while it is copied.


def open_ledger(folder: Path, base_url: str, wait: Wait | None = None, *, even_moved: bool = False) -> Ledger:
    """The ledger of an output folder, made if it is missing. `wait` says how to wait if another program holds it.
    `even_moved`: also one that was moved.

    Raises UserError if it must not or cannot be used.
    """
    path, wait = folder / LEDGER, wait or usual_wait()
    try:
        make_private_file(path)
        engine = open_file(path, wait)
        with engine.begin() as connection:
            version = connection.scalar(text("PRAGMA user_version"))
            if version == 0:
                # By default, Python's SQLite would commit each table by itself.
                connection.execute(text("BEGIN IMMEDIATE"))
                _make_tables(connection, base_url)
            elif version in _UPGRADABLE:
                _add_tables(connection)
            refuse_another(connection, path, base_url, even_moved=even_moved)
        return Ledger(engine, scratch_for(path, path.parent, wait, temp_store_for(path.parent)), wait)
    except DatabaseError:
        raise refuse("is damaged", str(path), DAMAGED) from None
    except FileError as error:
        raise UserError(error.problem) from None


def must_hold_ledger(folder: Path) -> None:
    """Raise UserError if there is no ledger in `folder`."""
    if not (folder / LEDGER).is_file():
        raise refuse("has no ledger", str(folder), "use the output folder of a run")


def is_begun(path: Path) -> bool:
    """Whether a ledger's file exists and a run has written to it."""
    return path.exists() and path.stat().st_size > 0


def fill_new(
    folder: Path, base_url: str, wait: Wait, fill: Callable[[Connection], None], retire: Callable[[], None]
) -> None:
    """Make the ledger of an output folder with what `fill` writes. When it is whole, `retire` is called, and
    then it gets its name.

    Raises UnwritableError, FileError, and what the two raise.
    """
    path = folder / LEDGER
    new = name_while_new(path)
    try:
        make_private_file(new)
        engine = open_file(new, wait)
        with transaction(engine, Purpose.WRITE) as connection:
            _make_tables(connection, base_url)
            connection.exec_driver_sql(f"PRAGMA cache_size = -{_CACHE_KIB}")
            fill(connection)
        in_one_file(engine)
        sync(new)
        retire()
        with doing("written", path):
            new.replace(path)
        sync(folder)
    finally:
        clear_left_behind(folder, LEDGER)


def marks_in(folder: Path) -> Marks | None:
    """The marks of the ledger of an output folder, or None if there is none. Raises UserError."""
    path = folder / LEDGER
    if not is_begun(path):
        return None
    with reading(path, "", even_moved=True) as ledger:
        return ledger.ask(marks_of)


@contextmanager
def reading(path: Path, base_url: str, *, even_moved: bool = False) -> Iterator[Ledger]:
    """The ledger at `path`, only to read, or an empty one if there is none. `even_moved`: also one that was moved.

    Raises UserError.
    """
    ledger = _to_read(path)
    try:
        if is_begun(path):
            ledger.ask(partial(refuse_another, path=path, base_url=base_url, even_moved=even_moved))
        yield ledger
    except DatabaseError:
        raise refuse(
            "cannot be read", str(path), "try again: a run may just have begun. If it fails again, it is damaged"
        ) from None
    except UnwritableError as error:
        raise UserError(error.problem) from None
    finally:
        ledger.close()


def _to_read(path: Path) -> Ledger:
    if not is_begun(path):
        return empty_ledger(path.parent)
    wait, (temporary, store) = usual_wait(), folder_for_temporary_files(path.parent)
    # Without a run there is no WAL file, and SQLite would make one even if it only reads.
    how = {"mode": "ro"} if _has_wal(path) else {"immutable": "1"}
    url = URL.create("sqlite", database=f"file:{quote(bytes(path))}", query=how | {"uri": "true"})
    engine = create_engine(url, **POOL, hide_parameters=True)
    prepare(engine, path, temporary, wait, store)
    return Ledger(engine, scratch_for(path, temporary, wait, store), wait)


def _has_wal(path: Path) -> bool:
    return path.with_name(f"{LEDGER}-wal").exists()


def stamp_of(path: Path) -> tuple[int, ...] | None:
    """What changes if somebody writes to the ledger while `reading` takes no lock. None while there is a WAL file."""
    if _has_wal(path):
        return None
    found = path.stat()
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def empty_ledger(folder: Path) -> Ledger:
    """A ledger in memory, for a plan without one."""
    wait, (temporary, store) = usual_wait(), folder_for_temporary_files(folder)
    engine = open_memory()
    prepare(engine, folder, temporary, wait, store)
    tables.metadata.create_all(engine)
    return Ledger(engine, scratch_for(folder, temporary, wait, store), wait)


def scratch_for(path: Path, temporary: Path, wait: Wait, store: str) -> Scratch:
    """A scratch whose temporary files go where `store` and `temporary` say. A full disk is told as that of `path`."""
    return Scratch(lambda engine: prepare(engine, path, temporary, wait, store))


def _make_tables(connection: Connection, base_url: str) -> None:
    """Make a new ledger. The connection is in a transaction."""
    if not inspect(connection).get_table_names():
        tables.metadata.create_all(connection)
        tables.remember(connection, "base_url", base_url)
        connection.execute(text(f"PRAGMA user_version = {tables.VERSION}"))


def refuse_another(connection: Connection, path: Path, base_url: str, *, even_moved: bool = False) -> None:
    """Raise UserError if the ledger has another version, belongs to another API than `base_url` ('' allows any), or was moved.

    `even_moved` allows the last.
    """
    version = connection.scalar(text("PRAGMA user_version"))
    if version not in (tables.VERSION, *_UPGRADABLE):
        what = f"has version {version}, but this job only knows versions up to {tables.VERSION}"
        raise refuse(what, str(path), "use the newer release of the job, or use a different --output")
    bound = tables.remembered(connection, "base_url")
    if base_url and bound != base_url:
        todo = "use a different --output, or set HIGHLEVEL_BASE_URL as it was"
        raise refuse(f"belongs to {bound}, not to {base_url}", str(path), todo)
    moved_to = marks_of(connection).moved_to
    if moved_to and not even_moved:
        raise refuse_moved(str(path), moved_to, "set RECOVERY_LEDGER__URL to that database")


def _add_tables(connection: Connection) -> None:
    """Upgrade a ledger of an earlier version. Every version so far has only added tables."""
    connection.execute(text("BEGIN IMMEDIATE"))
    tables.metadata.create_all(connection)
    connection.execute(text(f"PRAGMA user_version = {tables.VERSION}"))
