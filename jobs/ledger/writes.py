"""How outcomes are written: one statement for each kind, and the values of an outcome for it.

The job writes outcomes more often than anything else, so it compiles these statements to SQL only once for each engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, case, literal, select, update

from jobs.core.fingerprints import fingerprint_of, sealed_mark
from jobs.core.model import Failed, Install, Recovered, Status, Unfinished
from jobs.ledger.deliveries import REST
from jobs.ledger.engines import key_of, upsert, with_names
from jobs.ledger.reads import tokens_to_text
from jobs.ledger.tables import deliveries, installs, pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection, Insert, Update

    from jobs.sealing.kept_pairs import KeptPairs


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of SQLAlchemy as SQL for the driver. Each engine has its own SQL."""

    clause_for: Callable[[Connection], Insert | Update]
    compiled: dict[str, tuple[str, Mapping[str, object]]] = field(default_factory=dict)

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, object]]) -> int:
        """How many rows of the table it changed. It is executed once for each of `rows`."""
        if not rows:
            return 0
        if connection.dialect.name not in self.compiled:
            clause = self.clause_for(connection).compile(dialect=with_names(connection))
            self.compiled[connection.dialect.name] = str(clause), clause.params
        sql, always = self.compiled[connection.dialect.name]
        return connection.exec_driver_sql(sql, [{**always, **row} for row in rows]).rowcount


def _statement(clause: Update) -> Statement:
    return Statement(lambda _: clause)


def _where(install: Install) -> dict[str, object]:
    """The values that name an install in a statement."""
    client_id, level, account_id = install.key
    return {"client": client_id, "at_level": level.value, "account": account_id}


def _back(install: Install, outcome: Recovered) -> dict[str, object]:
    """The values of `RECOVER`."""
    tokens = outcome.tokens
    return _where(install) | {
        "tries": outcome.attempts,
        "new_tokens": tokens_to_text(tokens),
        "new_route": outcome.route.value,
        "words": outcome.message,
        "trace": tokens.trace_id,
        "at": outcome.at,
        "mark": fingerprint_of(tokens),
    }


def _failed(install: Install, outcome: Failed) -> dict[str, object]:
    """The values of `FAIL`."""
    return _where(install) | {
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
MARK = Statement(
    lambda connection: upsert(connection, pairs).values(fingerprint=bindparam("mark")).on_conflict_do_nothing()
)
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


def _await_delivery(connection: Connection) -> Insert:
    columns = ["install", "recovered_at", "state", "turn", "at", "why"]
    values: tuple[Any, ...] = (
        installs.c.id,
        bindparam("at"),
        literal("waiting"),
        bindparam("turn"),
        literal(""),
        literal(""),
    )
    new = upsert(connection, deliveries).from_select(columns, select(*values).where(*_THE_ONE))
    taken = {name: new.excluded[name] for name in columns[1:]}
    return new.on_conflict_do_update(index_elements=key_of(connection, "install"), set_=taken)


def _waits(install: Install, outcome: Recovered, delivers: KeptPairs) -> dict[str, object]:
    """The values of `AWAIT_DELIVERY`."""
    is_open = delivers.can_open(install.key, outcome.at, outcome.tokens)
    return _where(install) | {"at": outcome.at, "turn": "" if is_open else REST}


AWAIT_DELIVERY = Statement(_await_delivery)
FREE_DELIVERY = _statement(
    update(deliveries)
    .where(deliveries.c.install == select(installs.c.id).where(*_THE_ONE).scalar_subquery(), deliveries.c.turn == "try")
    .values(turn="")
)


def recover(connection: Connection, ended: Sequence[tuple[Install, Recovered]], *, delivers: KeptPairs | None) -> bool:
    """Whether the ledger knows all these installs. Writes new pairs, and lets them wait for their delivery if pairs are
    delivered. A pair that cannot be opened now rests.
    """
    back = [_back(install, outcome) for install, outcome in ended]
    known = RECOVER.execute(connection, back)
    sealed = [outcome.tokens.sealed for _, outcome in ended if outcome.tokens.sealed is not None]
    MARK.execute(connection, [*back, *({"mark": sealed_mark(one.text)} for one in sealed)])
    if delivers is not None:
        AWAIT_DELIVERY.execute(connection, [_waits(install, outcome, delivers) for install, outcome in ended])
    return known == len(back)


def leave(
    connection: Connection, ended: Sequence[tuple[Install, Failed | Unfinished]], *, delivers: KeptPairs | None
) -> None:
    """Write tries without a new pair. A pair that was kept back for such a try may be delivered now."""
    failed = [_failed(install, outcome) for install, outcome in ended if isinstance(outcome, Failed)]
    tried = [
        {**_where(install), "tries": outcome.attempts}
        for install, outcome in ended
        if isinstance(outcome, Unfinished) and outcome.attempts
    ]
    FAIL.execute(connection, failed)
    COUNT.execute(connection, tried)
    if delivers is not None:
        FREE_DELIVERY.execute(connection, [*failed, *tried])
