"""Starred cells that come back. If a `failures.csv` is the next INPUT, its stars never replace what the ledger knows."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from sqlalchemy import func, select, update

from jobs.core.formula_guard import under
from jobs.core.secret import STARS
from jobs.ledger.engines import index_long_text
from jobs.ledger.reads import broken_record, layout_names, streamed
from jobs.ledger.tables import SAME_INSTALL, broken, installs, listed, torn
from jobs.manifest.layout import IDS
from jobs.manifest.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Select

    from jobs.core.model import Record

_AT_ONCE = 500
_STARRED = listed.c.cells.contains(json.dumps(STARS))


def keep_known_cells(connection: Connection, columns: Sequence[str]) -> None:
    """Replace every starred cell of a staged row by what the ledger knows about that install and column, if anything."""
    names, last = layout_names(connection), 0
    known = select(listed.c.position, listed.c.cells, installs.c.layout, installs.c.cells.label("known"))
    query = known.join(installs, SAME_INSTALL).where(_STARRED, ~listed.c.repeats).order_by(listed.c.position)
    while rows := connection.execute(query.where(listed.c.position > last).limit(_AT_ONCE)).all():
        for position, cells, layout, old in rows:
            before = under(columns, list(zip(names[layout], json.loads(old), strict=False)))
            now = [was if cell == STARS and was else cell for cell, was in zip(json.loads(cells), before, strict=True)]
            new = json.dumps(now, ensure_ascii=False)
            connection.execute(update(listed).where(listed.c.position == position).values(cells=new))
            last = position


def keep_known_lines(connection: Connection, columns: Sequence[str]) -> None:
    """The same for broken lines. What they show identifies them, and their order does if several show the same."""
    if not connection.scalar(select(func.count()).select_from(torn)):
        return
    names, stars, indexed = layout_names(connection), Redactor(), False
    with_own_stars: Counter[tuple[str, ...]] = Counter()
    put_back: set[int] = set()
    for row in streamed(connection, select(broken).order_by(broken.c.position)):
        record = broken_record(row, names)
        seen = stars(record)
        shown = (*_ids(seen), json.dumps(under(columns, seen.cells), ensure_ascii=False))
        if STARS not in "".join(shown):
            continue
        if not indexed:
            index_long_text(connection, torn.c.cells)
            indexed = True
        if seen == record:
            with_own_stars[shown] += 1  # The user wrote these stars, so the line stays as it is.
            continue
        whole = (*_ids(record), json.dumps(under(columns, record.cells), ensure_ascii=False))
        if hash(whole) not in put_back and connection.execute(_torn_like(whole).limit(1)).first() is not None:
            continue  # This list shows the line without stars.
        put_back.add(hash(whole))  # Not the line itself, since it may hold a whole token.
        one = _torn_like(shown).order_by(torn.c.position).limit(1).offset(with_own_stars[shown])
        change = update(torn).where(torn.c.position == one.scalar_subquery())
        connection.execute(change.values(dict(zip((*IDS, "cells"), whole, strict=True))))


def _torn_like(shown: Sequence[str]) -> Select[tuple[int]]:
    """The positions of the staged broken lines that show these ids and cells."""
    same = [torn.c[name] == value for name, value in zip((*IDS, "cells"), shown, strict=True)]
    return select(torn.c.position).where(*same)


def _ids(record: Record) -> tuple[str, str, str]:
    return record.location_id, record.company_id, record.client_id
