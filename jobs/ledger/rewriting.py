"""Rewrites the table of installs in PostgreSQL, so that its files hold no row that was overwritten.

An UPDATE leaves the old row in its place, and a plain VACUUM only frees that place. VACUUM FULL writes the table again. It
would copy old rows that somebody may still see. So it waits for every older transaction, and for prepared transactions,
replication slots and replicas that keep such rows.

All ledgers of the schema share the table, which is locked meanwhile. Nobody else waits while this waits for the lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.errors import QueryCanceled

from jobs.core.errors import refuse
from jobs.ledger.engines import Purpose, transaction
from jobs.ledger.refusals import AwayError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from jobs.core.errors import UserError
    from jobs.ledger.refusals import Wait
    from jobs.ledger.scrubbing import Act

_TABLE = """
SELECT pg_relation_filenode(oid), format('%%s.%%I', relnamespace::regnamespace, relname), relowner::regrole::text,
    current_user, pg_has_role(relowner, 'USAGE')
FROM pg_class WHERE oid = 'all_installs'::regclass"""
# Everybody may see these locks, and each transaction holds one on its own number until it ends.
_TRANSACTIONS = """
SELECT virtualtransaction, pid FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'virtualxid' AND granted AND datname = current_database() AND pid <> pg_backend_pid()"""

# These have no process of this database. A replica's is hidden from most users.
_KEEPERS = """
SELECT 'the prepared transaction ' || gid, transaction::text::bigint FROM pg_prepared_xacts
WHERE database = current_database()
UNION ALL SELECT 'the replication slot ' || slot_name, xmin::text::bigint FROM pg_replication_slots
WHERE xmin IS NOT NULL
UNION ALL SELECT 'the replica ' || application_name, backend_xmin::text::bigint FROM pg_stat_replication
WHERE backend_xmin IS NOT NULL"""
_NEXT_NUMBER = "SELECT txid_snapshot_xmax(txid_current_snapshot())"
_NUMBERS = 1 << 32  # The half of all transactions before a number is older than it.


def rewrite(engine: Engine, wait: Wait, act: Act) -> None:
    """Rewrite the table. Raises UserError if this user may not do so, or others keep the old rows for longer than the `wait`."""
    file, name, owner, user, may = _asked(engine, _TABLE)[0]
    if not may:
        raise _refused(act, f"belongs to {owner}, so {user} cannot rewrite it", name, f"let {owner} {act.again}")
    _wait_for_older_transactions(engine, wait, name, act)
    _wait_for_keepers(engine, wait, name, act)

    def is_rewritten() -> bool:
        _vacuum(engine, name, user, act)
        return bool(_asked(engine, _TABLE)[0][0] != file)

    if not wait.patience.wait(is_rewritten, lambda: f"waiting for {name}, which others use"):
        raise _refused(act, "is in constant use by other runs", name, f"{act.again} when fewer runs write")


def _wait_for_older_transactions(engine: Engine, wait: Wait, name: str, act: Act) -> None:
    older = set(_asked(engine, _TRANSACTIONS))

    def are_over() -> bool:
        older.intersection_update(_asked(engine, _TRANSACTIONS))
        return not older

    if not wait.patience.wait(are_over, lambda: f"waiting for older transactions in the database: {_named(older)}"):
        raise _refused(
            act, f"is still read by older transactions ({_named(older)})", name, f"end them, then {act.again}"
        )


def _wait_for_keepers(engine: Engine, wait: Wait, name: str, act: Act) -> None:
    """Wait until nothing else keeps rows that were overwritten before now."""
    now = _asked(engine, _NEXT_NUMBER)[0][0]
    keepers: list[str] = []

    def are_gone() -> bool:
        found = _asked(engine, _KEEPERS)
        keepers[:] = sorted(keeper for keeper, number in found if 0 < (now - number) % _NUMBERS < _NUMBERS // 2)
        return not keepers

    if not wait.patience.wait(are_gone, lambda: f"waiting for what keeps old rows: {', '.join(keepers)}"):
        todo = f"end that, then {act.again}"
        raise _refused(act, f"cannot lose its old rows yet, because of {', '.join(keepers)}", name, todo)


def _vacuum(engine: Engine, name: str, user: str, act: Act) -> None:
    """Rewrite the table, unless others use it."""
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT", purpose=Purpose.BULK) as connection:
            connection.exec_driver_sql(f"VACUUM (FULL, SKIP_LOCKED) {name}")
    except AwayError as error:
        # It runs in no transaction, so it has the time that its role has, not ours.
        if isinstance(error.__cause__, QueryCanceled):
            todo = f"raise statement_timeout of {user}, then {act.again}"
            raise _refused(act, "could not be rewritten, because the server ended that", name, todo) from None
        raise


def _asked(engine: Engine, query: str) -> list[Any]:
    with transaction(engine, Purpose.READ) as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def _named(transactions: set[tuple[str, int]]) -> str:
    return ", ".join(sorted(f"process {pid} of the server" for _, pid in transactions))


def _refused(act: Act, what: str, name: str, todo: str) -> UserError:
    return refuse(f"{what}: {act.done}, but its files still hold {act.left}", f"the table {name}", todo)
