"""Connects to the user's PostgreSQL, begins the ledger's transactions there, and says what its errors mean.

Nothing belongs to a session, so that a pooler in transaction mode serves: each transaction brings its settings along.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo
from sqlalchemy import create_engine, event
from sqlalchemy.pool import QueuePool

from jobs.core.errors import Problem, UserError, refuse
from jobs.core.secret import Secret, plain, scrub
from jobs.ledger.answers import Connection as Driver
from jobs.ledger.engines import BLAME, Purpose, purpose_of
from jobs.ledger.refusals import AwayError, LeaseLostError
from jobs.ledger.shared_tables import LEDGER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Engine, ExceptionContext

    from jobs.config.settings import LedgerSettings

_URL = "RECOVERY_LEDGER__URL"
_SAFE = {"require", "verify-ca", "verify-full"}
_MOST_WORDS = 200
_SHORTEST_CONNECT = 2  # Seconds; libpq takes no less.
_HURRIED_SECONDS = 2.0  # For an answer, once nobody waits for the server any more.
_LONGEST_SECONDS = 120.0  # What takes long is waited for this long by those who have no lease that tells more.
# Classes and codes of PostgreSQL that pass by themselves or that the server's operator can end.
_AWAY = ("08", "53", "57", "58", "40", "25006", "25P03", "55P03", "28", "3F000", "42501", "42P01", "XX")
EPOCHS = "SELECT base_url, client_id, ledger, epoch FROM leases"
_TIMEOUTS = ("statement_timeout", "idle_in_transaction_session_timeout")
_SHORT = {Purpose.WRITE, Purpose.READ}
_TODO = {
    "3F000": "bring back its schema",
    "42501": "let the user own the schema, and grant it TEMPORARY on the database",
    "42P01": "bring back its tables",
    "25006": "it only reads: point the URL to the primary, or end the maintenance",
    "53100": "free space on the server's disk",
    "53300": "end other connections, or raise max_connections",
    "28": "renew the user's password or rights, and correct the URL",
}
# A refused connection has no code, only words.
_REFUSED = {
    "too many": _TODO["53300"],
    "connection slots": _TODO["53300"],
    "authentication failed": _TODO["28"],
    "does not exist": "correct the URL",
}


@dataclass(frozen=True, slots=True)
class Database:
    """Where the database is, and how long to wait for it (`seconds`: one answer)."""

    url: Secret
    schema: str
    seconds: float

    def connect(self, seconds: float | None = None) -> Driver:
        """A new connection, which waits `seconds` for each answer. Raises psycopg's errors."""
        given = _parameters(self.url)
        ours = {name: value for name, value in self._usual().items() if name not in given}
        if seconds is not None:  # Nobody waits for the server any more, whatever the address says.
            ours["connect_timeout"] = max(_SHORTEST_CONNECT, ceil(seconds))
        # A statement prepared on one of a pooler's connections is unknown on the next.
        connection = Driver.connect(_plain(self.url), **ours, prepare_threshold=None)
        connection.gives_up = self.gives_up
        return connection

    def _usual(self) -> dict[str, Any]:
        """What libpq is told where neither the address nor the environment says it.

        While a long statement runs nothing is sent, so only keepalives tell that the way to the server is gone.
        """
        return {
            "application_name": "highlevel-recovery",
            "connect_timeout": max(_SHORTEST_CONNECT, ceil(self.seconds)),
            "tcp_user_timeout": ceil(self.seconds * 1000),
            "keepalives_idle": ceil(self.seconds / 2),
            "keepalives_interval": ceil(self.seconds / 6),
            "keepalives_count": 3,
        }

    def gives_up(self, waited: float) -> bool:
        """Whether a server is given up that has not answered for so many seconds."""
        return waited >= self.seconds

    @property
    def shown(self) -> str:
        """What of the address may be shown: host or socket, and name."""
        known = _parameters(self.url)
        host, name = known.get("host") or "localhost", known.get("dbname") or known.get("user", "")
        if host.startswith(("/", "@")):
            return f"postgresql, socket {host}, database {name}"
        return f"postgresql://{host}/{name}"

    @property
    def where(self) -> str:
        """The same, with the schema."""
        return f"{self.shown}, schema {self.schema}"

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What is never shown."""
        return (self.url, *(Secret(value) for name, value in _parameters(self.url).items() if "pass" in name and value))


@dataclass(slots=True)
class Session:
    """What every transaction of a run brings along: the number of its ledger, and the leases that it proves.

    `reachable`: whether the leases are renewed, so that the server answers, whatever takes long. `hurries`: whether a server
    that does not answer is given up soon.
    """

    database: Database
    ledger: int = 0
    token: str = ""
    leases: int = 0
    idle_seconds: float = 0.0
    epochs: Mapping[Any, int] = field(default_factory=dict)
    reachable: Callable[[], bool] = lambda: False
    hurries: Callable[[], bool] = lambda: False

    def connect(self) -> Driver:
        """A new connection. Raises psycopg's errors."""
        return self.database.connect(_HURRIED_SECONDS if self.hurries() else None)

    def timeouts(self, purpose: Purpose) -> tuple[str, str]:
        """The values of `_TIMEOUTS`, in milliseconds, in place of what the user's role may have: a long list may take any time."""
        statement = self.database.seconds if purpose in _SHORT else 0.0
        idle = self.idle_seconds if purpose.writes and self.leases else _LONGEST_SECONDS
        return str(ceil(statement * 1000)), str(ceil(idle * 1000))

    def gives_up(self, purpose: Purpose) -> Callable[[float], bool]:
        """When a transaction gives up on a server that does not answer."""
        longest = self.database.seconds if self.leases or purpose in _SHORT else _LONGEST_SECONDS

        def gives_up(waited: float) -> bool:
            most = min(longest, _HURRIED_SECONDS) if self.hurries() else longest
            return waited >= most and (purpose in _SHORT or not self.reachable())

        return gives_up


def check_url(url: Secret) -> None:
    """Raise UserError if the address is not one of PostgreSQL, or lets live tokens travel unencrypted."""
    try:
        known = _parameters(url)
    except psycopg.ProgrammingError:
        raise refuse("is not a valid address", _URL, "give it like postgresql://user:password@host/name") from None
    own = conninfo_to_dict(_plain(url))
    if _is_torn(known):  # What is left of the password would be shown as a host or a name.
        raise refuse("has a sign in its password that must be escaped", _URL, "write %40 for @, and %2F for /")
    # Only libpq reads that service, and what it sets counts over the environment.
    if "service" in own and own.get("sslmode") not in _SAFE:
        what = "takes its host from a service file, so it may send live tokens unencrypted over the network"
        raise refuse(what, _URL, "add sslmode=require, or verify-full, to the address itself")
    hosts = f"{known.get('host', '')},{known.get('hostaddr', '')}".split(",")
    if all(map(_is_here, hosts)) or known.get("sslmode") in _SAFE:
        return
    raise refuse("would send live tokens unencrypted over the network", _URL, "add ?sslmode=require, or verify-full")


def database_of(settings: LedgerSettings) -> Database:
    """The database. Its answer is waited for a third of a lease. Raises UserError if the address must not be used."""
    check_url(settings.url)
    return Database(settings.url, settings.schema, settings.lease_seconds / 3)


@contextmanager
def refusing(database: Database) -> Iterator[None]:
    """Turn errors of the database into a UserError: nothing has begun yet."""
    try:
        yield
    except AwayError as error:
        raise UserError(error.problem) from None
    except psycopg.Error as error:
        raise UserError(problem_of(database, error)) from None


def open_engine(database: Database, reconnected: Callable[..., None] = lambda *_: None) -> tuple[Engine, Session]:
    """The engine of the database, and the session of its transactions. Nothing is known to be there yet.

    It has one connection, which any thread may use in turn. `reconnected` hears of each new one.
    """
    session = Session(database)
    engine = create_engine(
        "postgresql+psycopg://",
        creator=session.connect,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=None,
        hide_parameters=True,
    )
    event.listen(engine, "connect", reconnected)
    event.listen(engine, "begin", partial(_begin, session))
    event.listen(engine, "handle_error", partial(blame_the_database, database))
    return engine, session


def _begin(session: Session, connection: Connection) -> None:
    """Give a transaction its settings, and let one that writes prove the leases in the same statement.

    The lock on the leases' rows keeps another run from taking over in the middle. A renewal does not wait for it.
    """
    purpose = purpose_of(connection)
    driver: Any = connection.connection.driver_connection
    driver.gives_up = session.gives_up(purpose)
    connection.info[BLAME] = partial(_away, session.database)
    if purpose is Purpose.ONE_MOMENT:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    values: list[Any] = [session.database.schema, str(session.ledger), *session.timeouts(purpose)]
    columns = [f"set_config('{name}', %s, true)" for name in ("search_path", LEDGER, *_TIMEOUTS)]
    proves = purpose.writes and session.leases
    if proves:
        held = f'SELECT FROM "{session.database.schema}".leases WHERE token = %s FOR KEY SHARE'
        columns.append(f"(SELECT count(*) FROM ({held}) AS held)")  # noqa: S608 - the schema's name is checked
        values.append(session.token)
    row = connection.exec_driver_sql(f"SELECT {', '.join(columns)}", tuple(values)).one()
    if proves and row[-1] != session.leases:
        found = connection.exec_driver_sql(EPOCHS).fetchall()
        raise LeaseLostError(why_lost(session.database, found, session.epochs))


def why_lost(database: Database, rows: Iterable[Sequence[Any]], epochs: Mapping[Any, int]) -> Problem:
    """What to say when another run has taken over, or when the `rows` of `EPOCHS` are older than those that this run was given."""
    known = {tuple(key): epoch for *key, epoch in rows}
    if any(known.get(tuple(key), 0) < epoch for key, epoch in epochs.items()):
        what = "went back to a state before this run (a failover to an older copy, or a backup was restored)"
        return Problem(what, database.shown, "see which copy serves now and what it lost, then run this again")
    what = "another run took this one's lease while it was cut off from the database, or a person released it"
    return Problem(what, database.shown, "look at that run (`recover ledger who`), then run this again")


def blame_the_database(database: Database, context: ExceptionContext) -> None:
    """Raise AwayError if the server or the way to it is at fault. A bug of ours stays as it is."""
    error = context.original_exception
    if isinstance(error, psycopg.Error) and (away := _away(database, error)):
        raise away from None


def _away(database: Database, error: psycopg.Error) -> AwayError | None:
    """The error as one of a server that is gone, or takes no writes for now; None if it is something else."""
    gone = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    away = error.sqlstate.startswith(_AWAY) if error.sqlstate is not None else gone
    return AwayError(problem_of(database, error)) if away else None


def problem_of(database: Database, error: psycopg.Error) -> Problem:
    """An error of the database for a person. Only its first line is shown: the next ones may repeat values."""
    state = error.sqlstate or ""
    said = plain(scrub(str(error).strip().partition("\n")[0], database.secrets), _MOST_WORDS)
    todos = [words for code, words in _TODO.items() if state.startswith(code)]
    todos += [words for part, words in _REFUSED.items() if not state and part in said]
    todo = next(iter(todos), "see that it is up and reachable")
    return Problem(f"does not accept the job's data ({said or type(error).__name__})", database.shown, todo)


def _parameters(url: Secret) -> dict[str, str]:
    """Libpq's parameters: those of the URL over those of the environment and the service file."""
    usual = {one.keyword.decode(): one.val.decode() for one in Conninfo.get_defaults() if one.val is not None}
    return usual | {name: str(value) for name, value in conninfo_to_dict(_plain(url)).items() if value is not None}


def _is_torn(known: Mapping[str, str]) -> bool:
    """Whether a sign in the password was taken for the end of a part of the address."""
    ports = known.get("port", "").split(",")
    return "@" in known.get("host", "")[1:] + known.get("dbname", "") or not all(
        not one or one.isdecimal() for one in ports
    )


def _plain(url: Secret) -> str:
    """The address as libpq reads it, without SQLAlchemy's name of a driver."""
    return url.reveal().replace("postgresql+psycopg://", "postgresql://", 1)


def _is_here(host: str) -> bool:
    return host.startswith(("/", "@")) or host in {"", "localhost", "127.0.0.1", "::1"}
