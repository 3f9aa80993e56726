"""The leases of a run in PostgreSQL: one for its ledger and one for each app, so that only one run writes and sends.

A lease is a row with an epoch that grows with each holder. It is taken and renewed by the database's clock. Its holder
counts from before it asked, on a clock that goes on while the machine sleeps: it never believes longer than the database
does. The thread that renews has its own connection and shares nothing with the work.

What an app used of its limits is kept beside its lease, with each renewal and at the end. The next holder, on whatever
machine, goes on from there. Its age is measured by the database's clock, because the clocks of machines differ.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import psycopg
from msgspec import DecodeError, json

from jobs.core.errors import Exit, Problem, refuse
from jobs.core.secret import plain, scrub
from jobs.ledger.postgres import EPOCHS, problem_of, why_lost
from jobs.ledger.refusals import AwayError, LeaseLostError
from jobs.pace.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from jobs.ledger.postgres import Database

_MOST_WORDS = 200
_LAST_SECONDS = 5.0  # How long a renewal that is under way is waited for.
_RENEWALS = 3  # One begins with each third of a lease, so that one that fails leaves time for another.
_PAUSE_SECONDS = 1.0  # Between the beginnings of two tries to have leases again whose time is over.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock() -> float:
    """Seconds, also while the machine sleeps where the system has such a clock."""
    return time.clock_gettime(_CLOCK)


class LeaseKey(NamedTuple):
    """What a lease is for: an app (then `ledger` is empty) or a ledger (then `client_id` is)."""

    base_url: str
    client_id: str
    ledger: str

    def __str__(self) -> str:
        return f"the app {self.client_id}" if self.client_id else f"the ledger {self.ledger}"


class Shown(NamedTuple):
    """A lease for a person: who holds it since when and until when, by the database's clock. `live`: its time is not over."""

    key: LeaseKey
    epoch: int
    holder: str
    since: str
    until: str
    live: bool


_KEY = "base_url = %s AND client_id = %s AND ledger = %s"
_NEW = "INSERT INTO leases (base_url, client_id, ledger) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
_BEFORE = f"""
SELECT token, limits, extract(epoch FROM clock_timestamp() - limits_at)::float,
    extract(epoch FROM clock_timestamp() - until)::float
FROM leases WHERE {_KEY}"""  # noqa: S608 - our own words
_TAKE = f"""
UPDATE leases SET epoch = epoch + 1, token = %s, holder = %s, since = clock_timestamp(),
    until = clock_timestamp() + make_interval(secs => %s), limits = %s, limits_at = clock_timestamp()
WHERE {_KEY} RETURNING epoch, until"""  # noqa: S608 - our own words
_HELD = "token <> ''"
_LIVE = f"{_HELD} AND until > clock_timestamp()"
_SHOW = f"""
SELECT base_url, client_id, ledger, epoch, holder, to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    to_char(until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), {_LIVE}
FROM leases"""  # noqa: S608 - our own words
# As Python sorts, whatever the database's own order is: two runs that lock in different orders wait for each other.
_IN_ORDER = 'ORDER BY base_url COLLATE "C", client_id COLLATE "C", ledger COLLATE "C"'
_USED = """limits = coalesce(%(used)s::jsonb ->> client_id, limits),
    limits_at = CASE WHEN %(used)s::jsonb ? client_id THEN clock_timestamp() ELSE limits_at END"""
_RENEW = f"""
UPDATE leases SET until = clock_timestamp() + make_interval(secs => %(seconds)s), {_USED}
WHERE token = %(token)s RETURNING until"""  # noqa: S608 - our own words
_UNTIL = f"SELECT until FROM leases WHERE token = %(token)s {_IN_ORDER} FOR NO KEY UPDATE"  # noqa: S608 - our own words
_GIVE_BACK = f"UPDATE leases SET token = '', until = clock_timestamp(), {_USED} WHERE token = %(token)s"  # noqa: S608 - our own words
_BREAK = f"""
UPDATE leases SET token = '', until = clock_timestamp(), limits = %s, limits_at = clock_timestamp()
WHERE {_KEY}"""  # noqa: S608 - our own words


class Leases:
    """The leases of one run, taken and renewed for `seconds` each time. After that, a run waits `patience` seconds to have them
    again.

    The thread that renews calls `looked_after` after each renewal, done or not, and `went_back` if a lease is older than the
    database said before. `used` says what each app has used of its limits.
    """

    def __init__(
        self, database: Database, keys: Sequence[LeaseKey], seconds: float, patience: float, holder: str
    ) -> None:
        self._patience = patience
        self._database = database
        self._keys = sorted(keys)
        self._seconds = seconds
        self._holder = holder
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._before: dict[str, Usage] = {}
        self._taken_at = 0.0
        self._until: datetime | None = None
        self.epochs: dict[LeaseKey, int] = {}
        self._met: Problem | None = None
        self.went_back: Callable[[], None] = lambda: None
        self.token = uuid4().hex
        self.valid_until = 0.0
        self.lost: Problem | None = None
        self.looked_after: Callable[[], None] = lambda: None
        self.used: Callable[[], Mapping[str, Usage]] = dict

    def __len__(self) -> int:
        return len(self._keys)

    def hold(self) -> bool:
        """Whether this run may send: its leases are certain to be its own now."""
        return not self.lost and clock() < self.valid_until

    def reachable(self) -> bool:
        """Whether the database has renewed the leases within the patience."""
        return clock() < self.valid_until + self._patience

    def problem(self) -> Problem | None:
        """Why the run must stop: the leases are lost, or could not be renewed for longer than the patience. Else None."""
        return self.lost or (None if self.reachable() else self._late())

    def must_hold(self) -> None:
        """Raise LeaseLostError if the leases are lost, or AwayError if they are not held for now."""
        if self.lost:
            raise LeaseLostError(self.lost)
        if not self.hold():
            raise AwayError(self._late())

    def _late(self) -> Problem:
        what = "could not renew this run's lease" + (f": it {self._met.what}" if self._met else "")
        todo = self._met.todo if self._met else "see that it is up and reachable"
        return Problem(what, self._database.shown, f"{todo}, then run this again")

    def used_before(self) -> dict[str, Usage]:
        """What each app has used before, as it counts now."""
        return {client_id: used.later(clock() - self._taken_at) for client_id, used in self._before.items()}

    def take(self) -> None:
        """Take all leases, or none, and keep them from now on.

        Raises UserError with exit 11 if another run has one, and psycopg's errors.
        """
        began = clock()
        with own_connection(self._database) as connection:
            self._refuse_held(connection)  # First without a lock: whoever holds one must not wait for us.
            for key in self._keys:
                _lock(connection, key)
            self._refuse_held(connection)
            for key in self._keys:
                used = _usage(connection, key)
                values = (self.token, self._holder, self._seconds, _as_text(used), *key)
                self.epochs[key], until = connection.execute(_TAKE, values).fetchall()[0]
                self._until = self._until or until
                if key.client_id:
                    self._before[key.client_id] = used
        self.valid_until, self._taken_at = began + self._seconds, clock()
        self._thread.start()

    def give_back(self) -> None:
        """End the leases, so that the next run need not wait. If the database is away, they run out by themselves."""
        self._ends.set()
        self._thread.join(_LAST_SECONDS)
        if not self.hold() and not self.lost:
            return  # Their time is over. Of several leases, one may be lost and the others not.
        self.valid_until = 0.0
        with suppress(psycopg.Error), own_connection(self._database) as connection:
            connection.execute(_UNTIL, {"token": self.token})
            connection.execute(_GIVE_BACK, {"token": self.token, "used": self._used_as_text()})

    def cut_short(self) -> None:
        """End the leases at once, from a signal handler: it asks nobody what was sent last."""
        self.valid_until = 0.0
        end_leases(self._database, self.token)

    def _refuse_held(self, connection: psycopg.Connection[Any]) -> None:
        for key in self._keys:
            for found in _show(connection, f"{_KEY} AND {_LIVE}", key):
                what = f"has been held by {found.holder} since {found.since}, until {found.until} unless it is renewed"
                todo = "wait for its end; a run that was killed holds it until then (`recover ledger who`)"
                raise refuse(what, str(key), todo, Exit.HELD)

    def _keep(self) -> None:
        """Renew the leases until they are given back or lost."""
        began = self.valid_until - self._seconds
        while not self._ends.wait(self._until_due(began)):
            began = clock()
            try:
                self._renew()
            except Exception as error:  # noqa: BLE001 - whatever it is, a later try may succeed, and the run must hear of it
                self._met = self._reason(error)
            self.looked_after()
            if self.lost:
                return

    def _until_due(self, began: float) -> float:
        """In how many seconds the next renewal begins. The last one `began` then: how long it took is part of the wait."""
        between = self._seconds / _RENEWALS if self.hold() else _PAUSE_SECONDS
        return max(0.0, began + between - clock())

    def _reason(self, error: Exception) -> Problem:
        if isinstance(error, psycopg.Error):
            return problem_of(self._database, error)
        said = scrub(f"{type(error).__name__}: {error}", self._database.secrets)
        return Problem(f"could not be asked ({plain(said, _MOST_WORDS)})", self._database.shown, "see to this machine")

    def _renew(self) -> None:
        began, used = clock(), self._used_as_text()
        values = {"seconds": self._seconds, "token": self.token, "used": used}
        with own_connection(self._database) as connection:
            before = [row[0] for row in connection.execute(_UNTIL, values)]
            renewed = [row[0] for row in connection.execute(_RENEW, values)]
            gone = len(renewed) != len(self._keys)
            why = why_lost(self._database, connection.execute(EPOCHS).fetchall(), self.epochs) if gone else None
        self.lost = why
        self.valid_until = began + self._seconds
        if self._until and any(until < self._until for until in before):
            self.went_back()
        self._until = min(renewed, default=None)

    def _used_as_text(self) -> str:
        """What each app has used, as a JSON object of JSON texts."""
        return json.encode({client_id: _as_text(used) for client_id, used in self.used().items()}).decode()


def own_connection(database: Database) -> psycopg.Connection[Any]:
    """A connection in a transaction, which ends with the block. Raises psycopg's errors."""
    connection = database.connect()
    milliseconds = ceil(database.seconds * 1000)
    connection.execute(
        "SELECT set_config('search_path', %s, true), set_config('lock_timeout', %s, true),"
        " set_config('statement_timeout', %s, true), set_config('idle_in_transaction_session_timeout', %s, true)",
        # A lock that is not free in time is told as such, so its time is over first. A machine that falls asleep in the
        # middle keeps no lock.
        (database.schema, str(milliseconds * 3 // 4), str(milliseconds), str(milliseconds)),
    )
    return connection


def held_leases(database: Database, which: str = "true", values: Sequence[Any] = ()) -> list[Shown]:
    """The leases that somebody holds, also those that have expired. Raises psycopg's errors.

    `which` is a condition with these values.
    """
    with own_connection(database) as connection:
        if connection.execute("SELECT to_regclass('leases')").fetchone() == (None,):
            return []
        return _show(connection, f"{_HELD} AND {which} {_IN_ORDER}", values)


def break_leases(database: Database, which: str, values: Sequence[Any]) -> list[Shown]:
    """The leases that were ended, though their holder did not give them back. Raises psycopg's errors.

    The next holder waits as long as what was sent last may count. `which` is a condition with these values. A write of the
    last holder that is under way may end: only the next holder waits for that.
    """
    with own_connection(database) as connection:
        found = _show(connection, f"{_HELD} AND {which} {_IN_ORDER} FOR NO KEY UPDATE", values)
        for one in found:
            used = _usage(connection, one.key).cut_off(0.0)
            connection.execute(_BREAK, (_as_text(used), *one.key))
    return found


def end_leases(database: Database, token: str) -> None:
    """End the leases of a run that is cut short. If the database is away, they run out by themselves."""
    with suppress(psycopg.Error):
        break_leases(database, "token = %s", (token,))


def _show(connection: psycopg.Connection[Any], which: str, values: Sequence[Any]) -> list[Shown]:
    rows = connection.execute(f"{_SHOW} WHERE {which}", values).fetchall()
    return [Shown(LeaseKey(*row[:3]), *row[3:]) for row in rows]


def _lock(connection: psycopg.Connection[Any], key: LeaseKey) -> None:
    """Lock a lease, once a write of its last holder that is under way has ended. It is made if it is missing.

    Raises UserError if that takes too long.
    """
    try:
        connection.execute(_NEW, key)
        connection.execute(f"SELECT FROM leases WHERE {_KEY} FOR UPDATE", key)
    except psycopg.errors.LockNotAvailable:
        what = "is free, but a write of its last holder has not ended yet"
        raise refuse(what, str(key), "try again in a moment", Exit.HELD) from None
    except psycopg.errors.DeadlockDetected:
        what = "is being taken or released by another run"
        raise refuse(what, str(key), "try again in a moment", Exit.HELD) from None


def _usage(connection: psycopg.Connection[Any], key: LeaseKey) -> Usage:
    """What an app has used, as it counts now. A holder that did not give its lease back could send until its end."""
    row = connection.execute(_BEFORE, key).fetchone()
    assert row is not None
    token, limits, age, over = row
    try:
        used = json.decode(limits, type=Usage).later(max(0.0, age)) if limits else Usage()
    except DecodeError:  # A newer release of the job wrote it.
        used = Usage().cut_off(max(0.0, age))
    return used.cut_off(max(0.0, over)) if token else used


def _as_text(used: Usage) -> str:
    return json.encode(used).decode()
