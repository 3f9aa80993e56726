"""Everything that is known about every install and every run, on disk. It is the job's only state.

Every method that writes is one transaction and is synced when it returns. It raises UnwritableError if the disk refuses.
Only one thread writes, but any thread may call `intend`. A report reads through its own connection, so that it can be
rendered while a run writes.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import case, delete, false, func, insert, literal, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from jobs.core.causes import ADVICE
from jobs.core.model import (
    Broken,
    Cause,
    Failed,
    Install,
    Level,
    Outcome,
    Recovered,
    Row,
    Run,
    Stage,
    Status,
    Unfinished,
)
from jobs.ledger import refresh_log, staging, tables, writes
from jobs.ledger.changes import keep_last_report
from jobs.ledger.counts import not_tried_since, taken_again
from jobs.ledger.known_cells import keep_known_cells, keep_known_lines
from jobs.ledger.reads import last_run, run_to_text
from jobs.ledger.sqlite import cache_for
from jobs.ledger.tables import SAME_INSTALL, broken, installs, layouts, listed, pairs, runs, todo, torn
from jobs.ledger.work_queue import page_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import ColumnElement, Connection, Engine

    from jobs.ledger.sqlite import Wait

_BATCH = 500
_T = TypeVar("_T")
_BY_THEMSELVES = [cause.value for cause, advice in ADVICE.items() if advice.again]
_KEY = (installs.c.client_id, installs.c.level, installs.c.account_id)
_LISTED_KEY = (listed.c.client_id, listed.c.level, listed.c.account_id)


def in_batches(items: Iterable[Any], size: int = _BATCH) -> Iterator[list[Any]]:
    """`items` in lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


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


class Ledger:
    """The ledger behind one engine. `wait` says how to wait if another program holds it."""

    def __init__(self, engine: Engine, wait: Wait) -> None:
        self.engine = engine
        self.wait = wait
        self._connection: Connection = engine.connect()
        self._writing = threading.Lock()
        self.delivers = False

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        self.engine.dispose()

    def copy_to(self, path: Path) -> None:
        """Write the whole ledger to `path`, an empty file. From then on, use the file at the ledger's own path."""
        self._connection.exec_driver_sql("VACUUM INTO ?", (str(path),))
        self._connection.close()
        self._connection = self.engine.connect()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A block that writes. It locks the ledger at once, so that it does nothing if another program holds it."""
        with self._writing, self._connection.begin():
            self._connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield self._connection

    def ask(self, question: Callable[[Connection], _T]) -> _T:
        """What `question` reads. It may read the staged manifest too."""
        try:
            return question(self._connection)
        finally:
            self._connection.rollback()

    def keep(self, act: Callable[[Connection], _T]) -> _T:
        """What `act` returns. It may only change temporary tables."""
        with self._connection.begin():
            return act(self._connection)

    def write(self, act: Callable[[Connection], _T]) -> _T:
        """What `act` returns, which writes; synced when it returns. Any thread may do so. Raises UnwritableError."""
        with self._writing, self.engine.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            return act(connection)

    # -- the manifest ------------------------------------------------------------------------------------------

    def stage(self, rows: Iterable[Row | Broken]) -> int:
        """The number of rows of the manifest. Reads it into a temporary table, because it may still prove unusable.

        Raises what `rows` raises.
        """
        count, connection = 0, self._connection
        with connection.begin():
            tables.temporary.drop_all(connection)
            for table in (listed, torn):
                table.create(connection)
            for batch in in_batches(enumerate(rows, start=1)):
                count += len(batch)
                good = [staging.of_row(position, row) for position, row in batch if isinstance(row, Row)]
                bad = [staging.of_broken(position, row) for position, row in batch if isinstance(row, Broken)]
                for table, values in ((listed, good), (torn, bad)):
                    if values:
                        connection.execute(insert(table), values)
            # An index made at the end is written in order. One that grows with the rows is written many times over.
            connection.execute(tables.LISTED_KEY)
            first = listed.alias()
            same = [mine == theirs for mine, theirs in zip(_LISTED_KEY, _columns(first), strict=True)]
            earlier = select(first.c.position).where(*same, first.c.position < listed.c.position).exists()
            connection.execute(update(listed).where(earlier).values(repeats=True))
        return count

    def duplicate_lines(self) -> tuple[int, list[int]]:
        """How many staged lines repeat an install, and the first of these line numbers."""
        count = self._connection.scalar(select(func.count()).where(listed.c.repeats)) or 0
        lines = list(self._connection.scalars(select(listed.c.line).where(listed.c.repeats).limit(20)))
        self._connection.rollback()
        return count, lines

    def staged(self, before: str) -> list[StagedGroup]:
        """The staged installs, counted by state. Those recovered `before` (see `RunOptions`) will be recovered again."""
        again = func.coalesce(taken_again(before), false())
        columns = (listed.c.client_id, listed.c.level, installs.c.status, installs.c.cause, again)
        query = select(*columns, func.count()).select_from(listed.outerjoin(installs, SAME_INSTALL))
        rows = self._connection.execute(query.where(~listed.c.repeats).group_by(*columns)).all()
        self._connection.rollback()
        return [StagedGroup(*row) for row in rows]

    @property
    def broken_lines(self) -> int:
        """How many staged lines cannot be used."""
        count = self._connection.scalar(select(func.count()).select_from(torn)) or 0
        self._connection.rollback()
        return count

    def enrol(self, columns: Sequence[str], seen_at: str, *, with_companies: bool) -> None:
        """Make the staged manifest the newest: add its installs, and replace the earlier broken lines by its own.

        If it has no column for companies, the companies of earlier manifests stay. A row that does not change is not written
        again, because it holds its pair.
        """
        rows = self._connection.scalar(select(func.max(listed.c.position))) or 0
        self._connection.rollback()
        with self._transaction() as connection, cache_for(connection, rows):
            keep_last_report(connection)
            keep_known_cells(connection, columns)
            layout = self._layout(connection, columns)
            gone = ~select(listed.c.position).where(SAME_INSTALL).exists()
            connection.execute(update(installs).where(installs.c.position.is_not(None), gone).values(position=None))
            names = ["client_id", "level", "account_id", "company_id", "line", "position", "layout", "cells"]
            values = [literal(layout) if name == "layout" else listed.c[name] for name in names]
            # Without `where`, SQLite would read ON CONFLICT as the ON of a join.
            source = select(*values).where(~listed.c.repeats).order_by(listed.c.position)
            statement = upsert(installs).from_select(names, source)
            taken = {name: statement.excluded[name] for name in names[3 if with_companies else 4 :]}
            changed = or_(*(installs.c[name].is_distinct_from(value) for name, value in taken.items()))
            connection.execute(statement.on_conflict_do_update(index_elements=_KEY, set_=taken, where=changed))
            self._replace_broken(connection, columns, layout, seen_at)

    def _replace_broken(self, connection: Connection, columns: Sequence[str], layout: int, seen_at: str) -> None:
        """Replace the broken lines. A line whose cells cannot be told apart has one more cell, which holds the whole line."""
        keep_known_lines(connection, columns)
        connection.execute(delete(broken))
        if connection.scalar(select(func.count()).select_from(torn)):
            with_line = self._layout(connection, (*columns, "row_as_read"))
            its_layout = case((torn.c.cell_count == len(columns) + 1, with_line), else_=layout)
            names = [column.name for column in torn.c if column.name != "cell_count"]
            values = [*(torn.c[name] for name in names), its_layout, literal(seen_at)]
            connection.execute(insert(broken).from_select([*names, "layout", "seen_at"], select(*values)))

    @staticmethod
    def _layout(connection: Connection, columns: Sequence[str]) -> int:
        names = json.dumps(list(columns), ensure_ascii=False)
        connection.execute(upsert(layouts).values(columns=names).on_conflict_do_nothing())
        found: int = connection.execute(select(layouts.c.id).where(layouts.c.columns == names)).scalar_one()
        return found

    def refuse_unknown_apps(self, known: Iterable[str], at: str, before: str) -> int:
        """How many listed installs belong to an app without a configured secret. They fail without a try.

        Those that were recovered `before`, and would be recovered again, keep their pair.
        """
        mine = ~installs.c.client_id.in_(list(known)) & installs.c.position.is_not(None)
        change = update(installs).where(mine, installs.c.status != Status.RECOVERED)
        with self._transaction() as connection:
            connection.execute(update(installs).where(mine, taken_again(before)).values(last_tried_at=at))
            changed = connection.execute(
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
            return int(changed.rowcount)

    # -- the work ----------------------------------------------------------------------------------------------

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
        with self._transaction() as connection:
            refresh_log.forget_flight(connection)
            connection.execute(delete(todo))
            connection.execute(insert(todo).from_select(["client_id", "install"], query))
            counted = connection.execute(select(todo.c.client_id, func.count()).group_by(todo.c.client_id))
            return {row[0]: row[1] for row in counted}

    def todo(self, client_id: str, *, spending: bool = False, force: bool = False) -> Iterator[Install]:
        """The installs of an app in their order, read a page at a time (`spending`, `force`: see `work_queue`)."""
        last = 0
        while True:
            found, last = self.ask(partial(page_after, client_id=client_id, last=last, spending=spending, force=force))
            if not found:
                return
            yield from found

    def intend(self, install: Install, at: str) -> None:
        """Record that the old token of `install` is about to be spent. Any thread may call this."""
        self.write(lambda connection: refresh_log.intend(connection, install, at))

    # -- outcomes ----------------------------------------------------------------------------------------------

    def record(self, ended: Sequence[tuple[Install, Outcome]]) -> None:
        """Write outcomes in one synced transaction."""
        back = [writes.back(install, outcome) for install, outcome in ended if isinstance(outcome, Recovered)]
        failed = [writes.failed(install, outcome) for install, outcome in ended if isinstance(outcome, Failed)]
        tried = [
            {**writes.where(install), "tries": outcome.attempts}
            for install, outcome in ended
            if isinstance(outcome, Unfinished) and outcome.attempts
        ]
        with self._transaction() as connection:
            writes.RECOVER.execute(connection, back)
            writes.MARK.execute(connection, back)
            writes.FAIL.execute(connection, failed)
            writes.COUNT.execute(connection, tried)
            refresh_log.settle(connection, ended)
            if self.delivers:
                writes.AWAIT_DELIVERY.execute(connection, back)
                writes.FREE_DELIVERY.execute(connection, [*failed, *tried])

    def knows_pairs(self, fingerprints: Sequence[str]) -> bool:
        """Whether all of these pairs were recorded here."""
        query = select(func.count()).where(pairs.c.fingerprint.in_(fingerprints))
        known = self._connection.scalar(query)
        self._connection.rollback()
        return known == len(set(fingerprints))

    # -- runs --------------------------------------------------------------------------------------------------

    def save_run(self, run: Run) -> None:
        """Save a run as it is now."""
        text = run_to_text(run)
        statement = upsert(runs).values(run_id=run.run_id, run=text)
        with self._transaction() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["run_id"], set_={"run": text}))

    def last_run(self) -> Run | None:
        """The newest run, or None."""
        return self.ask(last_run)


def _columns(table: Any) -> tuple[Any, ...]:
    return table.c.client_id, table.c.level, table.c.account_id
