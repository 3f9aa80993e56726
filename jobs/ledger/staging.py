"""The lines of a manifest on their way into the ledger, in temporary tables, because the manifest may still prove unusable."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import select, text, update

from jobs.core.batches import in_batches
from jobs.core.model import Broken, Row
from jobs.ledger import scratch, tables
from jobs.ledger.engines import insert_many
from jobs.ledger.tables import listed, torn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from jobs.ledger.scratch import Scratch

_KEY = text("CREATE INDEX listed_key ON listed (client_id, level, account_id, position)")


def stage(connection: Connection, kept: Scratch, rows: Iterable[Row | Broken]) -> int:
    """The number of rows. Their old pairs go into `kept`. Raises what `rows` raises."""
    tables.temporary.drop_all(connection)
    tables.temporary.create_all(connection)
    kept.keep(scratch.replace_old_pairs)
    count = 0
    for batch in in_batches(enumerate(rows, start=1)):
        count += len(batch)
        good = [(position, row) for position, row in batch if isinstance(row, Row)]
        insert_many(connection, listed, [_of_row(position, row) for position, row in good])
        insert_many(connection, torn, [_of_broken(position, row) for position, row in batch if isinstance(row, Broken)])
        old = [_old_pair(position, row) for position, row in good if row.access_token or row.refresh_token]
        kept.keep(partial(scratch.keep_old_pairs, rows=old))
    # An index made at the end is written in order. One that grows with the rows is written many times over.
    connection.execute(_KEY)
    first = listed.alias()
    same = (first.c[name] == listed.c[name] for name in ("client_id", "level", "account_id"))
    earlier = select(first.c.position).where(*same, first.c.position < listed.c.position).exists()
    connection.execute(update(listed).where(earlier).values(repeats=True))
    return count


def _of_row(position: int, row: Row) -> dict[str, object]:
    """A usable line without its old pair, which the ledger never holds."""
    return {"position": position, **_place_of(row), "line": row.line, "company_id": row.company_id, "cells": _text(row)}


def _place_of(row: Row) -> dict[str, object]:
    return {"client_id": row.client_id, "level": row.level.value, "account_id": row.account_id}


def _old_pair(position: int, row: Row) -> dict[str, object]:
    access = row.access_token.reveal() if row.access_token else ""
    refresh = row.refresh_token.reveal() if row.refresh_token else ""
    return {"position": position, **_place_of(row), "access_token": access, "refresh_token": refresh}


def _of_broken(position: int, row: Broken) -> dict[str, object]:
    """A line that cannot be used."""
    return asdict(row) | {"position": position, "cells": _text(row), "cell_count": len(row.cells)}


def _text(row: Row | Broken) -> str:
    return json.dumps(row.cells, ensure_ascii=False)
