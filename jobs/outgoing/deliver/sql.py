"""A target that is a database: the user's own statements, with all statements of one install in one transaction.

A pair is taken if at least one statement changed a row. A connection keeps nothing between two transactions, so that
a pooler may be in front of the database. Only the first line of the database's words is shown, since the next ones
repeat the parameters.
"""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import threading
from collections import Counter
from contextlib import closing, suppress
from datetime import UTC, datetime
from math import ceil
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, InternalError, NoSuchModuleError, OperationalError

from jobs.core.errors import Problem, UserError, refuse
from jobs.core.secret import Secret, plain, scrub
from jobs.outgoing.deliver.pair import made_up_pair
from jobs.outgoing.deliver.verdict import Later, No, Yes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection, Engine, TextClause
    from sqlalchemy.engine import URL

    from jobs.outgoing.deliver.pair import Pair
    from jobs.outgoing.deliver.verdict import Verdict

_URL, _SQL = "deliver.database_url", "deliver.sql"
# Hosters write the first, and SQLAlchemy reads the second. Version 3 of the driver comes with the job.
_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
_TIMES = ("expires_at", "recovered_at")
_OF_A_COLUMN = "column_"
_NO_LETTER = re.compile(r"[^A-Za-z0-9]")
_POSTGRES_CAST = re.compile(r"(?<![:\w\\]):(\w+)::(\w+)")
# A statement without one of these words changes no row, however many it finds.
_CHANGES = re.compile(r"\b(?:insert|merge|delete|replace\s+into|(?<!for\s)(?<!key\s)update)\b", re.IGNORECASE)
_MOST_WORDS = 200
_GRACE_SECONDS = 1.0
_SHORTEST_CONNECT = 2
# Errors that say nothing about the pair, by SQLite's codes and by the classes of SQLSTATE: connections, session
# rights, the database's own rollbacks, missing resources, an operator's action, a system fault.
_SQLITE_PASSES = (
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_INTERRUPT,
)  # fmt: skip
_STATES_THAT_PASS = ("08", "25", "28", "40", "53", "55P03", "57", "58", "XX")


class SqlTarget:
    """Executes `statements` for each pair, from up to `workers` threads. A try takes at most `seconds`.

    `columns` are the list's own columns. A relative SQLite path starts at `folder`. Raises UserError for a target
    that can never work.
    """

    kind = "sql"

    def __init__(
        self, url: Secret, statements: Sequence[str], columns: Iterable[str], workers: int, seconds: float, folder: Path
    ) -> None:
        address = _address(url)
        self.where = shown_database(url)
        self._secrets = tuple(Secret(text) for text in _passwords(address))
        self._seconds = seconds
        self._engine = _engine(address, workers, seconds, folder)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._is_postgres = self._engine.dialect.name == "postgresql"
        self._statements = _checked(statements, tuple(columns))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def hand_over(self, pair: Pair) -> Verdict:
        """Hand a pair over, once."""
        changed = self._changed_by(pair, keep=True)
        if isinstance(changed, No | Later):
            return changed
        return Yes() if any(changed) else No("no row took it")

    def test(self, pair: Pair) -> list[int] | No | Later:
        """How many rows each statement would have changed. Everything is rolled back."""
        return self._changed_by(pair, keep=False)

    def _changed_by(self, pair: Pair, *, keep: bool) -> list[int] | No | Later:
        for may_be_stale in (True, False):
            watch = _Watch(self._seconds + _GRACE_SECONDS)
            try:
                with watch, self._engine.connect() as connection:
                    watch.over(connection)
                    return self._executed(connection, pair, keep=keep)
            except DBAPIError as error:
                if watch.cut:
                    return Later(f"the database did not answer within {self._seconds:g} s")
                # A kept connection was closed meanwhile. The pool drops it, and a new one tells more.
                if not (may_be_stale and error.connection_invalidated):
                    return self._judged(error, pair)
            except (ValueError, OverflowError) as error:
                return No(f"the database's driver cannot send it ({type(error).__name__})")
        raise AssertionError

    def _executed(self, connection: Connection, pair: Pair, *, keep: bool) -> list[int]:
        if self._is_postgres:
            # Set for this transaction only: a pooler would lose or refuse a setting of the session.
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {ceil(self._seconds * 1000)}")
        values = self._values(pair)
        changed = [_rows_changed(connection, statement, values) for statement in self._statements]
        if keep and any(changed):
            connection.commit()
        return changed

    def _values(self, pair: Pair) -> dict[str, Any]:
        """The parameters of a pair. SQLite has no type for times."""
        values = {name: value for name, value in pair.data.items() if name != "columns"}
        for name in _TIMES:
            moment = datetime.fromisoformat(values[name]) if values[name] else None
            values[name] = moment.isoformat() if moment and self._is_sqlite else moment
        for name, cell in pair.data["columns"].items():
            values.setdefault(parameter_of(name), cell)
        return values

    def _judged(self, error: DBAPIError, pair: Pair) -> No | Later:
        said = str(error.orig).strip().partition("\n")[0]
        words = plain(scrub(said, (*pair.secrets, *self._secrets)), _MOST_WORDS) or type(error.orig).__name__
        return (
            Later(f"the database cannot take it: {words}")
            if _passes(error)
            else No(f"the database refuses it: {words}")
        )


def shown_database(url: Secret) -> str:
    """The part of a database's address that may be shown: its kind, host and name. Raises UserError like `SqlTarget`."""
    address = _address(url)
    host = address.host or address.query.get("host", "")
    return f"{address.get_backend_name()}://{host if isinstance(host, str) else host[0]}/{address.database or ''}"


def parameter_of(column: str) -> str:
    """The parameter that holds the cells of a column of the list."""
    return _OF_A_COLUMN + _NO_LETTER.sub("_", column).lower()


def _rows_changed(connection: Connection, statement: TextClause, values: Mapping[str, Any]) -> int:
    wanted = {name: values.get(name) for name in _parameters(statement)}
    with closing(connection.execute(statement, wanted)) as result:
        if not _CHANGES.search(statement.text):
            return 0
        return sum(1 for _ in result) if result.returns_rows else max(0, result.rowcount)


def _passes(error: DBAPIError) -> bool:
    """Whether the error may pass by itself."""
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _SQLITE_PASSES
    if state := getattr(error.orig, "sqlstate", None):
        return str(state).startswith(_STATES_THAT_PASS)
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError | InternalError)


class _Watch:
    """Cuts the connection to a server that hangs, since no driver limits its own wait for an answer."""

    def __init__(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._cut)
        self._socket: socket.socket | None = None
        self.cut = False

    def over(self, connection: Connection) -> None:
        """Begin to watch. A connection without a socket, such as SQLite's, does not need it."""
        driver: Any = connection.connection.driver_connection
        if hasattr(driver, "fileno"):
            self._socket = socket.socket(fileno=os.dup(driver.fileno()))
            self._timer.start()

    def _cut(self) -> None:
        assert self._socket is not None
        self.cut = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._timer.cancel()
            self._timer.join()
            self._socket.close()


# -- what is refused at the start ------------------------------------------------------------------------------------


def _address(url: Secret) -> URL:
    try:
        address = make_url(url.reveal())
    except (ArgumentError, ValueError):
        raise _not_valid() from None
    if "@" in (address.host or ""):  # What is left of the password would be shown as the host.
        raise refuse("has a sign in its password that must be escaped", _URL, "write %40 for @, and %2F for /")
    return address.set(drivername=_DRIVERS.get(address.drivername, address.drivername))


def _not_valid() -> UserError:
    todo = "give it like postgresql://user:password@host/name or sqlite:////folder/file.db"
    return refuse("is not a valid address of a database", _URL, todo)


def _passwords(address: URL) -> Iterable[str]:
    if address.password:
        yield str(address.password)
    for name, value in address.query.items():
        if "pass" in name:
            yield from [value] if isinstance(value, str) else value


def _engine(address: URL, workers: int, seconds: float, folder: Path) -> Engine:
    more = _connect_args(address, seconds)
    missing = {name: value for name, value in more.items() if name not in address.query}
    try:
        is_file = address.get_backend_name() == "sqlite"
        engine = create_engine(
            _as_existing_file(address, folder) if is_file else address,
            pool_size=workers,
            max_overflow=0,
            hide_parameters=True,
            connect_args=missing,
        )
    except NoSuchModuleError:
        raise refuse(f"names an unknown kind of database ({address.drivername})", _URL, "correct it") from None
    except ImportError as error:
        todo = f"install it beside the job (.venv/bin/python -m pip install {error.name or 'its package'})"
        raise refuse(f"needs a driver that is not installed ({error.name or address.drivername})", _URL, todo) from None
    except (ArgumentError, ValueError):
        raise _not_valid() from None
    if engine.dialect.is_async:
        raise refuse(f"names a driver that is asynchronous ({address.drivername})", _URL, "name another driver")
    return engine


def _connect_args(address: URL, seconds: float) -> dict[str, Any]:
    match address.drivername:
        case "sqlite" | "sqlite+pysqlite":
            return {"timeout": seconds}
        case "postgresql+psycopg":
            # A statement prepared on one of a pooler's connections is unknown on the next.
            return {"connect_timeout": max(_SHORTEST_CONNECT, ceil(seconds)), "prepare_threshold": None}
        case _:
            return {}


def _as_existing_file(address: URL, folder: Path) -> URL:
    """The address of an SQLite file that is never created."""
    if not address.database or address.database == ":memory:":
        raise refuse("names no file", _URL, "give it like sqlite:////folder/file.db")
    if "uri" in address.query:
        return address
    path = quote(str((folder / address.database).absolute()))
    return address.set(database=f"file:{path}", query={**address.query, "mode": "rw", "uri": "true"})


def _checked(statements: Sequence[str], columns: Sequence[str]) -> list[TextClause]:
    """The prepared statements. Raises UserError if a parameter is unknown or ambiguous."""
    casts = [found for statement in statements for found in _POSTGRES_CAST.finditer(statement)]
    problems = [
        Problem(f"has {cast[0]}, which looks like part of a name", _SQL, f"write CAST(:{cast[1]} AS {cast[2]})")
        for cast in casts
    ]
    if problems:
        raise UserError(*problems)
    ready = [text(statement) for statement in statements]
    used = sorted({name for statement in ready for name in _parameters(statement)})
    folded = Counter(map(parameter_of, dict.fromkeys(columns)))
    known = [*_names(), *folded]
    for name in used:
        if name not in known:
            todo = f"use one of {', '.join(f':{one}' for one in known)}; write a colon that does not begin a parameter as \\:"
            problems.append(Problem(f"has an unknown parameter :{name}", _SQL, todo))
        elif folded[name] > 1:
            alike = " and ".join(repr(one) for one in dict.fromkeys(columns) if parameter_of(one) == name)
            problems.append(Problem(f"has :{name}, which stands for {alike}", _SQL, "rename one of these columns"))
    if problems:
        raise UserError(*problems)
    return ready


def _parameters(statement: TextClause) -> Iterable[str]:
    return tuple(statement.compile().params)


def _names() -> list[str]:
    """The parameters that every pair has."""
    return [name for name in made_up_pair(datetime(2000, 1, 1, tzinfo=UTC)).data if name != "columns"]
