"""A manifest on its way into the ledger: staged, compared with what is known, taken in, and its installs lined up.

All of it is one transaction. So a run that is killed meanwhile leaves the ledger as it was, and a plan can do the same
and take it back.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import case, delete, false, func, insert, literal, or_, select, update

from jobs.core.causes import ADVICE
from jobs.core.model import Cause, Level, Stage, Status
from jobs.ledger import refresh_log, staging
from jobs.ledger.changes import keep_last_report
from jobs.ledger.counts import not_tried_since, taken_again
from jobs.ledger.engines import key_of, ready_for, upsert
from jobs.ledger.known_cells import keep_known_cells, keep_known_lines
from jobs.ledger.tables import SAME_INSTALL, broken, installs, layouts, listed, todo, torn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection

    from jobs.core.model import Broken, Row
    from jobs.ledger.scratch import Scratch

_BY_THEMSELVES = [cause.value for cause, advice in ADVICE.items() if advice.again]


class StagedGroup(NamedTuple):
    """Staged installs in the same state. `status` is None if they were never seen before.

    `again` means that they are recovered and the run recovers them again.
    """

    client_id: str
    level: str
    status: str | None
    cause: str | None
    again: bool
    how_many: int


class Enrolment:
    """One manifest. `connection` is in the transaction, and `scratch` takes the old pairs."""

    def __init__(self, connection: Connection, scratch: Scratch) -> None:
        self.connection = connection
        self._scratch = scratch

    def stage(self, rows: Iterable[Row | Broken]) -> int:
        """The number of rows of the manifest. Nothing of it is known to the ledger yet. Raises what `rows` raises."""
        return staging.stage(self.connection, self._scratch, rows)

    def duplicate_lines(self) -> tuple[int, list[int]]:
        """How many staged lines repeat an install, and the first of these line numbers."""
        count = self.connection.scalar(select(func.count()).where(listed.c.repeats)) or 0
        first = select(listed.c.line).where(listed.c.repeats).order_by(listed.c.position).limit(20)
        return count, list(self.connection.scalars(first))

    def broken_lines(self) -> int:
        """How many staged lines cannot be used."""
        return self.connection.scalar(select(func.count()).select_from(torn)) or 0

    def staged(self, before: str) -> list[StagedGroup]:
        """The staged installs, counted by state. Those recovered `before` (see `RunOptions`) will be recovered again."""
        again = func.coalesce(taken_again(before), false())
        columns = (listed.c.client_id, listed.c.level, installs.c.status, installs.c.cause, again)
        query = select(*columns, func.count()).select_from(listed.outerjoin(installs, SAME_INSTALL))
        rows = self.connection.execute(query.where(~listed.c.repeats).group_by(*columns))
        return [StagedGroup(*row) for row in rows]

    def enrol(self, columns: Sequence[str], seen_at: str, *, with_companies: bool) -> None:
        """Make the staged manifest the newest: add its installs, and replace the earlier broken lines by its own.

        If it has no column for companies, the companies of earlier manifests stay. A row that does not change is not written
        again, because it holds its pair.
        """
        connection = self.connection
        rows = connection.scalar(select(func.max(listed.c.position))) or 0
        with ready_for(connection, listed, rows):
            self._enrol(columns, seen_at, with_companies)

    def _enrol(self, columns: Sequence[str], seen_at: str, with_companies: bool) -> None:
        connection = self.connection
        keep_last_report(connection)
        keep_known_cells(connection, columns)
        layout = _layout(connection, columns)
        gone = ~select(listed.c.position).where(SAME_INSTALL).exists()
        connection.execute(update(installs).where(installs.c.position.is_not(None), gone).values(position=None))
        names = ["client_id", "level", "account_id", "company_id", "line", "position", "layout", "cells"]
        values = [literal(layout) if name == "layout" else listed.c[name] for name in names]
        # Without `where`, SQLite would read ON CONFLICT as the ON of a join.
        source = select(*values).where(~listed.c.repeats).order_by(listed.c.position)
        statement = upsert(connection, installs).from_select(names, source)
        key = key_of(connection, "client_id", "level", "account_id")
        taken = {name: statement.excluded[name] for name in names[3 if with_companies else 4 :]}
        changed = or_(*(installs.c[name].is_distinct_from(value) for name, value in taken.items()))
        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=taken, where=changed))
        _replace_broken(connection, columns, layout, seen_at)

    def refuse_unknown_apps(self, known: Iterable[str], at: str, before: str) -> None:
        """Let the listed installs of apps without a configured secret fail without a try.

        Those that were recovered `before`, and would be recovered again, keep their pair.
        """
        mine = ~installs.c.client_id.in_(list(known)) & installs.c.position.is_not(None)
        taken = update(installs).where(mine, taken_again(before)).values(last_tried_at=at)
        self.connection.execute(taken)
        change = update(installs).where(mine, installs.c.status != Status.RECOVERED)
        self.connection.execute(
            change.values(
                status=Status.FAILED,
                cause=Cause.UNKNOWN_APP,
                stage=Stage.MANIFEST,
                message="no secret is configured for this client id",
                http_status=0,
                trace_id="",
                first_failed_at=case((installs.c.first_failed_at == "", at), else_=installs.c.first_failed_at),
                last_tried_at=at,
            )
        )

    def line_up(self, known: Iterable[str], *, before: str, causes: Sequence[Cause]) -> dict[str, int]:
        """How many installs each app (client id) has in this run. Puts the installs in their order.

        An install that was recovered `before` counts as never tried, until it is tried after that moment.
        """
        wanted: list[ColumnElement[bool]] = [installs.c.position.is_not(None), installs.c.client_id.in_(list(known))]
        if causes:
            wanted.append(installs.c.cause.in_([cause.value for cause in causes]))
        wanted.append((installs.c.status != Status.RECOVERED) | taken_again(before))
        never_tried = (installs.c.status == Status.PENDING) | not_tried_since(before)
        turn = case((never_tried, 0), (installs.c.cause.in_(_BY_THEMSELVES), 1), else_=2)
        order = (case((installs.c.level == Level.AGENCY, 0), else_=1), turn, installs.c.position)
        query = select(installs.c.client_id, installs.c.id).where(*wanted).order_by(*order)
        refresh_log.forget_flight(self.connection)
        self.connection.execute(delete(todo))
        self.connection.execute(insert(todo).from_select(["client_id", "install"], query))
        counted = select(todo.c.client_id, func.count()).group_by(todo.c.client_id).order_by(todo.c.client_id)
        return {row[0]: row[1] for row in self.connection.execute(counted)}


def _replace_broken(connection: Connection, columns: Sequence[str], layout: int, seen_at: str) -> None:
    """Replace the broken lines. A line whose cells cannot be told apart has one more cell, which holds the whole line."""
    keep_known_lines(connection, columns)
    connection.execute(delete(broken))
    if connection.scalar(select(func.count()).select_from(torn)):
        with_line = _layout(connection, (*columns, "row_as_read"))
        its_layout = case((torn.c.cell_count == len(columns) + 1, with_line), else_=layout)
        names = [column.name for column in torn.c if column.name != "cell_count"]
        values = [*(torn.c[name] for name in names), its_layout, literal(seen_at)]
        connection.execute(insert(broken).from_select([*names, "layout", "seen_at"], select(*values)))


def _layout(connection: Connection, columns: Sequence[str]) -> int:
    """The number of the layout with these columns, which is made if it is missing. Only one run writes at a time."""
    names = json.dumps(list(columns), ensure_ascii=False)
    known: int | None = connection.scalar(select(layouts.c.id).where(layouts.c.columns == names))
    if known is not None:
        return known
    made: int = connection.execute(insert(layouts).values(columns=names).returning(layouts.c.id)).scalar_one()
    return made
