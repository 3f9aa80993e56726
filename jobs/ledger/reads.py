"""Reads the ledger's contents as values: records in manifest order, token pairs, runs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, Text, cast, func, literal_column, select

from jobs.core.model import (
    ARMOR,
    Cause,
    Counts,
    Delivery,
    DeliveryReport,
    Level,
    Record,
    Run,
    Sealed,
    Stage,
    Status,
    ThisRun,
    Tokens,
)
from jobs.core.secret import Secret
from jobs.ledger.engines import json_value
from jobs.ledger.tables import OF_KEPT_PAIR, broken, deliveries, installs, layouts, pairs, runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection

_PAGE = 200
_WITH_DELIVERY = select(
    installs,
    deliveries.c.state.label("delivery"),
    deliveries.c.at.label("delivery_at"),
    deliveries.c.why.label("delivery_why"),
).outerjoin(deliveries, OF_KEPT_PAIR)


def knows_pairs(connection: Connection, fingerprints: Sequence[str]) -> bool:
    """Whether all of these pairs were recorded here."""
    query = select(func.count()).where(pairs.c.fingerprint.in_(fingerprints))
    return connection.scalar(query) == len(set(fingerprints))


def tokens_to_text(tokens: Tokens) -> str:
    """A pair as the ledger stores it, in one value. Of a sealed pair, neither token is in it."""
    values = {field.name: getattr(tokens, field.name) for field in fields(tokens) if field.name != "sealed"}
    if tokens.sealed is not None:
        text, mark, recipients = tokens.sealed
        values |= {"access_token": "", "refresh_token": "", "sealed": text}
        values |= {"fingerprint": mark, "sealed_for": recipients_to_text(recipients)}
    return json.dumps({name: v.reveal() if isinstance(v, Secret) else v for name, v in values.items()})


def recipients_to_text(recipients: Sequence[str]) -> str:
    """The fingerprints of a sealed pair's recipients as the ledger stores them, in one text that can be compared."""
    return " ".join(recipients)


def tokens_from_text(text: str) -> Tokens:
    """The pair that `tokens_to_text` wrote."""
    values = json.loads(text)
    sealed, mark, recipients = (values.pop(name, None) for name in ("sealed", "fingerprint", "sealed_for"))
    # Only what is made like one may hide tokens that are there.
    is_sealed = bool(sealed) and (not values["access_token"] or str(sealed).startswith(ARMOR))
    return Tokens(
        **{
            **values,
            "sealed": Sealed(str(sealed), str(mark), tuple((recipients or "").split())) if is_sealed else None,
            "access_token": Secret(values["access_token"]),
            "refresh_token": Secret(values["refresh_token"]),
        }
    )


def run_to_text(run: Run) -> str:
    """A run as the ledger stores it."""
    return json.dumps(asdict(run))


def run_from_text(text: str) -> Run:
    """The run that `run_to_text` wrote."""
    values = json.loads(text)
    parts = {"counts": Counts, "this_run": ThisRun, "delivery": DeliveryReport}
    return Run(**values | {name: kind(**values.get(name, {})) for name, kind in parts.items()})


def last_run(connection: Connection) -> Run | None:
    """The newest run, or None."""
    found = connection.scalar(select(runs.c.run).order_by(runs.c.id.desc()).limit(1))
    return run_from_text(found) if found else None


def last_ended(connection: Connection, code: int | None = None) -> Run | None:
    """The newest run that has ended, or None. With `code`, the newest that ended with that exit code."""
    ended_with = cast(json_value(runs.c.run, literal_column("'exit_code'")), Text)
    wanted = ended_with.is_not(None) if code is None else ended_with == str(code)
    found = connection.scalar(select(runs.c.run).where(wanted).order_by(runs.c.id.desc()).limit(1))
    return run_from_text(found) if found else None


def user_columns(connection: Connection) -> tuple[str, ...]:
    """The user's columns of all records: first those of the newest manifest, then those that only earlier ones had."""
    used = select(installs.c.layout).union(select(broken.c.layout)).subquery()
    newest = connection.scalar(
        select(installs.c.layout).where(installs.c.position.is_not(None)).order_by(installs.c.layout.desc()).limit(1)
    )
    found = connection.execute(select(layouts.c.id, layouts.c.columns).where(layouts.c.id.in_(select(used.c[0]))))
    names = {number: json.loads(text) for number, text in found}
    union: list[str] = []
    for number in sorted(names, key=lambda number: (number != newest, number)):
        more = Counter(names[number]) - Counter(union)
        for name in names[number]:
            if more[name] > 0:
                more[name] -= 1
                union.append(name)
    return tuple(union)


def records(connection: Connection) -> Iterator[Record]:
    """Every install ever seen and every broken line, in manifest order. Installs that are no longer listed come last."""
    return _in_order(connection, _WITH_DELIVERY)


def failures(connection: Connection) -> Iterator[Record]:
    """The failed installs and the broken lines, in manifest order. Installs that are no longer listed come last."""
    return _in_order(connection, select(installs).where(installs.c.status == Status.FAILED))


def layout_names(connection: Connection) -> dict[int, list[str]]:
    """The user's columns of every layout."""
    return {number: json.loads(text) for number, text in connection.execute(select(layouts.c.id, layouts.c.columns))}


def _in_order(connection: Connection, query: Select[Any]) -> Iterator[Record]:
    listed = installs.c.position.is_not(None)
    yield from _merged(connection, query.where(listed).order_by(installs.c.position), with_broken=True)
    yield from _merged(connection, query.where(~listed).order_by(installs.c.id), with_broken=False)


def _merged(connection: Connection, query: Select[Any], *, with_broken: bool) -> Iterator[Record]:
    names = layout_names(connection)
    torn = streamed(connection, select(broken).order_by(broken.c.position)) if with_broken else iter(())
    waiting = next(torn, None)
    for row in streamed(connection, query):
        while waiting is not None and waiting["position"] < row["position"]:
            yield broken_record(waiting, names)
            waiting = next(torn, None)
        yield as_record(row, names)
    while waiting is not None:
        yield broken_record(waiting, names)
        waiting = next(torn, None)


def streamed(connection: Connection, query: Select[Any]) -> Iterator[Mapping[str, Any]]:
    """The rows of `query`, a page at a time."""
    # The option belongs to the statement. On the connection, it would apply to all other queries too.
    yield from map(dict, connection.execute(query, execution_options={"yield_per": _PAGE}).mappings())


def broken_record(row: Mapping[str, Any], names: Mapping[int, list[str]]) -> Record:
    """A broken line of the ledger as a record."""
    return Record(
        status=Status.FAILED,
        location_id=row["location_id"],
        company_id=row["company_id"],
        client_id=row["client_id"],
        level=None,
        line=row["line"],
        listed=True,
        cells=tuple(zip(names[row["layout"]], json.loads(row["cells"]), strict=False)),
        cause=Cause.INVALID_ROW,
        stage=Stage.MANIFEST,
        message=row["why"],
        first_failed_at=row["seen_at"],
        last_tried_at=row["seen_at"],
    )


def as_record(row: Mapping[str, Any], names: Mapping[int, list[str]]) -> Record:
    """An install of the ledger as a record."""
    tokens = tokens_from_text(row["tokens"]) if row["tokens"] else None
    level = Level(row["level"])
    of_location = level is Level.SUB_ACCOUNT
    # HighLevel's company comes first, because the one in the list may be old.
    company = (tokens.company_id if tokens else "") or row["company_id"]
    return Record(
        status=Status(row["status"]),
        location_id=row["account_id"] if of_location else "",
        company_id=company if of_location else row["account_id"],
        client_id=row["client_id"],
        level=level,
        line=row["line"],
        listed=row["position"] is not None,
        cells=tuple(zip(names[row["layout"]], json.loads(row["cells"]), strict=False)),
        tokens=tokens,
        route=row["route"],
        cause=Cause(row["cause"]) if row["cause"] else None,
        stage=Stage(row["stage"]) if row["stage"] else None,
        message=row["message"],
        http_status=row["http_status"],
        trace_id=row["trace_id"],
        attempts=row["attempts"],
        first_failed_at=row["first_failed_at"],
        last_tried_at=row["last_tried_at"],
        recovered_at=row["recovered_at"],
        delivery=_delivery(row, tokens),
        delivered_at=row["delivery_at"] if row.get("delivery") == Delivery.DELIVERED else "",
        refused_why=row.get("delivery_why") or "",
    )


def _delivery(row: Mapping[str, Any], tokens: Tokens | None) -> Delivery | None:
    """How the pair stands with the app's store. A pair without tokens was purged, delivered or not."""
    if tokens is not None and tokens.is_purged:
        return Delivery.PURGED
    return Delivery(row["delivery"]) if row.get("delivery") else None
