"""A pair as a target sees it: one object, whose names are fixed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobs.core.clock import as_written
from jobs.core.model import Level, Record, Route, Status, Tokens
from jobs.core.secret import Secret
from jobs.ledger.deliveries import PairKey

if TYPE_CHECKING:
    from collections.abc import Iterable

_BEGAN = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_A_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Pair:
    """What is handed over for one install. `pair_id` is the same whenever this pair is sent; `data` holds live tokens."""

    pair_id: str
    data: dict[str, Any]

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Its tokens, which must be removed from whatever a target answers."""
        return tuple(Secret(text) for name in ("access_token", "refresh_token") if (text := self.data[name]))

    def __repr__(self) -> str:
        return f"Pair({self.pair_id})"


def pair_id_of(ledger_id: str, key: PairKey) -> str:
    """The id of a pair of a ledger. It can be read back by `key_of`."""
    moment = datetime.fromisoformat(key.recovered_at)
    return f"{ledger_id}-{key.install}-{(moment - _BEGAN) // _MILLISECOND}"


def key_of(ledger_id: str, pair_id: str) -> PairKey | None:
    """The pair of a ledger that has this id, or None for any other text."""
    try:
        ledger, install, moment = pair_id.rsplit("-", 2)
        key = PairKey(int(install), as_written(_BEGAN + int(moment) * _MILLISECOND))
    except (ValueError, OverflowError):
        return None
    return key if ledger == ledger_id and pair_id_of(ledger, key) == pair_id else None


def pair_of(pair_id: str, record: Record, now: datetime) -> Pair:
    """The pair that `record` holds, at the moment `now`. Absent and empty values are None."""
    tokens = record.tokens
    assert tokens is not None
    assert record.level is not None
    expires = datetime.fromisoformat(tokens.expires_at) if tokens.expires_at else None
    values = {
        "pair_id": pair_id,
        "resource_id": record.location_id or record.company_id,
        "location_id": record.location_id,
        "company_id": record.company_id,
        "client_id": record.client_id,
        "application_id": record.client_id.partition("-")[0],
        "user_type": record.level.value,
        "user_id": tokens.user_id,
        "access_token": tokens.access_token.reveal(),
        "refresh_token": tokens.refresh_token.reveal(),
        "token_type": tokens.token_type,
        "scope": tokens.scope,
        "expires_at": tokens.expires_at,
        "expires_at_s": int(expires.timestamp()) if expires else None,
        "expires_at_ms": round(expires.timestamp() * 1000) if expires else None,
        "expires_in": max(0, int((expires - now).total_seconds())) if expires else None,
        "recovered_at": record.recovered_at,
        "route": record.route,
    }
    columns: dict[str, str | None] = {}
    for name, cell in record.cells:
        columns.setdefault(name, cell or None)
    return Pair(
        pair_id, {name: None if value == "" else value for name, value in values.items()} | {"columns": columns}
    )


def made_up_pair(now: datetime, columns: Iterable[str] = ()) -> Pair:
    """A made-up pair for testing a target. Its ids begin with `test-`, and the list's columns are empty."""
    token = Tokens(
        access_token=Secret("test-access-token"),
        refresh_token=Secret("test-refresh-token"),
        token_type="Bearer",  # noqa: S106 - not a real token
        expires_at=as_written(now + _A_DAY),
        scope="test",
        user_type=Level.SUB_ACCOUNT.value,
        user_id="test-user",
        location_id="test-location",
        company_id="test-company",
        trace_id="",
    )
    record = Record(
        status=Status.RECOVERED,
        location_id="test-location",
        company_id="test-company",
        client_id="test-client",
        level=Level.SUB_ACCOUNT,
        line=0,
        listed=False,
        cells=tuple((name, "") for name in columns),
        tokens=token,
        route=Route.RECONNECT,
        recovered_at=as_written(now),
    )
    pair = pair_of(f"test-{(now - _BEGAN) // _MILLISECOND}", record, now)
    return Pair(pair.pair_id, pair.data | {"application_id": "test-application"})
