"""What a run wrote in the last seconds, so that it is written again if the database went back.

A failover to a copy that is a second behind forgets what was committed in that second. Nothing else says so: the
connection breaks and the next one serves. So after each new connection, what was written last is looked up.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import select

from jobs.core.errors import Problem
from jobs.core.fingerprints import fingerprint_of
from jobs.core.model import Failed, Recovered
from jobs.ledger import refresh_log, writes
from jobs.ledger.engines import is_postgres
from jobs.ledger.refusals import LeaseLostError
from jobs.ledger.tables import installs, pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from jobs.core.model import Install, InstallKey, Outcome
    from jobs.sealing.kept_pairs import KeptPairs

    Ended = tuple[Install, Outcome]

_SECONDS, _MOST = 5.0, 2_000


class Intention(NamedTuple):
    """An old token of this install was about to be sent at a moment (UTC, ISO 8601)."""

    install: Install
    at: str


class Recent:
    """The outcomes and intentions of the last seconds, at most some thousands. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: deque[tuple[float, Intention | Ended]] = deque(maxlen=_MOST)
        self._alarms = self._seen = self._heeded = 0

    def alarm(self, *_: object) -> None:
        """Note that the database may have gone back: a connection is new, or the leases are older than they were."""
        self._alarms += 1

    def keep(self, written: Sequence[Intention | Ended]) -> None:
        """Keep what was just committed, and forget what is old. What `write_again` saw is committed too."""
        self._heeded = self._seen
        now = self._clock()
        self._kept.extend((now, one) for one in written)
        while self._kept and self._kept[0][0] < now - _SECONDS:
            self._kept.popleft()

    def write_again(self, connection: Connection, *, delivers: KeptPairs | None) -> int:
        """How many outcomes were gone, if there was an alarm. They are written again, and so are the intentions.

        Raises LeaseLostError.
        """
        self._seen = self._alarms
        if self._seen == self._heeded:
            return 0
        kept = [one for _, one in self._kept]
        for one in kept:
            if isinstance(one, Intention):
                refresh_log.intend(connection, one.install, one.at)
        ended = [one for one in kept if not isinstance(one, Intention)]
        gone = unknown(connection, ended)
        write_down(connection, gone, delivers=delivers)
        refresh_log.settle(connection, ended)
        return len(gone)


def write_down(connection: Connection, ended: Sequence[Ended], *, delivers: KeptPairs | None) -> None:
    """Write outcomes. Raises LeaseLostError if a database does not know the installs any more."""
    back = [(install, outcome) for install, outcome in ended if isinstance(outcome, Recovered)]
    others = [(install, outcome) for install, outcome in ended if not isinstance(outcome, Recovered)]
    if not writes.recover(connection, back, delivers=delivers) and is_postgres(connection):
        raise _gone(back[0][0].key.account_id)
    writes.leave(connection, others, delivers=delivers)
    refresh_log.settle(connection, ended)


def unknown(connection: Connection, ended: Sequence[Ended]) -> list[Ended]:
    """The outcomes that the ledger does not hold. One without a moment (`Unfinished`) counts as held.

    Raises LeaseLostError if it does not even know the installs: it went back to before this run.
    """
    if not ended:
        return []
    # Locked, since an earlier write of the same outcomes may still be under way.
    tried = _last_tries(connection, [install.key for install, _ in ended])
    marks = [fingerprint_of(outcome.tokens) for _, outcome in ended if isinstance(outcome, Recovered)]
    known = set(connection.scalars(select(pairs.c.fingerprint).where(pairs.c.fingerprint.in_(marks))))
    return [
        (install, outcome)
        for install, outcome in ended
        if (isinstance(outcome, Recovered) and fingerprint_of(outcome.tokens) not in known)
        or (isinstance(outcome, Failed) and tried[install.key] < outcome.at)
    ]


def _last_tries(connection: Connection, keys: Sequence[InstallKey]) -> dict[tuple[str, str, str], str]:
    """When each of these installs was tried last. Their rows are locked until the end of the transaction."""
    key = (installs.c.client_id, installs.c.level, installs.c.account_id)
    mine = installs.c.account_id.in_({key.account_id for key in keys})
    rows: Any = connection.execute(select(*key, installs.c.last_tried_at).where(mine).with_for_update())
    tried = {(row.client_id, row.level, row.account_id): row.last_tried_at for row in rows}
    missing = [one for one in keys if tuple(one) not in tried]
    if missing:
        raise _gone(missing[0].account_id)
    return tried


def _gone(account_id: str) -> LeaseLostError:
    what = f"went back to a state before this run: it does not know all installs any more, like {account_id}"
    todo = "see which copy serves now and what it lost, then run this again"
    return LeaseLostError(Problem(what, "the ledger's database", todo))
