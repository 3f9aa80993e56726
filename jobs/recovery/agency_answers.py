"""Agencies' pairs that came when a sub-account was asked for: whose they are, and when to stop asking.

Such a pair is its agency's newest, and may have ended the one before. If the agency is an install of this folder, the
pair is recorded there. Otherwise it is thrown away, and the failure says how to keep the next one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from jobs.core.model import Install, InstallKey, Level, Recovered, Route, Status
from jobs.recovery.agency_tokens import AgencyKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.core.model import Answer

_IN_A_ROW = 3


class AgencyAnswers:
    """The agencies' pairs of one run. `standing` gives the status of an agency in the ledger, or None if it has none;
    `now` is UTC ISO 8601; `say` tells a person.
    """

    def __init__(
        self, standing: Callable[[AgencyKey], Status | None], now: Callable[[], str], say: Callable[[str], None]
    ) -> None:
        self._standing = standing
        self._now = now
        self._say = say
        self._in_a_row: dict[AgencyKey, int] = {}
        self._closed: dict[AgencyKey, Answer] = {}
        self._failed: set[AgencyKey] = set()
        self._back: dict[AgencyKey, Recovered] = {}

    def came(self, install: Install, route: Route, answer: Answer) -> tuple[Answer, tuple[Install, Recovered] | None]:
        """What to report about an answer that brought an agency's pair for `install`, and the outcome that records
        the pair.
        """
        assert answer.stray is not None
        pair, client_id = answer.stray, install.key.client_id
        agency = AgencyKey(client_id, pair.company_id)
        standing = Status.RECOVERED if agency in self._back else self._standing(agency)
        found = None
        if standing is not None:
            why = f"HighLevel answered with the connection of its agency {pair.company_id}, which is recorded there"
            answer = replace(answer, message=why)
            words = f"it came in answer to {install.key.account_id}"
            renews, undoes = standing is Status.RECOVERED, agency in self._failed and agency not in self._back
            back = Recovered(pair, route, 0, self._now(), words, stray=True, renews=renews, undoes=undoes)
            found = Install(InstallKey(client_id, Level.AGENCY, pair.company_id), pair.company_id), back
            self._back[agency] = back
        answer = replace(answer, stray=None)
        if route is Route.RECONNECT:
            self._count(_agency_of(install) or agency, answer)
        return answer, found

    def _count(self, agency: AgencyKey, answer: Answer) -> None:
        self._in_a_row[agency] = self._in_a_row.get(agency, 0) + 1
        if self._in_a_row[agency] >= _IN_A_ROW and agency not in self._closed:
            self._closed[agency] = answer
            self._say(f"reconnect is no longer tried for the sub-accounts of {agency.company_id}: {answer.message}")

    def failed(self, install: Install) -> None:
        """Take note that no route recovered an install."""
        if install.key.level is Level.AGENCY:
            self._failed.add(AgencyKey(install.key.client_id, install.key.account_id))

    def right_one_came(self, install: Install) -> None:
        """Take note that Reconnect gave a sub-account its own pair."""
        agency = _agency_of(install)
        if agency is not None:
            self._in_a_row.pop(agency, None)

    def closed(self, install: Install) -> Answer | None:
        """The answer that closed Reconnect for the sub-accounts of this install's agency, or None."""
        agency = _agency_of(install)
        return self._closed.get(agency) if agency else None

    def back(self, install: Install) -> Recovered | None:
        """The outcome of an agency whose pair came in answer to another install, so that it needs no request of its own.
        None for other installs.
        """
        key = install.key
        return self._back.get(AgencyKey(key.client_id, key.account_id)) if key.level is Level.AGENCY else None


def _agency_of(install: Install) -> AgencyKey | None:
    """The agency that the list names for a sub-account."""
    is_known = install.key.level is Level.SUB_ACCOUNT and install.company_id
    return AgencyKey(install.key.client_id, install.company_id) if is_known else None
