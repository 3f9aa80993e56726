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

from jobs.model import Answer, Cause, Owner, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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
        Owner.HIGHLEVEL,
        False,
        Shows.AT_WORK,
        "HighLevel answered with the wrong kind of connection; nothing was kept. Report the trace id to HighLevel's support.",
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
    """Matches where the status is within the range, the pattern is found in what the server said, at these calls."""

    cause: Cause
    statuses: range
    pattern: re.Pattern[str]
    stages: frozenset[Stage] = frozenset(Stage)


def _says(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_ANY = _says("")
# What a server says of itself when it has nothing to say: the status in words and figures, and its own name.
_NOTHING = _says(r"^\W*(?:(?:40[45]|410|error|page|(?:was )?not found|method not allowed|gone|nginx[/.\d]*)\W*)*$")
_CODES = frozenset({Stage.MANIFEST, Stage.RECONNECT, Stage.EXCHANGE})
_AGENCYS = frozenset({Stage.LOCATION_TOKEN, Stage.INSTALLED_LOCATIONS})
_REFRESH = frozenset({Stage.REFRESH})
_REFUSED = range(400, 500)
_FAILED = range(400, 600)
_NOUN = r"\b(?:installations?|installed|locations?|company|companies|sub-?accounts?)\b"
_MISSING = r"(?:\bnot (?:be )?found\b|\bdoes(?:n't| not) exist\b|\bnot installed\b)"
_CANNOT_FIND = rf"(?:could not|cannot|can't|unable to) find (?:the |this |that |any |an? )?{_NOUN}"
_REMOVED = _says(r"\bcannot (?:get|post)\b|removed in version|endpoint has been removed")
# Of one sentence; a dot within an id ends none.
_SOON = r"(?:[^.;]|\.\b){0,100}"

RULES: tuple[Rule, ...] = (
    Rule(Cause.RATE_LIMITED, range(429, 430), _ANY),
    Rule(Cause.RECONNECT_REMOVED, _FAILED, _says(r"API endpoint has been removed"), _CODES),
    Rule(Cause.LOCATION_INACTIVE, _FAILED, _says(r"location is not active")),
    Rule(Cause.CREDENTIALS_REJECTED, _FAILED, _says(r"invalid client credentials|\binvalid_client\b"), _CODES),
    Rule(
        Cause.CODE_REJECTED,
        _FAILED,
        _says(r"\binvalid_grant\b|authorization code (?:is invalid|has expired|not found)"),
        _CODES,
    ),
    Rule(Cause.REFRESH_INVALID, _REFUSED, _says(r"\binvalid_grant\b|refresh token"), _REFRESH),
    Rule(Cause.RECONNECT_REMOVED, range(404, 406), _says(r"cannot post\b"), _CODES),
    Rule(Cause.RECONNECT_REMOVED, range(410, 411), _says(r"cannot post\b"), _CODES),
    Rule(
        Cause.NOT_INSTALLED,
        _REFUSED,
        _says(
            rf"{_NOUN}{_SOON}{_MISSING}|\bno {_NOUN}{_SOON}\b(?:found|exists?)\b|{_CANNOT_FIND}|\bapp (?:is )?not installed"
        ),
    ),
    Rule(Cause.REQUEST_REFUSED, range(401, 402), _says(r"version header|api version")),
    Rule(Cause.REFRESH_INVALID, range(401, 402), _ANY, _REFRESH),
    Rule(Cause.AGENCY_REFUSED, range(401, 404), _ANY, _AGENCYS),
    Rule(Cause.AGENCY_REFUSED, _REFUSED, _REMOVED, _AGENCYS),
    Rule(Cause.RECONNECT_REMOVED, range(404, 406), _NOTHING, _CODES),
    Rule(Cause.RECONNECT_REMOVED, range(410, 411), _NOTHING, _CODES),
    Rule(Cause.CREDENTIALS_REJECTED, range(401, 402), _ANY),
    Rule(Cause.SERVER_ERROR, range(408, 409), _ANY),
    Rule(Cause.REQUEST_REFUSED, _REFUSED, _ANY),
    Rule(Cause.SERVER_ERROR, range(500, 600), _ANY),
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
        if answer.status in rule.statuses and answer.stage in rule.stages and rule.pattern.search(answer.says):
            return rule.cause
    return Cause.MALFORMED_ANSWER


class Closes(Enum):
    """Whom an answer closes its route for, beside the install that met it."""

    NOBODY = "only this install"
    AGENCY = "every install that the same agency's token would serve"
    RUN = "every install of the run"


CLOSINGS: tuple[tuple[Closes, Stage, range, re.Pattern[str]], ...] = (
    (Closes.RUN, Stage.LOCATION_TOKEN, _REFUSED, _REMOVED),
    (Closes.AGENCY, Stage.LOCATION_TOKEN, range(401, 402), _says(r"this scope|user type mismatch|invalid jwt|expired")),
    (Closes.RUN, Stage.REFRESH, _REFUSED, _REMOVED),
)


def closes(answer: Answer) -> Closes:
    """Whom this answer closes its route for. Reconnect is closed by the breaker, at several answers in a row."""
    for whom, stage, statuses, pattern in CLOSINGS:
        if answer.stage is stage and answer.status in statuses and pattern.search(answer.says):
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
    Cause.REFRESH_INVALID,
)


def most_actionable(causes: Sequence[Cause]) -> int:
    """The place of the cause that a person can do most about: the first of `RANK`, else the last one met."""
    return min(range(len(causes)), key=lambda at: (RANK.index(causes[at]) if causes[at] in RANK else len(RANK), -at))
