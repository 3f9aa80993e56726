"""What every answer means. Whatever decides why an install failed is in here; nothing else judges.

`ADVICE` says for each cause who acts, whether it is tried again within the run, what many such failures in a row
stop, and the next step in words for support staff. `RULES` say which cause an answer has: the first that matches
wins, so texts come before statuses. (What an exception of the HTTP libraries means stands in `faults`.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from jobs.model import Answer, Cause, Owner

if TYPE_CHECKING:
    from collections.abc import Mapping


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
}


@dataclass(frozen=True, slots=True)
class Rule:
    """Matches where the status is within the range and the pattern is found in what the server said."""

    cause: Cause
    statuses: range
    pattern: re.Pattern[str]


def _says(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_ANY = _says("")
# What a server says of itself when it has nothing to say: the status in words and figures, and its own name.
_NOTHING = _says(r"^\W*(?:(?:40[45]|410|error|page|(?:was )?not found|method not allowed|gone|nginx[/.\d]*)\W*)*$")
_REFUSED = range(400, 500)
_FAILED = range(400, 600)
_NOUN = r"\b(?:installations?|installed|locations?|company|companies|sub-?accounts?)\b"
_MISSING = r"(?:\bnot (?:be )?found\b|\bdoes(?:n't| not) exist\b|\bnot installed\b)"
_CANNOT_FIND = rf"(?:could not|cannot|can't|unable to) find (?:the |this |that |any |an? )?{_NOUN}"
# Of one sentence; a dot within an id ends none.
_SOON = r"(?:[^.;]|\.\b){0,100}"

RULES: tuple[Rule, ...] = (
    Rule(Cause.RATE_LIMITED, range(429, 430), _ANY),
    Rule(Cause.RECONNECT_REMOVED, _FAILED, _says(r"API endpoint has been removed")),
    Rule(Cause.LOCATION_INACTIVE, _FAILED, _says(r"location is not active")),
    Rule(Cause.CREDENTIALS_REJECTED, _FAILED, _says(r"invalid client credentials|\binvalid_client\b")),
    Rule(
        Cause.CODE_REJECTED,
        _FAILED,
        _says(r"\binvalid_grant\b|authorization code (?:is invalid|has expired|not found)"),
    ),
    Rule(Cause.RECONNECT_REMOVED, range(404, 406), _says(r"cannot post\b")),
    Rule(Cause.RECONNECT_REMOVED, range(410, 411), _says(r"cannot post\b")),
    Rule(
        Cause.NOT_INSTALLED,
        _REFUSED,
        _says(
            rf"{_NOUN}{_SOON}{_MISSING}|\bno {_NOUN}{_SOON}\b(?:found|exists?)\b|{_CANNOT_FIND}|\bapp (?:is )?not installed"
        ),
    ),
    Rule(Cause.REQUEST_REFUSED, range(401, 402), _says(r"version header|api version")),
    Rule(Cause.RECONNECT_REMOVED, range(404, 406), _NOTHING),
    Rule(Cause.RECONNECT_REMOVED, range(410, 411), _NOTHING),
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
        if answer.status in rule.statuses and rule.pattern.search(answer.says):
            return rule.cause
    return Cause.MALFORMED_ANSWER
