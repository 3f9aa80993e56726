"""A connection to PostgreSQL that gives up on a server that does not answer. No driver limits its own wait.

A server that is stopped, or behind a firewall that drops packets, keeps its connections open and says nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from psycopg.abc import PQGen

_T = TypeVar("_T")


class NoAnswerError(psycopg.OperationalError):
    """The server did not answer in time. The connection is closed."""


class Connection(psycopg.Connection[Any]):
    """A connection whose `gives_up` says after how many seconds without an end a statement, or COMMIT, is given up."""

    gives_up: Callable[[float], bool] = staticmethod(lambda _: False)

    def wait(self, gen: PQGen[_T], *more: Any, **named: Any) -> _T:
        """What `gen` returns, as the driver has it. Raises NoAnswerError."""
        try:
            return super().wait(self._limited(gen), *more, **named)
        except NoAnswerError:
            self.close()
            raise

    def _limited(self, gen: PQGen[_T]) -> Generator[Any, Any, _T]:
        """The same generator. The driver wakes it ten times a second, also if nothing came."""
        began = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                waited = time.monotonic() - began
                if not ready and self.gives_up(waited):
                    raise NoAnswerError(f"no answer for {waited:.0f} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            value: _T = end.value
            return value
