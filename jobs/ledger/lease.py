"""The leases of a run in PostgreSQL: one for its ledger and one for each app, so that only one run writes and sends.

A lease is a row with an epoch that grows with each holder. It is taken and renewed by the database's clock. Its holder
counts from before it asked, on a clock that goes on while the machine sleeps: it never believes longer than the database
does. The thread that renews has its own connection and shares nothing with the work.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import psycopg

from jobs.core.errors import Exit, Problem, refuse
from jobs.ledger.postgres import lost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobs.ledger.postgres import Database

_LAST_SECONDS = 5.0  # How long a renewal that is under way is waited for.
_RENEWALS = 3  # In each lease: two may fail before it runs out.
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
_TAKE = f"""
UPDATE leases SET epoch = epoch + 1, token = %s, holder = %s, since = clock_timestamp(),
    until = clock_timestamp() + make_interval(secs => %s)
WHERE {_KEY}"""  # noqa: S608 - our own words
_LIVE = "token <> '' AND until > clock_timestamp()"
_SHOW = f"""
SELECT base_url, client_id, ledger, epoch, holder, to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    to_char(until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), {_LIVE}
FROM leases"""  # noqa: S608 - our own words
_RENEW = "UPDATE leases SET until = clock_timestamp() + make_interval(secs => %s) WHERE token = %s"
_GIVE_BACK = "UPDATE leases SET token = '', until = clock_timestamp() WHERE token = %s"


class Leases:
    """The leases of one run, taken and renewed for `seconds` each time. After that, a run waits `patience` seconds to have them
    again. `looked_after` is called after each renewal, done or not, from the thread that renews.
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
        self.token = uuid4().hex
        self.valid_until = 0.0
        self.lost = False
        self.looked_after: Callable[[], None] = lambda: None

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
        if self.lost:
            return lost(self._database)
        if self.reachable():
            return None
        return Problem("did not renew the lease", self._database.shown, "see that it is up, then run this again")

    def take(self) -> None:
        """Take all leases, or none, and keep them from now on.

        Raises UserError with exit 11 if another run has one, and psycopg's errors.
        """
        began = clock()
        with self._connected() as connection:
            self._refuse_held(connection)  # First without a lock: whoever holds one must not wait for us.
            for key in self._keys:
                new = "INSERT INTO leases (base_url, client_id, ledger) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
                connection.execute(new, key)
                # This lock waits for a write of the last holder that is still under way.
                connection.execute(f"SELECT FROM leases WHERE {_KEY} FOR UPDATE", key)
            self._refuse_held(connection)
            for key in self._keys:
                connection.execute(_TAKE, (self.token, self._holder, self._seconds, *key))
        self.valid_until = began + self._seconds
        self._thread.start()

    def give_back(self) -> None:
        """End the leases, so that the next run need not wait. If the database is away, they run out by themselves."""
        self._ends.set()
        self._thread.join(_LAST_SECONDS)
        self.valid_until = 0.0
        with suppress(psycopg.Error), self._connected() as connection:
            connection.execute(_GIVE_BACK, (self.token,))

    def _connected(self) -> psycopg.Connection[Any]:
        """A connection in a transaction, which ends with the block."""
        connection = self._database.connect()
        milliseconds = str(ceil(self._database.seconds * 1000))
        connection.execute(
            "SELECT set_config('search_path', %s, true), set_config('lock_timeout', %s, true),"
            " set_config('statement_timeout', %s, true)",
            (self._database.schema, milliseconds, milliseconds),
        )
        return connection

    def _refuse_held(self, connection: psycopg.Connection[Any]) -> None:
        for key in self._keys:
            for row in connection.execute(f"{_SHOW} WHERE {_KEY} AND {_LIVE}", key):
                found = shown(row)
                what = f"is held by {found.holder} since {found.since}, until {found.until} unless it is renewed"
                todo = "wait for its end; a run that was killed holds it until then (`recover ledger who`)"
                raise refuse(what, str(key), todo, Exit.HELD)

    def _keep(self) -> None:
        """Renew the leases until they are given back or lost."""
        while not self._ends.wait(self._seconds / _RENEWALS if self.hold() else 1.0):
            with suppress(psycopg.Error):
                self._renew()
            self.looked_after()
            if self.lost:
                return

    def _renew(self) -> None:
        began = clock()
        with self._connected() as connection:
            renewed = connection.execute(_RENEW, (self._seconds, self.token)).rowcount
        self.lost = renewed != len(self._keys)
        self.valid_until = began + self._seconds


def shown(row: Sequence[Any]) -> Shown:
    """A row of `_SHOW`."""
    return Shown(LeaseKey(*row[:3]), *row[3:])
