"""The columns of the reports: their names, their order, and where each value comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.core.causes import ADVICE
from jobs.core.model import Delivery
from jobs.reports.links import reinstall_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobs.core.model import App, Record, Tokens


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a report: its name, and its cell for a record."""

    name: str
    of: Callable[[Record, Mapping[str, App]], str]


def _token(read: Callable[[Tokens], str]) -> Callable[[Record, Mapping[str, App]], str]:
    return lambda record, _: read(record.tokens) if record.tokens else ""


def _delivery(record: Record) -> str:
    if record.delivery is Delivery.REFUSED:
        return f"no: {record.refused_why}"
    return record.delivery.value if record.delivery else ""


_IDS = (
    Column("location_id", lambda r, _: r.location_id),
    Column("company_id", lambda r, _: r.company_id),
    Column("client_id", lambda r, _: r.client_id),
)

RESULTS: tuple[Column, ...] = (
    *_IDS,
    Column("status", lambda r, _: r.status.value),
    Column("access_token", _token(lambda t: t.access_token.reveal())),
    Column("refresh_token", _token(lambda t: t.refresh_token.reveal())),
    Column("token_type", _token(lambda t: t.token_type)),
    Column("expires_at", _token(lambda t: t.expires_at)),
    Column("scope", _token(lambda t: t.scope)),
    Column("sealed", _token(lambda t: t.sealed.text if t.sealed else "")),
    Column("user_type", _token(lambda t: t.user_type)),
    Column("user_id", _token(lambda t: t.user_id)),
    Column("route", lambda r, _: r.route),
    Column("cause", lambda r, _: r.cause.value if r.cause else ""),
    Column("message", lambda r, _: r.message),
    Column("trace_id", lambda r, _: r.trace_id),
    Column("attempts", lambda r, _: str(r.attempts)),
    Column("recovered_at", lambda r, _: r.recovered_at),
    Column("delivery", lambda r, _: _delivery(r)),
    Column("delivered_at", lambda r, _: r.delivered_at),
)

RESULTS_OPEN = tuple(column for column in RESULTS if column.name != "sealed")
"""The columns of results.csv where pairs are not sealed."""

FAILURES: tuple[Column, ...] = (
    *_IDS,
    Column("cause", lambda r, _: r.cause.value if r.cause else ""),
    Column("owner", lambda r, _: ADVICE[r.cause].owner.value if r.cause else ""),
    Column("next_step", lambda r, _: ADVICE[r.cause].next_step if r.cause else ""),
    Column("message", lambda r, _: r.message),
    Column("stage", lambda r, _: r.stage.value if r.stage else ""),
    Column("http_status", lambda r, _: str(r.http_status or "")),
    Column("trace_id", lambda r, _: r.trace_id),
    Column("attempts", lambda r, _: str(r.attempts)),
    Column("first_failed_at", lambda r, _: r.first_failed_at),
    Column("last_tried_at", lambda r, _: r.last_tried_at),
    Column("reinstall_url", lambda r, apps: reinstall_url(apps.get(r.client_id), r)),
)
