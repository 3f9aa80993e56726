"""The agencies whose access tokens serve as bearers in a run, and which locations each of them lists.

Nothing here sends anything. One thread decides (`router`), and asks here for a token and gives back a listing. Both lie in
temporary tables of the ledger: an agency has a token of 2 KB, and lists may name a million locations.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import and_, delete, func, insert, select, text

from jobs.core.model import InstallKey, Level
from jobs.core.secret import Secret
from jobs.highlevel.jwt_claims import read_claims, why_useless
from jobs.ledger import tables
from jobs.ledger.ledger import in_batches
from jobs.ledger.sqlite import UnwritableError
from jobs.ledger.tables import bearers, locations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import ColumnElement, Connection, Executable, Row, Select

    from jobs.core.model import Answer, Tokens
    from jobs.highlevel.api import Pages
    from jobs.ledger.ledger import Ledger


class AgencyKey(NamedTuple):
    """An agency of an app."""

    client_id: str
    company_id: str


@dataclass(slots=True, eq=False)
class Agency:
    """An agency, and how many living access tokens of it are left.

    `busy`: a call that goes alone is under way (its listing, or its first call for a token, until it is `proven`).
    `pages` is how far its listing has come; `listed`: its locations were asked for; `lists`: and it said which have the
    app. `closed` is the answer that closed its route, `rests` the one after which nothing more is asked of it in this
    run, since its limit lets nothing out for longer than the run's patience; `held_until` monotonic seconds until which its limit holds it back, `free_at` those from which its next call may leave, `refused_since`
    those of the first 429 since it answered anything else.
    """

    key: AgencyKey
    tokens: int = 0
    busy: bool = False
    proven: bool = False
    listed: bool = False
    lists: bool = False
    pages: Pages | None = None
    closed: Answer | None = None
    rests: Answer | None = None
    held_until: float = float("-inf")
    free_at: float = float("-inf")
    refusals: int = 0
    refused_since: float | None = None


_ADD = text(
    "INSERT INTO bearers (client_id, company_id, token) SELECT :client_id, :company_id, :token WHERE NOT EXISTS (SELECT 1 "
    "FROM bearers WHERE client_id = :client_id AND company_id = :company_id AND token = :token)"
)


class AgencyTokens:
    """The agencies that are known to have a living pair. `ledger` holds the tables for the time of a run."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._agencies: dict[AgencyKey, Agency] = {}
        self._asked: dict[str, int] = {}
        ledger.keep(_make_tables)

    def add_all(self, known: Callable[[Connection], Iterable[tuple[str, str, Secret]]]) -> None:
        """The tokens that are known at the start, the better ones last."""

        def keep(connection: Connection) -> None:
            for batch in in_batches(known(connection), 500):
                connection.execute(_ADD, [_row(*bearer) for bearer in batch])

        self._ledger.keep(keep)

    def add(self, client_id: str, company_id: str, token: Secret) -> None:
        """A token that is better than those known before; it opens the agency's route again."""
        agency = self.of(client_id, company_id)
        if self._ledger.keep(partial(_count, statement=_ADD, values=_row(client_id, company_id, token))) and agency:
            agency.tokens += 1
            agency.closed = None
            # What the token before was not told may be told to this one.
            agency.listed, agency.pages = agency.lists, None

    def token_of(self, agency: Agency) -> Secret | None:
        """The token to use, if one is left."""
        newest = select(bearers.c.token).where(_of(agency.key)).order_by(bearers.c.id.desc()).limit(1)
        found = self._ledger.ask(lambda connection: connection.scalar(newest))
        return None if found is None else Secret(found)

    def refused(self, agency: Agency, token: Secret, answer: Answer) -> bool:
        """Use `token` no more. Returns whether that closed the agency's route."""
        gone = delete(bearers).where(_of(agency.key), bearers.c.token == token.reveal())
        agency.tokens -= self._ledger.keep(partial(_count, statement=gone))
        if agency.tokens or agency.closed:
            return False
        agency.closed = answer
        return True

    def of(self, client_id: str, company_id: str) -> Agency | None:
        """The agency, where it is known; it may be closed."""
        key = AgencyKey(client_id, company_id)
        agency = self._agencies.get(key)
        if agency is None:
            query = select(func.count()).select_from(bearers).where(_of(key))
            tokens = self._ledger.ask(lambda connection: connection.scalar(query)) or 0
            if tokens:
                agency = self._agencies[key] = Agency(key, tokens)
        return agency

    def unlisted(self, client_id: str) -> Agency | None:
        """An agency of an app with a token left whose locations were not asked for."""
        query = select(bearers.c.id, bearers.c.company_id).where(bearers.c.client_id == client_id)
        while True:
            # A token that makes an agency worth asking again stands behind all that were looked at.
            after = query.where(bearers.c.id > self._asked.get(client_id, 0)).order_by(bearers.c.id).limit(1)
            found = self._ledger.ask(partial(_first, query=after))
            if found is None:
                return None
            agency = self.of(client_id, found.company_id)
            if agency and agency.tokens and not (agency.listed or agency.rests):
                return agency
            self._asked[client_id] = found.id

    def keep_listing(self, agency: Agency, listed: Iterable[str] | None, *, whole: bool = True) -> None:
        """Locations of an agency that have the app, all there are where it is `whole`; None where it would not say."""
        try:
            self._ledger.keep(partial(_keep_locations, key=agency.key, listed=listed or ()))
        except UnwritableError:
            listed, whole = None, True  # Each is asked for then; what ends is where the disk's refusal is told.
        if whole:
            agency.listed, agency.lists, agency.pages = True, listed is not None, None

    def that_lists(self, client_id: str, location_id: str) -> Agency | None:
        """The agency that lists a location."""
        query = select(locations.c.company_id).where(
            locations.c.client_id == client_id, locations.c.location_id == location_id
        )
        company_id = self._ledger.ask(lambda connection: connection.scalar(query))
        return None if company_id is None else self.of(client_id, company_id)

    def companies(self, client_id: str) -> list[str]:
        """The companies of an app whose route is open."""
        query = select(bearers.c.company_id).where(bearers.c.client_id == client_id).distinct()
        return self._ledger.ask(lambda connection: list(connection.scalars(query)))


def _of(key: AgencyKey) -> ColumnElement[bool]:
    return and_(bearers.c.client_id == key.client_id, bearers.c.company_id == key.company_id)


def _row(client_id: str, company_id: str, token: Secret) -> dict[str, str]:
    return {"client_id": client_id, "company_id": company_id, "token": token.reveal()}


def _first(connection: Connection, query: Select[tuple[int, str]]) -> Row[tuple[int, str]] | None:
    return connection.execute(query).first()


def _make_tables(connection: Connection) -> None:
    tables.of_a_run.drop_all(connection)
    for table in (bearers, locations):
        table.create(connection)


def _count(connection: Connection, statement: Executable, values: dict[str, str] | None = None) -> int:
    """Execute it. Returns how many rows it touched."""
    return int(connection.execute(statement, values or {}).rowcount)


def _keep_locations(connection: Connection, key: AgencyKey, listed: Iterable[str]) -> None:
    statement = insert(locations).prefix_with("OR REPLACE")
    for batch in in_batches(listed, 500):
        connection.execute(statement, [{**key._asdict(), "location_id": location} for location in batch])


def lives(tokens: Tokens, now: datetime) -> bool:
    """Whether a recorded access token still lives, by what its answer said, or else by what it says itself."""
    if tokens.expires_at:
        return datetime.fromisoformat(tokens.expires_at) > now
    claims = read_claims(tokens.access_token)
    return claims is None or claims.expires is None or claims.expires > now.timestamp()


def is_bearer(client_id: str, company_id: str, token: Secret, now: datetime) -> bool:
    """Whether a token of the manifest may serve for an agency: nothing that can be seen of it speaks against it."""
    return not why_useless(token, InstallKey(client_id, Level.AGENCY, company_id), now.astimezone(UTC).timestamp())
