"""What every answer means. This is the only place that decides why an install failed.

`ADVICE` says for each cause who acts next, whether the run tries again, what many such failures in a row stop, and
the next step in words for support staff. `RULES` say which cause an answer has: the first match wins, so texts come
before statuses. (`highlevel/network_errors` says what an exception of the HTTP libraries means.) `CLOSINGS` say which
answers close a route for more than the install that met them. `RANK` says which of several failures is reported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from jobs.core.absence import names_absence
from jobs.core.model import Answer, Cause, Owner, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Shows(Enum):
    """What an outcome says about the app as a whole, for the breaker."""

    AT_WORK = "API and credentials work"
    REFUSED = "the API is gone or the credentials are wrong"
    TRANSIENT = "it may pass"
    NOTHING = "says nothing about other installs"


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about a cause."""

    owner: Owner
    again: bool
    shows: Shows
    next_step: str


ADVICE: Mapping[Cause, Advice] = {
    Cause.INVALID_ROW: Advice(
        Owner.DEVELOPER, False, Shows.NOTHING, "Correct this line in the list of installs. Then run the job again."
    ),
    Cause.UNKNOWN_APP: Advice(
        Owner.DEVELOPER,
        False,
        Shows.NOTHING,
        "Add this client id and its secret to config/apps.toml, or correct the id in the list. Then run the job again.",
    ),
    Cause.CREDENTIALS_REJECTED: Advice(
        Owner.DEVELOPER,
        False,
        Shows.REFUSED,
        "Check that the client id and secret are the ones the app was installed with. Then run the job again.",
    ),
    Cause.NOT_INSTALLED: Advice(
        Owner.CUSTOMER,
        False,
        Shows.AT_WORK,
        "Ask the customer to install the app with the link in reinstall_url. Then ask the developer to run the job again.",
    ),
    Cause.LOCATION_INACTIVE: Advice(
        Owner.AGENCY,
        False,
        Shows.AT_WORK,
        "Ask the agency to activate this account again. Then ask the developer to run the job again.",
    ),
    Cause.RECONNECT_REMOVED: Advice(
        Owner.CUSTOMER,
        False,
        Shows.REFUSED,
        "Ask the customer to uninstall the app, and then to install it again with the link in reinstall_url.",
    ),
    Cause.REQUEST_REFUSED: Advice(
        Owner.DEVELOPER,
        False,
        Shows.NOTHING,
        "Read the message and correct what HighLevel refused. Then run the job again.",
    ),
    Cause.CODE_REJECTED: Advice(
        Owner.HIGHLEVEL,
        True,
        Shows.TRANSIENT,
        "Ask the developer to run the job again. If it fails in the same way, send the trace id to HighLevel's support.",
    ),
    Cause.WRONG_ACCOUNT: Advice(
        Owner.HIGHLEVEL,
        False,
        Shows.AT_WORK,
        "Send the trace id to HighLevel's support: HighLevel answered for a different account.",
    ),
    Cause.WRONG_USER_TYPE: Advice(
        Owner.DEVELOPER,
        False,
        Shows.AT_WORK,
        "If the message names an agency, add that agency to the list as its own row. Then run the job again. If it fails in "
        "the same way, send the trace id to HighLevel's support.",
    ),
    Cause.MALFORMED_ANSWER: Advice(
        Owner.HIGHLEVEL,
        True,
        Shows.TRANSIENT,
        "Ask the developer to run the job again. If it fails in the same way, send the trace id to HighLevel's support.",
    ),
    Cause.RATE_LIMITED: Advice(
        Owner.NOBODY, True, Shows.TRANSIENT, "Ask the developer to run the job again later: HighLevel was too busy."
    ),
    Cause.SERVER_ERROR: Advice(
        Owner.NOBODY, True, Shows.TRANSIENT, "Ask the developer to run the job again later: HighLevel had an error."
    ),
    Cause.NETWORK_ERROR: Advice(
        Owner.NOBODY,
        True,
        Shows.TRANSIENT,
        "Ask the developer to run the job again later: HighLevel could not be reached.",
    ),
    Cause.REFRESH_INVALID: Advice(
        Owner.CUSTOMER,
        False,
        Shows.NOTHING,
        "Ask the customer to uninstall the app, and then to install it again with the link in reinstall_url.",
    ),
    Cause.REFRESH_UNKNOWN: Advice(
        Owner.DEVELOPER,
        False,
        Shows.NOTHING,
        "Run the job again: it tries the other routes. To send the old refresh token once more, although it may be spent, "
        "add --force. If both fail, ask the customer to uninstall the app and install it again.",
    ),
    Cause.AGENCY_REFUSED: Advice(
        Owner.DEVELOPER,
        False,
        Shows.NOTHING,
        "If the message names --identity, run the job again with an identity that opens the pair. Otherwise check that the "
        "app has the scope oauth.write and that the account belongs to this agency, and run the job again. If it fails in "
        "the same way, ask the customer to uninstall the app and install it again.",
    ),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """Matches an answer to one of these calls, if its status is in the range and its text says so.

    `own`: matches only HighLevel's own answers. The same words or status from other software mean something else.
    """

    cause: Cause
    statuses: range
    says: Callable[[str], object]
    stages: frozenset[Stage] = frozenset(Stage)
    own: bool = False


def says(pattern: str) -> Callable[[str], object]:
    """A function that finds this pattern in a text, in upper or lower case."""
    return re.compile(pattern, re.IGNORECASE).search


def _anything(_: str) -> bool:
    return True


_WORD = re.compile(r"[a-z\d./]+", re.IGNORECASE)
_STATUS_WORDS = frozenset(["404", "405", "410", "error", "page", "was", "not", "found", "method", "allowed", "gone"])


def _says_nothing(text: str) -> bool:
    """Whether `text` only repeats the status, in words or figures, or names the server."""
    return all(word in _STATUS_WORDS or word.startswith("nginx") for word in _WORD.findall(text.lower()))


_CODES = frozenset({Stage.MANIFEST, Stage.RECONNECT, Stage.EXCHANGE})
_AGENCY_CALLS = frozenset({Stage.LOCATION_TOKEN, Stage.INSTALLED_LOCATIONS})
_REFRESH = frozenset({Stage.REFRESH})
_REFUSED = range(400, 500)
_FAILED = range(400, 600)
# HighLevel says "not yet supported by the IAM Service" for routes that are gone or do not take this kind of token.
_IAM = r"not yet supported by the iam service"
_REMOVED = says(rf"\bcannot (?:get|post)\b|removed in version|endpoint has been removed|{_IAM}")

RULES: tuple[Rule, ...] = (
    Rule(Cause.RATE_LIMITED, range(429, 430), _anything),
    Rule(Cause.RECONNECT_REMOVED, _FAILED, says(rf"API endpoint has been removed|{_IAM}"), _CODES),
    Rule(Cause.LOCATION_INACTIVE, _FAILED, says(r"location is not active")),
    Rule(Cause.CREDENTIALS_REJECTED, _FAILED, says(r"invalid client credentials|\binvalid_client\b"), _CODES),
    Rule(
        Cause.CODE_REJECTED,
        _FAILED,
        says(r"\binvalid_grant\b|authorization code (?:is invalid|has expired|not found)"),
        _CODES,
    ),
    Rule(Cause.REQUEST_REFUSED, _REFUSED, _REMOVED, _REFRESH),
    Rule(Cause.REFRESH_INVALID, _REFUSED, says(r"\binvalid_grant\b|refresh token"), _REFRESH),
    Rule(Cause.RECONNECT_REMOVED, range(404, 406), says(r"cannot post\b"), _CODES),
    Rule(Cause.RECONNECT_REMOVED, range(410, 411), says(r"cannot post\b"), _CODES),
    Rule(Cause.NOT_INSTALLED, _REFUSED, names_absence, own=True),
    Rule(Cause.REQUEST_REFUSED, range(401, 402), says(r"version header|api version")),
    Rule(Cause.REFRESH_INVALID, range(401, 402), _anything, _REFRESH, own=True),
    Rule(Cause.AGENCY_REFUSED, range(401, 404), _anything, _AGENCY_CALLS, own=True),
    Rule(Cause.AGENCY_REFUSED, _REFUSED, _REMOVED, _AGENCY_CALLS),
    Rule(Cause.RECONNECT_REMOVED, range(404, 406), _says_nothing, _CODES),
    Rule(Cause.RECONNECT_REMOVED, range(410, 411), _says_nothing, _CODES),
    Rule(Cause.CREDENTIALS_REJECTED, range(401, 402), _anything, own=True),
    Rule(Cause.SERVER_ERROR, range(408, 409), _anything),
    Rule(Cause.REQUEST_REFUSED, _REFUSED, _anything),
    Rule(Cause.SERVER_ERROR, range(500, 600), _anything),
)


def diagnose(answer: Answer) -> Cause:
    """The cause of an answer that did not give what was asked for.

    If the parser already set a cause, the answer keeps it. An answer without a status never came. An answer that
    matches no rule has a status below 400, or one that HTTP does not define: it is malformed.
    """
    if answer.cause is not None:
        return answer.cause
    if not answer.status:
        return Cause.NETWORK_ERROR
    for rule in RULES:
        fits = answer.status in rule.statuses and answer.stage in rule.stages and not (rule.own and answer.foreign)
        if fits and rule.says(answer.says):
            return rule.cause
    return Cause.MALFORMED_ANSWER


class Closes(Enum):
    """Which installs an answer closes its route for, besides the one that met it."""

    NOBODY = "only this install"
    AGENCY = "every install that the same agency's token would serve"
    RUN = "every install of the run"


CLOSINGS: tuple[tuple[Closes, Stage, range, Callable[[str], object]], ...] = (
    (Closes.RUN, Stage.LOCATION_TOKEN, _REFUSED, _REMOVED),
    (Closes.AGENCY, Stage.LOCATION_TOKEN, range(401, 402), says(r"this scope|user type mismatch|invalid jwt|expired")),
    (Closes.RUN, Stage.REFRESH, _REFUSED, _REMOVED),
)


def closes(answer: Answer) -> Closes:
    """Which installs this answer closes its route for. Reconnect is different: the breaker closes it after several in a row."""
    for whom, stage, statuses, says in CLOSINGS:
        if answer.stage is stage and answer.status in statuses and says(answer.says):
            return whom
    return Closes.NOBODY


def leaves_in_doubt(answer: Answer) -> bool:
    """Whether the refresh token may be spent, because the answer that would tell was lost on its way."""
    return not answer.never_left and diagnose(answer) is not Cause.RATE_LIMITED and ADVICE[diagnose(answer)].again


RANK: tuple[Cause, ...] = (
    Cause.NOT_INSTALLED,
    Cause.LOCATION_INACTIVE,
    Cause.REFRESH_UNKNOWN,
    Cause.CREDENTIALS_REJECTED,
    Cause.AGENCY_REFUSED,
    Cause.WRONG_USER_TYPE,
    Cause.REFRESH_INVALID,
)


def most_actionable(causes: Sequence[Cause]) -> int:
    """The index of the cause that a person can do most about: the first in `RANK`, otherwise the last one met."""
    return min(range(len(causes)), key=lambda at: (RANK.index(causes[at]) if causes[at] in RANK else len(RANK), -at))
