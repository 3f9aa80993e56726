"""The agencies whose access tokens serve as bearers in a run, and which locations each of them lists.

Nothing here sends anything. One thread decides (`ways`); a worker reads an agency's token and gives back its listing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from jobs.claims import read_claims, why_useless
from jobs.model import InstallKey, Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jobs.model import Answer, Tokens
    from jobs.secret import Secret


class AgencyKey(NamedTuple):
    """An agency of an app."""

    client_id: str
    company_id: str


@dataclass(slots=True, eq=False)
class Agency:
    """An agency with its living access tokens, the best one last.

    `busy`: a call that goes alone is under way (its listing, or its first call for a token, until it is `proven`).
    `listed`: its locations were asked for; `lists`: and it said which have the app. `closed` is the answer that closed its route, `rests` the one after which nothing more is
    asked of it in this run, since its limit lets nothing out for longer than the run's patience; `held_until` monotonic
    seconds until which its limit holds it back, `free_at` those from which its next call may leave, `refused_since`
    those of the first 429 since it answered anything else.
    """

    key: AgencyKey
    tokens: list[Secret] = field(default_factory=list)
    busy: bool = False
    proven: bool = False
    listed: bool = False
    lists: bool = False
    listing_failures: int = 0
    closed: Answer | None = None
    rests: Answer | None = None
    held_until: float = float("-inf")
    free_at: float = float("-inf")
    refusals: int = 0
    refused_since: float | None = None

    @property
    def bearer(self) -> Secret | None:
        """The token to use, if one is left."""
        return self.tokens[-1] if self.tokens else None


class Bearers:
    """The agencies that are known to have a living pair."""

    def __init__(self) -> None:
        self._agencies: dict[AgencyKey, Agency] = {}
        self._locations: dict[str, dict[str, Agency]] = {}

    def add(self, client_id: str, company_id: str, token: Secret) -> None:
        """A token that is better than those known before; it opens the agency's route again."""
        agency = self._agencies.setdefault(AgencyKey(client_id, company_id), Agency(AgencyKey(client_id, company_id)))
        if token not in agency.tokens:
            agency.tokens.append(token)
            agency.closed = None
            # What the token before was not told may be told to this one.
            agency.listed, agency.listing_failures = agency.lists, 0

    def refused(self, agency: Agency, token: Secret, answer: Answer) -> bool:
        """Use `token` no more. Returns whether that closed the agency's route."""
        agency.tokens = [other for other in agency.tokens if other != token]
        if agency.tokens or agency.closed:
            return False
        agency.closed = answer
        return True

    def of(self, client_id: str, company_id: str) -> Agency | None:
        """The agency, where it is known; it may be closed."""
        return self._agencies.get(AgencyKey(client_id, company_id))

    def of_app(self, client_id: str) -> Iterator[Agency]:
        """The agencies of an app with a token left."""
        return (one for one in self._agencies.values() if one.key.client_id == client_id and one.tokens)

    def keep_listing(self, agency: Agency, locations: Iterable[str] | None) -> None:
        """The locations of an agency that have the app, or None where it would not say."""
        agency.listed, agency.lists = True, locations is not None
        self._locations.setdefault(agency.key.client_id, {}).update(dict.fromkeys(locations or (), agency))

    def that_lists(self, client_id: str, location_id: str) -> Agency | None:
        """The agency that lists a location."""
        return self._locations.get(client_id, {}).get(location_id)

    def companies(self, client_id: str) -> list[str]:
        """The companies of an app whose route is open."""
        return [agency.key.company_id for agency in self.of_app(client_id)]


def lives(tokens: Tokens, now: datetime) -> bool:
    """Whether a recorded access token still lives, by what its answer said, or else by what it says itself."""
    if tokens.expires_at:
        return datetime.fromisoformat(tokens.expires_at) > now
    claims = read_claims(tokens.access_token)
    return claims is None or claims.expires is None or claims.expires > now.timestamp()


def is_bearer(client_id: str, company_id: str, token: Secret, now: datetime) -> bool:
    """Whether a token of the manifest may serve for an agency: nothing that can be seen of it speaks against it."""
    return not why_useless(token, InstallKey(client_id, Level.AGENCY, company_id), now.astimezone(UTC).timestamp())
