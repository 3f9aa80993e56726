"""The access tokens of agencies that serve as bearers in a run, and the locations that each agency lists.

Nothing here sends anything. One thread decides, takes a token from here and gives back a list of locations. Both are
in the run's scratch: a token has 2 KB, and lists may name a million locations.

The scratch is a file, so the access token of a sealed pair is in memory alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import and_, delete, func, insert, select, text

from jobs.core.batches import in_batches
from jobs.core.fingerprints import fingerprint
from jobs.core.model import Answer, Cause, Stage
from jobs.core.secret import Secret
from jobs.ledger.refusals import UnwritableError
from jobs.ledger.scratch import bearers, locations

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement, Connection, Executable, Row, Select

    from jobs.highlevel.api import Pages
    from jobs.ledger.scratch import Scratch


class AgencyKey(NamedTuple):
    """An agency of an app."""

    client_id: str
    company_id: str


@dataclass(slots=True, eq=False)
class Agency:
    """An agency, and how many of its access tokens are still valid.

    `busy`: a call that must go alone is under way: for its list, or for a token while the agency is not `proven`.
    `pages` is how far its list was read. `listed`: its locations were asked for. `lists`: it said which have the app.
    `closed` is the answer that closed its route. `rests` is the answer after which nothing more is asked of it in this
    run, since its limit lasts longer than the run's patience. Monotonic seconds: its limit holds it back until
    `held_until`, its next call may leave from `free_at` on, and `refused_since` is the first 429 since any other
    answer.
    """

    key: AgencyKey
    tokens: int = 0
    closed: Answer | None = None
    busy: bool = False
    proven: bool = False
    listed: bool = False
    lists: bool = False
    pages: Pages | None = None
    rests: Answer | None = None
    held_until: float = float("-inf")
    free_at: float = float("-inf")
    refusals: int = 0
    refused_since: float | None = None


_ADD = text(
    "INSERT INTO bearers (client_id, company_id, token) SELECT :client_id, :company_id, :token WHERE NOT EXISTS (SELECT 1 "
    "FROM bearers WHERE client_id = :client_id AND company_id = :company_id AND token = :token)"
)


class Bearer(NamedTuple):
    """A valid access token of an agency. `sealed`: its pair is sealed wherever it is written."""

    client_id: str
    company_id: str
    token: Secret
    sealed: bool = False


class UnreadAgency(NamedTuple):
    """An agency whose pair is sealed and cannot be read, and why, in words that follow «the pair»."""

    client_id: str
    company_id: str
    why: str

    @property
    def words(self) -> str:
        """The reason for a person."""
        return f"the pair of the agency {self.company_id} {self.why}"

    @property
    def answer(self) -> Answer:
        """The reason as the answer that its sub-accounts get."""
        return Answer(Stage.LOCATION_TOKEN, message=self.words, cause=Cause.AGENCY_REFUSED, unread=True)


class AgencyTokens:
    """The agencies that have a valid pair. `scratch` holds their tokens and lists during a run.

    In place of the token of a sealed pair, it holds a fingerprint.
    """

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._agencies: dict[AgencyKey, Agency] = {}
        self._asked: dict[str, int] = {}
        self._in_memory: dict[str, Secret] = {}
        self._unread: dict[str, dict[str, UnreadAgency]] = {}

    def add_all(self, known: Iterable[Bearer | UnreadAgency]) -> None:
        """Add the tokens that are known at the start, the better ones last, and the agencies that have better ones."""
        for batch in in_batches(known):
            self._scratch.keep(partial(_add, rows=[self._row(one) for one in batch if isinstance(one, Bearer)]))
            for one in batch:
                if isinstance(one, UnreadAgency):
                    self._unread.setdefault(one.client_id, {})[one.company_id] = one

    def add(self, bearer: Bearer) -> None:
        """Add a token that is better than those before. It opens the agency's route again."""
        agency = self.of(bearer.client_id, bearer.company_id)
        self._unread.get(bearer.client_id, {}).pop(bearer.company_id, None)
        if self._scratch.keep(partial(_count, statement=_ADD, values=self._row(bearer))) and agency:
            agency.tokens += 1
            agency.closed = None
            # HighLevel may show this token a list that it did not show the one before.
            agency.listed, agency.pages = agency.lists, None

    def token_of(self, agency: Agency) -> Secret | None:
        """The token to use, or None if none is left."""
        newest = select(bearers.c.token).where(_of(agency.key)).order_by(bearers.c.id.desc()).limit(1)
        found = self._scratch.ask(lambda connection: connection.scalar(newest))
        return None if found is None else self._in_memory.get(found) or Secret(found)

    def refused(self, agency: Agency, token: Secret, answer: Answer) -> bool:
        """Stop using `token`. Returns whether that closed the agency's route."""
        mark = _mark(token)
        text = token.reveal() if self._in_memory.pop(mark, None) is None else mark
        gone = delete(bearers).where(_of(agency.key), bearers.c.token == text)
        agency.tokens -= self._scratch.keep(partial(_count, statement=gone))
        if agency.tokens or agency.closed:
            return False
        agency.closed = self.with_unread(agency, answer)
        return True

    def with_unread(self, agency: Agency, answer: Answer) -> Answer:
        """What an older token of the agency was answered, with the reason why the newer one was not used, if there is one."""
        unread = self.unread(*agency.key)
        return replace(answer, message=f"{answer.message}; {unread.words}", unread=True) if unread else answer

    def of(self, client_id: str, company_id: str) -> Agency | None:
        """The agency, or None if it is not known. It may be closed, at the start already if its pair cannot be read."""
        key = AgencyKey(client_id, company_id)
        agency = self._agencies.get(key)
        if agency is None:
            query = select(func.count()).select_from(bearers).where(_of(key))
            tokens = self._scratch.ask(lambda connection: connection.scalar(query)) or 0
            unread = self.unread(client_id, company_id)
            if tokens or unread:
                agency = self._agencies[key] = Agency(key, tokens, unread.answer if unread and not tokens else None)
        return agency

    def unlisted(self, client_id: str) -> Agency | None:
        """An agency of the app that has a token left, and whose locations were not asked for yet."""
        query = select(bearers.c.id, bearers.c.company_id).where(bearers.c.client_id == client_id)
        while True:
            # A token that makes an agency worth asking again comes after all those already seen.
            after = query.where(bearers.c.id > self._asked.get(client_id, 0)).order_by(bearers.c.id).limit(1)
            found = self._scratch.ask(partial(_first, query=after))
            if found is None:
                return None
            agency = self.of(client_id, found.company_id)
            if agency and agency.tokens and not (agency.listed or agency.rests):
                return agency
            self._asked[client_id] = found.id

    def unread(self, client_id: str, company_id: str = "") -> UnreadAgency | None:
        """The agency, or any of the app, if its pair cannot be read. It may have an older token."""
        of_app = self._unread.get(client_id, {})
        return of_app.get(company_id) if company_id else next(iter(of_app.values()), None)

    @property
    def some_unread(self) -> bool:
        """Whether the pair of any agency cannot be read."""
        return any(self._unread.values())

    def keep_listing(self, agency: Agency, listed: Iterable[str] | None, *, whole: bool = True) -> None:
        """Keep an agency's locations that have the app (None: it would not tell). `whole`: there are no more."""
        try:
            self._scratch.keep(partial(_keep_locations, key=agency.key, listed=listed or ()))
        except UnwritableError:
            # Each location is asked for instead. The next outcome to be recorded meets the disk again.
            listed, whole = None, True
        if whole:
            agency.listed, agency.lists, agency.pages = True, listed is not None, None

    def that_lists(self, client_id: str, location_id: str) -> Agency | None:
        """The agency that lists a location."""
        query = select(locations.c.company_id).where(
            locations.c.client_id == client_id, locations.c.location_id == location_id
        )
        company_id = self._scratch.ask(lambda connection: connection.scalar(query))
        return None if company_id is None else self.of(client_id, company_id)

    def companies(self, client_id: str) -> list[str]:
        """The companies of an app whose route is open."""
        query = select(bearers.c.company_id).where(bearers.c.client_id == client_id).distinct()
        return self._scratch.ask(lambda connection: list(connection.scalars(query)))

    def _row(self, bearer: Bearer) -> dict[str, str]:
        """A bearer for the scratch."""
        text = bearer.token.reveal()
        if bearer.sealed:
            text = _mark(bearer.token)
            self._in_memory[text] = bearer.token
        return {"client_id": bearer.client_id, "company_id": bearer.company_id, "token": text}


def _of(key: AgencyKey) -> ColumnElement[bool]:
    return and_(bearers.c.client_id == key.client_id, bearers.c.company_id == key.company_id)


def _mark(token: Secret) -> str:
    """What stands for a token that is in memory alone."""
    return fingerprint(token.reveal(), "")


def _first(connection: Connection, query: Select[tuple[int, str]]) -> Row[tuple[int, str]] | None:
    return connection.execute(query).first()


def _add(connection: Connection, rows: list[dict[str, str]]) -> None:
    if rows:
        connection.execute(_ADD, rows)


def _count(connection: Connection, statement: Executable, values: dict[str, str] | None = None) -> int:
    """How many rows a statement changed."""
    return int(connection.execute(statement, values or {}).rowcount)


def _keep_locations(connection: Connection, key: AgencyKey, listed: Iterable[str]) -> None:
    statement = insert(locations).prefix_with("OR REPLACE")
    for batch in in_batches(listed):
        connection.execute(statement, [{**key._asdict(), "location_id": location} for location in batch])
