"""Everything that is known about every install and every run, on disk. It is the job's only state.

Every method that writes is one transaction and is synced when it returns. It raises UnwritableError if the disk refuses.
Only one thread writes, but any thread may call `intend`. A report reads through its own connection, so that it can be
rendered while a run writes.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from jobs.core.model import Recovered
from jobs.ledger import refresh_log, tables
from jobs.ledger.engines import Purpose, key_of, transaction, upsert
from jobs.ledger.enrolment import Enrolment
from jobs.ledger.reads import last_run, run_to_text
from jobs.ledger.recent import Intention, unknown, write_down
from jobs.ledger.tables import runs
from jobs.ledger.work_queue import page_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from jobs.core.model import Install, Outcome, Run
    from jobs.ledger.last_use import LastUse
    from jobs.ledger.lease import Leases
    from jobs.ledger.recent import Recent
    from jobs.ledger.refusals import Wait
    from jobs.ledger.scratch import Scratch
    from jobs.sealing.kept_pairs import KeptPairs
    from jobs.sealing.opener import Opener

_T = TypeVar("_T")


class Ledger:
    """The ledger behind one engine. `scratch` is for what only this run may know. `wait` says how to wait if another
    program holds it. `leases` are those that a run has in a database. `recent` keeps what it wrote there last.
    """

    def __init__(
        self,
        engine: Engine,
        scratch: Scratch,
        wait: Wait,
        leases: Leases | None = None,
        recent: Recent | None = None,
    ) -> None:
        self.leases = leases
        self._recent = recent
        self._begun: dict[int, Outcome] = {}
        self.engine = engine
        self.scratch = scratch
        self.wait = wait
        self.last_use: LastUse | None = None  # Only a ledger in a database knows it.
        self._writing = threading.Lock()
        self.delivers: KeptPairs | None = None  # Set where pairs are delivered.

    def close(self) -> None:
        """Close the file or the connection, and give back the leases."""
        self.scratch.close()
        self.engine.dispose()
        if self.leases is not None:
            self.leases.give_back()

    @property
    def lease(self) -> str:
        """The token of the leases, or '' if there are none."""
        return self.leases.token if self.leases is not None else ""

    def may_send(self) -> bool:
        """Whether something may be sent: there are no leases, or they are held."""
        return self.leases is None or self.leases.hold()

    def copy_to(self, path: Path) -> None:
        """Write the whole ledger to `path`, an empty file. From then on, use the file at the ledger's own path."""
        with self.engine.connect() as connection:
            connection.exec_driver_sql("VACUUM INTO ?", (str(path),))
        self.engine.dispose()

    def at_one_moment(self) -> AbstractContextManager[Connection]:
        """A connection that sees the ledger as it is at its first query, even if others write meanwhile."""
        return transaction(self.engine, Purpose.ONE_MOMENT)

    def at_a_glance(self) -> AbstractContextManager[Connection]:
        """A connection for a look that gives up soon on a database that does not answer, and never waits for one that is away.

        Its queries may see different moments. Raises UnwritableError.
        """
        return transaction(self.engine, Purpose.READ)

    def ask(self, question: Callable[[Connection], _T], purpose: Purpose = Purpose.READ) -> _T:
        """What `question` reads. Any thread may ask. `purpose`: a question that may take long asks at `ONE_MOMENT`."""

        def once() -> _T:
            with transaction(self.engine, purpose) as connection:
                return question(connection)

        return self.wait.for_database(once)

    def ask_to_send(self, question: Callable[[Connection], _T]) -> _T:
        """What `question` reads about what to send. Until the leases are held, it waits as for a database that is away.

        Raises UnwritableError.
        """

        def once(connection: Connection) -> _T:
            if self.leases is not None:
                self.leases.must_hold()
            return question(connection)

        return self.ask(once)

    def write(
        self,
        act: Callable[[Connection], _T],
        purpose: Purpose = Purpose.WRITE,
        wrote: Sequence[Intention | tuple[Install, Outcome]] = (),
    ) -> _T:
        """What `act` returns, which writes; synced when it returns. Any thread may do so. Raises UnwritableError.

        If the answer of a database to a commit is lost, `act` is done twice. If the database goes back in the next seconds,
        what it `wrote` is written again.
        """

        def once() -> _T:
            with self._writing:
                with transaction(self.engine, purpose) as connection:
                    gone = self._recent.write_again(connection, delivers=self.delivers) if self._recent else 0
                    done = act(connection)
                if self._recent is not None:
                    self._recent.keep(wrote)
            if gone:
                lost = "1 outcome of the last seconds was" if gone == 1 else f"{gone} outcomes of the last seconds were"
                self.wait.patience.say(f"the database went back to an older state: {lost} gone, and written again")
            return done

        return self.wait.for_database(once)

    @contextmanager
    def enrolling(self) -> Iterator[Enrolment]:
        """A manifest that is taken in when the block ends, or not at all."""
        with self._writing, transaction(self.engine, Purpose.BULK) as connection:
            yield Enrolment(connection, self.scratch)
            tables.temporary.drop_all(connection)

    @contextmanager
    def looking_ahead(self) -> Iterator[Enrolment]:
        """A manifest that is only compared with the ledger. Nothing of it is kept."""
        with self.at_one_moment() as connection:
            yield Enrolment(connection, self.scratch)

    # -- the work ----------------------------------------------------------------------------------------------

    def todo(
        self, client_id: str, *, spending: bool = False, force: bool = False, opener: Opener | None = None
    ) -> Iterator[Install]:
        """The installs of an app in their order, read a page at a time (for the rest see `work_queue`)."""
        last = 0
        while True:
            page = partial(
                page_after,
                scratch=self.scratch,
                client_id=client_id,
                last=last,
                spending=spending,
                force=force,
                opener=opener,
            )
            found, last = self.ask(page)
            if not found:
                return
            yield from found

    def intend(self, install: Install, at: str) -> None:
        """Record that the old token of `install` is about to be spent. Any thread may call this."""
        self.write(lambda connection: refresh_log.intend(connection, install, at), wrote=[Intention(install, at)])

    # -- outcomes ----------------------------------------------------------------------------------------------

    def record(self, ended: Sequence[tuple[Install, Outcome]]) -> None:
        """Write outcomes in one synced transaction. What an earlier try has written is not written twice."""
        self._keep_open(ended)

        def act(connection: Connection) -> None:
            doubtful = [one for one in ended if id(one[1]) in self._begun]
            there = {id(outcome) for _, outcome in doubtful} - {id(one) for _, one in unknown(connection, doubtful)}
            if self._recent is not None:  # Only the answer of a database can be lost.
                self._begun |= {id(outcome): outcome for _, outcome in ended}
            write_down(connection, [one for one in ended if id(one[1]) not in there], delivers=self.delivers)

        self.write(act, wrote=ended)
        for _, outcome in ended:
            self._begun.pop(id(outcome), None)

    def _keep_open(self, ended: Sequence[tuple[Install, Outcome]]) -> None:
        """Keep new pairs open for their delivery. It may begin the moment they are written."""
        for install, outcome in ended:
            if self.delivers is not None and isinstance(outcome, Recovered):
                self.delivers.keep(install.key, outcome.at, outcome.tokens)

    # -- runs --------------------------------------------------------------------------------------------------

    def save_run(self, run: Run) -> None:
        """Save a run as it is now."""
        text = run_to_text(run)

        def act(connection: Connection) -> None:
            statement = upsert(connection, runs).values(run_id=run.run_id, run=text)
            key = key_of(connection, "run_id")
            connection.execute(statement.on_conflict_do_update(index_elements=key, set_={"run": text}))

        self.write(act)

    def last_run(self) -> Run | None:
        """The newest run, or None."""
        return self.ask(last_run)
