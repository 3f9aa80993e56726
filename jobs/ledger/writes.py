"""How outcomes are written: one statement for each kind, and the values of an outcome for it.

The job writes outcomes more often than anything else, so it compiles these statements to SQL only once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, case, literal, select, update
from sqlalchemy.dialects import sqlite

from jobs.core.model import Failed, Install, Recovered, Status
from jobs.ledger.reads import fingerprint, tokens_to_text
from jobs.ledger.tables import deliveries, installs, pairs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Insert, Update


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL for the driver, with the values that never change."""

    sql: str
    always: Mapping[str, object]

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, object]]) -> None:
        """Execute it once for each row."""
        if rows:
            connection.exec_driver_sql(self.sql, [{**self.always, **row} for row in rows])


def _statement(clause: Insert | Update) -> Statement:
    compiled = clause.compile(dialect=sqlite.dialect(paramstyle="named"))
    return Statement(str(compiled), compiled.params)


def where(install: Install) -> dict[str, object]:
    """The values that name an install in a statement."""
    client_id, level, account_id = install.key
    return {"client": client_id, "at_level": level.value, "account": account_id}


def back(install: Install, outcome: Recovered) -> dict[str, object]:
    """The values of `RECOVER`."""
    tokens = outcome.tokens
    return where(install) | {
        "tries": outcome.attempts,
        "new_tokens": tokens_to_text(tokens),
        "new_route": outcome.route.value,
        "words": outcome.message,
        "trace": tokens.trace_id,
        "at": outcome.at,
        "mark": fingerprint(tokens.access_token.reveal(), tokens.refresh_token.reveal()),
    }


def failed(install: Install, outcome: Failed) -> dict[str, object]:
    """The values of `FAIL`."""
    return where(install) | {
        "tries": outcome.attempts,
        "why": outcome.cause.value,
        "at_stage": outcome.stage.value,
        "words": outcome.message,
        "answered": outcome.http_status,
        "trace": outcome.trace_id,
        "at": outcome.at,
    }


_THE_ONE = (
    installs.c.client_id == bindparam("client"),
    installs.c.level == bindparam("at_level"),
    installs.c.account_id == bindparam("account"),
)
_TRIED = installs.c.attempts + bindparam("tries")
COUNT = _statement(update(installs).where(*_THE_ONE).values(attempts=_TRIED))
MARK = _statement(sqlite.insert(pairs).values(fingerprint=bindparam("mark")).on_conflict_do_nothing())
RECOVER = _statement(
    update(installs)
    .where(*_THE_ONE)
    .values(
        status=Status.RECOVERED.value,
        attempts=_TRIED,
        tokens=bindparam("new_tokens"),
        route=bindparam("new_route"),
        cause=None,
        stage=None,
        message=bindparam("words"),
        http_status=0,
        trace_id=bindparam("trace"),
        first_failed_at="",
        last_tried_at=bindparam("at"),
        recovered_at=bindparam("at"),
    )
)


def _unless_recovered(new: Any, column: Any) -> Any:
    """`new`, unless the install is recovered: a forced try that fails keeps the pair and its state."""
    return case((installs.c.tokens.is_(None), new), else_=column)


FAIL = _statement(
    update(installs)
    .where(*_THE_ONE)
    .values(
        attempts=_TRIED,
        last_tried_at=bindparam("at"),
        status=_unless_recovered(Status.FAILED.value, installs.c.status),
        cause=_unless_recovered(bindparam("why"), installs.c.cause),
        stage=_unless_recovered(bindparam("at_stage"), installs.c.stage),
        message=_unless_recovered(bindparam("words"), installs.c.message),
        http_status=_unless_recovered(bindparam("answered"), installs.c.http_status),
        trace_id=_unless_recovered(bindparam("trace"), installs.c.trace_id),
        first_failed_at=_unless_recovered(
            case((installs.c.first_failed_at == "", bindparam("at")), else_=installs.c.first_failed_at),
            installs.c.first_failed_at,
        ),
    )
)

_NEW = sqlite.insert(deliveries).from_select(
    ["install", "recovered_at", "state", "turn", "at", "why"],
    select(installs.c.id, bindparam("at"), *map(literal, ("waiting", "", "", ""))).where(*_THE_ONE),
)
AWAIT_DELIVERY = _statement(
    _NEW.on_conflict_do_update(
        index_elements=["install"],
        set_={name: _NEW.excluded[name] for name in ("recovered_at", "state", "turn", "at", "why")},
    )
)
FREE_DELIVERY = _statement(
    update(deliveries)
    .where(deliveries.c.install == select(installs.c.id).where(*_THE_ONE).scalar_subquery(), deliveries.c.turn == "try")
    .values(turn="")
)
