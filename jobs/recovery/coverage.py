"""Which installs each route can serve, by the manifest and the ledger, before anything is sent."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, inspect, select

from jobs.core.model import InstallKey, Level, Route, Status
from jobs.core.secret import Secret
from jobs.highlevel.jwt_claims import read_claims, why_useless
from jobs.ledger.counts import taken_again
from jobs.ledger.reads import tokens_from_text
from jobs.ledger.refresh_log import fingerprint, newest
from jobs.ledger.scratch import agency_tokens, has_old_token, old_tokens
from jobs.ledger.tables import HAS_OPEN_PAIR, HAS_PAIR, SAME_INSTALL, installs, listed, spends, todo
from jobs.recovery.agency_tokens import AgencyKey, Bearer, UnreadAgency
from jobs.sealing.opener import Unread, opened

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy import Connection, Select

    from jobs.core.model import Tokens
    from jobs.ledger.scratch import Scratch
    from jobs.sealing.opener import Opener

_AT_ONCE = 500


def known_bearers(
    connection: Connection, scratch: Scratch, now: datetime, opener: Opener | None = None
) -> Iterator[Bearer | UnreadAgency]:
    """The valid access tokens of agencies: those of the list (in `scratch`), then the better ones of the ledger.

    `opener` opens those of sealed pairs. An agency whose pair it does not open is unread.
    """
    for client_id, company_id, text in scratch.ask(lambda kept: list(agency_tokens(kept))):
        if not why_useless(Secret(text), InstallKey(client_id, Level.AGENCY, company_id), now.timestamp()):
            yield Bearer(client_id, company_id, Secret(text))
    back = select(installs.c.client_id, installs.c.account_id, installs.c.tokens)
    back = back.where(installs.c.level == Level.AGENCY.value, installs.c.status == Status.RECOVERED.value)
    back = back.order_by(installs.c.id)
    for client_id, company_id, text in connection.execute(back, execution_options={"yield_per": _AT_ONCE}):
        found = _bearer_of(InstallKey(client_id, Level.AGENCY, company_id), tokens_from_text(text), now, opener)
        if found is not None:
            yield found


def _bearer_of(key: InstallKey, tokens: Tokens, now: datetime, opener: Opener | None) -> Bearer | UnreadAgency | None:
    """The bearer that the pair of an agency gives. None if it was purged, or is no longer valid."""
    if tokens.is_purged or (tokens.expires_at and datetime.fromisoformat(tokens.expires_at) <= now):
        return None
    pair = opened(opener, key, tokens)
    if isinstance(pair, Unread):
        return UnreadAgency(key.client_id, key.account_id, pair.words)
    sealed = tokens.sealed is not None
    return Bearer(key.client_id, key.account_id, pair.access_token, sealed=sealed) if _lives(pair, now) else None


def _lives(tokens: Tokens, now: datetime) -> bool:
    """Whether a recorded access token is still valid, by the expiry in its answer, or by its own claim."""
    if tokens.expires_at:
        return datetime.fromisoformat(tokens.expires_at) > now
    claims = read_claims(tokens.access_token)
    return claims is None or claims.expires is None or claims.expires > now.timestamp()


def may_serve(
    connection: Connection, scratch: Scratch, client_id: str, companies: Sequence[str], *, refresh: bool, opens: bool
) -> bool:
    """Whether an agency among `companies`, or an old refresh token, may serve any install that is lined up for an app.

    `opens`: sealed pairs can be read.
    """
    lined_up = select(todo.c.seq).join(installs, installs.c.id == todo.c.install).where(todo.c.client_id == client_id)
    of_location = lined_up.where(installs.c.level == Level.SUB_ACCOUNT.value)
    asked = [of_location.where(installs.c.company_id == "")] if companies else []
    asked += [
        of_location.where(installs.c.company_id.in_(companies[begin : begin + _AT_ONCE]))
        for begin in range(0, len(companies), _AT_ONCE)
    ]
    if refresh:
        asked.append(lined_up.where(HAS_PAIR if opens else HAS_OPEN_PAIR))
    if any(connection.execute(query.limit(1)).first() is not None for query in asked):
        return True
    return refresh and scratch.ask(has_old_token) and _old_token_lined_up(connection, scratch, client_id)


def _old_token_lined_up(connection: Connection, scratch: Scratch, client_id: str) -> bool:
    positions = select(installs.c.position).join(todo, installs.c.id == todo.c.install)
    query = positions.where(todo.c.client_id == client_id, installs.c.position.is_not(None))
    query = query.where(installs.c.tokens.is_(None))  # The old token of the list is older than a pair of the ledger.
    pages = connection.execute(query, execution_options={"yield_per": _AT_ONCE}).scalars().partitions()
    return any(scratch.ask(partial(old_tokens, positions=page)) for page in pages)


def served(
    connection: Connection,
    scratch: Scratch,
    client_ids: Collection[str],
    routes: Sequence[Route],
    now: datetime,
    before: str = "",
    *,
    with_companies: bool,
) -> dict[str, int]:
    """For each of `routes`, how many staged installs it can serve, as far as is known. Only those that a run would try
    are counted.

    `with_companies`: the manifest has a column for companies, so that an empty cell means that none is known. Without
    the column, an earlier manifest's company counts, as in a run. Installs recovered `before` that moment would be
    tried too. `unplaced` are sub-accounts of an unknown company: an agency may serve them if it lists them. `sealed`, if
    there are any, need a pair that only an identity opens.
    """
    counts = {route.value: 0 for route in routes} | ({"unplaced": 0} if Route.AGENCY in routes else {})
    agencies, unread = _agencies(connection, scratch, now)
    of_apps = {client_id for client_id, _ in agencies}
    spent = set(connection.scalars(select(spends.c.fingerprint))) if inspect(connection).has_table("spends") else set()
    for client_id, level, account_id, company_id, text, recorded in _to_try(
        connection, scratch, before, with_companies=with_companies
    ):
        if client_id not in client_ids:
            continue
        key = InstallKey(client_id, Level(level), account_id)
        old, agency = newest(key, recorded, text, None), level == Level.SUB_ACCOUNT and (client_id, company_id)
        for route in routes:
            counts[route] += (
                route is Route.RECONNECT
                or (route is Route.AGENCY and agency in agencies)
                or (route is Route.REFRESH and _may_be_sent(key, old, spent, now))
            )
        if (Route.AGENCY in routes and agency in unread) or (Route.REFRESH in routes and isinstance(old, Unread)):
            counts["sealed"] = counts.get("sealed", 0) + 1
        if "unplaced" in counts and level == Level.SUB_ACCOUNT and not company_id and client_id in of_apps:
            counts["unplaced"] += 1
    return counts


def _agencies(connection: Connection, scratch: Scratch, now: datetime) -> tuple[set[AgencyKey], set[AgencyKey]]:
    """The agencies that have a valid pair, and those that have only one that cannot be read."""
    read, unread = set[AgencyKey](), set[AgencyKey]()
    for one in known_bearers(connection, scratch, now):
        (read if isinstance(one, Bearer) else unread).add(AgencyKey(one.client_id, one.company_id))
    return read, unread - read


def _may_be_sent(key: InstallKey, old: Secret | Unread | None, spent: Collection[str], now: datetime) -> bool:
    return isinstance(old, Secret) and not why_useless(old, key, now.timestamp()) and fingerprint(old) not in spent


def _to_try(
    connection: Connection, scratch: Scratch, before: str, *, with_companies: bool
) -> Iterator[tuple[str, str, str, str, str | None, str | None]]:
    """The staged installs that a run would try: client id, level, id, company, the list's old token, the ledger's pair."""
    query = _wanted(before, with_companies=with_companies)
    for page in connection.execute(query, execution_options={"yield_per": _AT_ONCE}).partitions():
        old = scratch.ask(partial(old_tokens, positions=[row.position for row in page]))
        for client_id, level, account_id, company_id, position, recorded in page:
            yield client_id, level, account_id, company_id, old.get(position), recorded


def _wanted(before: str, *, with_companies: bool) -> Select[Any]:
    company = listed.c.company_id if with_companies else func.coalesce(installs.c.company_id, listed.c.company_id)
    names = (
        listed.c.client_id,
        listed.c.level,
        listed.c.account_id,
        company,
        listed.c.position,
        installs.c.tokens,
    )
    wanted = (func.coalesce(installs.c.status, "") != Status.RECOVERED.value) | taken_again(before)
    return (
        select(*names).select_from(listed.outerjoin(installs, SAME_INSTALL)).where(listed.c.repeats.is_(False), wanted)
    )
