"""A whole ledger copied from one engine into the other: every row of every table with its number, and compared."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import select

from jobs.core.batches import in_batches
from jobs.core.errors import refuse
from jobs.ledger import tables
from jobs.ledger.engines import continue_numbers, insert_many
from jobs.ledger.moves import OF_THE_PLACE
from jobs.ledger.tables import installs, meta

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection, Table

_TABLES = tables.metadata.sorted_tables
_AT_ONCE = 500


class Sum(NamedTuple):
    """What a table holds: how many rows, and the fingerprint of all of them in the order of their keys."""

    rows: int
    fingerprint: str


def copy_rows(source: Connection, target: Connection) -> int:
    """How many installs were copied into the target, which is empty.

    Raises UserError if the two differ afterwards.
    """
    sums = {table.name: _copied(source, target, table) for table in _TABLES}
    for table in _TABLES:
        continue_numbers(target, table)
        found = _sum(_rows(target, table))
        if found != sums[table.name]:
            what = f"differs from the original ({found.rows:,} rows, of {sums[table.name].rows:,}); nothing was copied"
            raise refuse(what, f"the table {table.name} of the copy", "report this as a bug of the job")
    return sums[installs.name].rows


def _copied(source: Connection, target: Connection, table: Table) -> Sum:
    def passed_on() -> Iterator[tuple[Any, ...]]:
        for batch in in_batches(_rows(source, table), _AT_ONCE):
            insert_many(target, table, [dict(zip(table.columns.keys(), row, strict=True)) for row in batch])
            yield from batch

    return _sum(passed_on())


def _rows(connection: Connection, table: Table) -> Iterator[tuple[Any, ...]]:
    """The rows in the order of their keys, a page at a time."""
    query = select(table).order_by(*table.primary_key)
    if table is meta:
        query = query.where(meta.c.name.not_in(OF_THE_PLACE))
    yield from map(tuple, connection.execute(query, execution_options={"yield_per": _AT_ONCE}))


def _sum(rows: Iterable[tuple[Any, ...]]) -> Sum:
    count, mark = 0, hashlib.sha256()
    for count, row in enumerate(rows, 1):  # noqa: B007 - the last number counts them
        mark.update(json.dumps(row).encode() + b"\n")
    return Sum(count, mark.hexdigest())
