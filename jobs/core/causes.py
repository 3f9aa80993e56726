"""What every answer means. Whatever decides why an install failed is in here; nothing else judges.

`ADVICE` says for each cause who acts, whether it is tried again within the run, what many such failures in a row
stop, and the next step in words for support staff. `RULES` say which cause an answer has: the first that matches
wins, so texts come before statuses. (What an exception of the HTTP libraries means stands in `faults`.) `CLOSINGS` say
which answers close a way back for more than the install that met them, `RANK` which of several failures is reported.
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
    """What an outcome tells of the app as a whole, for the breaker."""

    AT_WORK = "API and credentials work"
    REFUSED = "the API is gone or the credentials are wrong"
    TRANSIENT = "it may pass"
    NOTHING = "says nothing of other installs"


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about a cause."""

    owner: Owner
    again: bool
    shows: Shows
    next_step: str


ADVICE: Mapping[Cause, Advice] = {
    Cause.INVALID_ROW: Advice(
        Owner.DEVELOPER, False, Shows.NOTHING, "Correct this line in the list of installs, then run the job again."
    ),
    Cause.UNKNOWN_APP: Advice(
        Owner.DEVELOPER,
        False,
        Shows.NOTHING,
        "Configure the secret of this client id (config/apps.toml), or correct the id, then run the job again.",
    ),
    Cause.CREDENTIALS_REJECTED: Advice(
        Owner.DEVELOPER,
        False,
        Shows.REFUSED,
        "Check that client id and secret are the very pair with which the app was installed there, then run the job again.",
    ),
    Cause.NOT_INSTALLED: Advice(
        Owner.CUSTOMER,
        False,
        Shows.AT_WORK,
        "The app is not installed in this account. Ask the customer to install it with the link in reinstall_url.",
    ),
    Cause.LOCATION_INACTIVE: Advice(
        Owner.AGENCY,
        False,
        Shows.AT_WORK,
        "The account is paused. Ask its agency to make it active again, then have the job run again.",
    ),
    Cause.RECONNECT_REMOVED: Advice(
        Owner.CUSTOMER,
        False,
        Shows.REFUSED,
        "HighLevel no longer offers this way back. Ask the customer to uninstall the app, then to install it again "
        "with the link in reinstall_url.",
    ),
    Cause.REQUEST_REFUSED: Advice(
        Owner.DEVELOPER,
        False,
        Shows.NOTHING,
        "HighLevel refused the request. Read the message; correct the configuration or the job, then run it again.",
    ),
    Cause.CODE_REJECTED: Advice(
        Owner.HIGHLEVEL,
        True,
        Shows.TRANSIENT,
        "Run the job again. If it fails the same way, report the trace id to HighLevel's support.",
    ),
    Cause.WRONG_ACCOUNT: Advice(
        Owner.HIGHLEVEL,
        False,
        Shows.AT_WORK,
        "HighLevel answered for another account; nothing was kept. Report the trace id to HighLevel's support.",
    ),
    Cause.WRONG_USER_TYPE: Advice(
        Owner.DEVELOPER,
        False,
        Shows.AT_WORK,
        "HighLevel answered with the wrong kind of connection. Where the message names an agency, add it to the list as a "
        "row of its own, then run the job again.",
    ),
    Cause.MALFORMED_ANSWER: Advice(
        Owner.HIGHLEVEL,
        True,
        Shows.TRANSIENT,
        "HighLevel's answer could not be used. Run the job again; if it stays, report the trace id to HighLevel's support.",
    ),
    Cause.RATE_LIMITED: Advice(
        Owner.NOBODY, True, Shows.TRANSIENT, "HighLevel was too busy. Nothing to do but run the job again later."
    ),
    Cause.SERVER_ERROR: Advice(
        Owner.NOBODY, True, Shows.TRANSIENT, "HighLevel had an error. Nothing to do but run the job again later."
    ),
    Cause.NETWORK_ERROR: Advice(
        Owner.NOBODY,
        True,
        Shows.TRANSIENT,
        "HighLevel could not be reached. Nothing to do but run the job again later.",
    ),
    Cause.REFRESH_INVALID: Advice(
        Owner.CUSTOMER,
        False,
        Shows.NOTHING,
        "The old refresh token is not accepted any more. Ask the customer to uninstall the app, then to install it "
        "again with the link in reinstall_url.",
    ),
    Cause.REFRESH_UNKNOWN: Advice(
        Owner.DEVELOPER,
        False,
        Shows.NOTHING,
        "The answer to a refresh was lost, so the old token may be spent. Run the job again for the other routes, or "
        "with --force to send that token once more; else the customer installs the app again.",
    ),
    Cause.AGENCY_REFUSED: Advice(
        Owner.DEVELOPER,
        False,
        Shows.NOTHING,
        "The agency's token gives none for this account. Check that the app has the scope oauth.write and that the "
        "account belongs to that agency; else the customer installs the app again.",
    ),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """Matches where the status is within the range, and the server said so, at these calls.

    `own`: only an answer of HighLevel's own, since of other software the same words or status mean something else.
    """

    cause: Cause
    statuses: range
    says: Callable[[str], object]
    stages: frozenset[Stage] = frozenset(Stage)
    own: bool = False


def _says(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern, re.IGNORECASE).search


def _anything(_: str) -> bool:
    return True


_WORD = re.compile(r"[a-z\d./]+", re.IGNORECASE)
_OF_THE_STATUS = frozenset(["404", "405", "410", "error", "page", "was", "not", "found", "method", "allowed", "gone"])


def _says_nothing(text: str) -> bool:
    """What a server says of itself when it has nothing to say: the status in words and figures, and its own name."""
    return all(word in _OF_THE_STATUS or word.startswith("nginx") for word in _WORD.findall(text.lower()))


_CODES = frozenset({Stage.MANIFEST, Stage.RECONNECT, Stage.EXCHANGE})
_AGENCYS = frozenset({Stage.LOCATION_TOKEN, Stage.INSTALLED_LOCATIONS})
_REFRESH = frozenset({Stage.REFRESH})
_REFUSED = range(400, 500)
_FAILED = range(400, 600)
# "Not yet supported by the IAM Service" comes from routes that are gone, or not for this kind of token (API notes, 5).
_IAM = r"not yet supported by the iam service"
_REMOVED = _says(rf"\bcannot (?:get|post)\b|removed in version|endpoint has been removed|{_IAM}")

RULES: tuple[Rule, ...] = (
    Rule(Cause.RATE_LIMITED, range(429, 430), _anything),
    Rule(Cause.RECONNECT_REMOVED, _FAILED, _says(rf"API endpoint has been removed|{_IAM}"), _CODES),
    Rule(Cause.LOCATION_INACTIVE, _FAILED, _says(r"location is not active")),
    Rule(Cause.CREDENTIALS_REJECTED, _FAILED, _says(r"invalid client credentials|\binvalid_client\b"), _CODES),
    Rule(
        Cause.CODE_REJECTED,
        _FAILED,
        _says(r"\binvalid_grant\b|authorization code (?:is invalid|has expired|not found)"),
        _CODES,
    ),
    Rule(Cause.REQUEST_REFUSED, _REFUSED, _REMOVED, _REFRESH),
    Rule(Cause.REFRESH_INVALID, _REFUSED, _says(r"\binvalid_grant\b|refresh token"), _REFRESH),
    Rule(Cause.RECONNECT_REMOVED, range(404, 406), _says(r"cannot post\b"), _CODES),
    Rule(Cause.RECONNECT_REMOVED, range(410, 411), _says(r"cannot post\b"), _CODES),
    Rule(Cause.NOT_INSTALLED, _REFUSED, names_absence, own=True),
    Rule(Cause.REQUEST_REFUSED, range(401, 402), _says(r"version header|api version")),
    Rule(Cause.REFRESH_INVALID, range(401, 402), _anything, _REFRESH, own=True),
    Rule(Cause.AGENCY_REFUSED, range(401, 404), _anything, _AGENCYS, own=True),
    Rule(Cause.AGENCY_REFUSED, _REFUSED, _REMOVED, _AGENCYS),
    Rule(Cause.RECONNECT_REMOVED, range(404, 406), _says_nothing, _CODES),
    Rule(Cause.RECONNECT_REMOVED, range(410, 411), _says_nothing, _CODES),
    Rule(Cause.CREDENTIALS_REJECTED, range(401, 402), _anything, own=True),
    Rule(Cause.SERVER_ERROR, range(408, 409), _anything),
    Rule(Cause.REQUEST_REFUSED, _REFUSED, _anything),
    Rule(Cause.SERVER_ERROR, range(500, 600), _anything),
)


def diagnose(answer: Answer) -> Cause:
    """The cause of an answer that did not give what was asked for.

    An answer that the reader judged keeps that cause; one without a status never came; below 400 it cannot be used.
    What matches no rule has a status that HTTP does not know: malformed.
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
    """Whom an answer closes its route for, beside the install that met it."""

    NOBODY = "only this install"
    AGENCY = "every install that the same agency's token would serve"
    RUN = "every install of the run"


CLOSINGS: tuple[tuple[Closes, Stage, range, Callable[[str], object]], ...] = (
    (Closes.RUN, Stage.LOCATION_TOKEN, _REFUSED, _REMOVED),
    (Closes.AGENCY, Stage.LOCATION_TOKEN, range(401, 402), _says(r"this scope|user type mismatch|invalid jwt|expired")),
    (Closes.RUN, Stage.REFRESH, _REFUSED, _REMOVED),
)


def closes(answer: Answer) -> Closes:
    """Whom this answer closes its route for. Reconnect is closed by the breaker, at several answers in a row."""
    for whom, stage, statuses, says in CLOSINGS:
        if answer.stage is stage and answer.status in statuses and says(answer.says):
            return whom
    return Closes.NOBODY


def leaves_in_doubt(answer: Answer) -> bool:
    """Whether a refresh token may be spent although this was all that came back: the answer was lost on its way."""
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
    """The place of the cause that a person can do most about: the first of `RANK`, else the last one met."""
    return min(range(len(causes)), key=lambda at: (RANK.index(causes[at]) if causes[at] in RANK else len(RANK), -at))
