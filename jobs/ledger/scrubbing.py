"""Leaves no byte of what was overwritten in the ledger's file, its journal, or its free pages.

In PostgreSQL none is left in the tables' files. What the server's log, its replicas and its backups hold is not ours to find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jobs.core.errors import refuse
from jobs.ledger.engines import is_postgres

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from jobs.ledger.ledger import Ledger


class Act(NamedTuple):
    """What was done to the pairs, what the files still hold until they are scrubbed, and how to go on if that fails."""

    done: str
    left: str
    again: str


PURGE = Act("the pairs are forgotten", "them", "run purge again")
SEAL = Act("the pairs are sealed", "what they were before", "run `recover seal` again")


def scrub(ledger: Ledger, act: Act) -> None:
    """Leave no trace of what was overwritten in the ledger's file, or in the tables' files. Raises UserError."""
    if is_postgres(ledger.engine):
        from jobs.ledger.rewriting import rewrite  # slow to import, and needed only with a database

        rewrite(ledger.engine, ledger.wait, act)
        return
    with ledger.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("PRAGMA secure_delete = ON")
        connection.exec_driver_sql("VACUUM")
        _empty_journal(connection, ledger, act)


def _empty_journal(connection: Connection, ledger: Ledger, act: Act) -> None:
    """Empty the journal, once nobody reads the ledger as it was before."""

    def is_empty() -> bool:
        return not connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]

    if not ledger.wait.patience.wait(is_empty, lambda: "waiting for another program that reads the ledger"):
        what = f"is read by another program: {act.done}, but its journal still holds {act.left}"
        raise refuse(what, str(ledger.engine.url.database), f"end that program, then {act.again}")
