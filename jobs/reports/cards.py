"""What the support page says of each cause, in words for people who never saw a terminal. One entry a cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.core.model import Cause, Owner

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Card:
    """A cause for a person: its title, what happened, what to do step by step, how one knows that it is done."""

    title: str
    happened: str
    steps: tuple[str, ...]
    done: str


@dataclass(frozen=True, slots=True)
class Section:
    """The part of the page for those who act: its title, a line below it, and whether it is open at first."""

    title: str
    lead: str
    is_open: bool


SECTIONS: Mapping[Owner, Section] = {
    Owner.CUSTOMER: Section("Ask the customer", "A message for each company is ready to copy below.", True),
    Owner.AGENCY: Section("Ask the agency", "A message for each agency is ready to copy below.", True),
    Owner.DEVELOPER: Section("For the developer", "Send this page to the developer; no customer can help here.", False),
    Owner.HIGHLEVEL: Section("For HighLevel's support", "One report covers all of these; it is ready to copy.", False),
    Owner.NOBODY: Section("Nobody has to act", "These may come back by themselves with the next run.", False),
}

_GONE = "In the next report the installs are no longer listed here."
_AGAIN = "Ask the developer to run the job again."
_SEND = "Send the block above to HighLevel's support, and note the ticket's number."
_PASSES = ("There is nothing to do for you.", "The developer runs the job again later; it tries these by itself.")

CARDS: Mapping[Cause, Card] = {
    Cause.INVALID_ROW: Card(
        "Lines of the list that cannot be read",
        "A line of the list of installs is broken, so nothing was tried for it.",
        ("Look up the line by its number in the list of installs.", "Correct what its reason names.", _AGAIN),
        "In the next report the line is no longer listed here.",
    ),
    Cause.UNKNOWN_APP: Card(
        "An app that the job does not know",
        "The list names an app whose credentials the job was not given, so nothing was tried.",
        ("Configure the app in config/apps.toml, or correct its client id in the list.", "Run the job again."),
        _GONE,
    ),
    Cause.CREDENTIALS_REJECTED: Card(
        "The app's credentials were refused",
        "HighLevel did not accept the app's client id and secret for these installs.",
        (
            "Check that they are the very pair with which the app was installed there.",
            "Correct them in .env or config/apps.toml.",
            "Run the job again.",
        ),
        _GONE,
    ),
    Cause.NOT_INSTALLED: Card(
        "The app is not installed there",
        "HighLevel says that the app is not, or no longer, installed in these accounts.",
        (
            "Copy the message of each company and send it.",
            "When the customer answers, ask the developer to run the job again.",
        ),
        "The app opens in the customer's account, and in the next report the install is no longer listed here. "
        "If the customer removed the app on purpose, ask the developer to take the line out of the list.",
    ),
    Cause.LOCATION_INACTIVE: Card(
        "The account is paused",
        "HighLevel says that these accounts are not active: paused, or the agency's subscription has lapsed.",
        (
            "Copy the message of each agency and send it.",
            "When the agency says that the account is active, ask the developer to run the job again.",
        ),
        _GONE,
    ),
    Cause.RECONNECT_REMOVED: Card(
        "The app must be installed again",
        "HighLevel no longer offers the way by which the job brings an app back. The app is still there, but cut off.",
        (
            "Copy the message of each company and send it. It asks to uninstall the app first, which is needed.",
            "When the customer says that it is done, open the app in that account and see that it works.",
            "Tell the developer, who takes the line out of the list of installs.",
        ),
        "The app works in the customer's account again, and the next report no longer lists the install here.",
    ),
    Cause.REFRESH_INVALID: Card(
        "The app must be installed again: its old key has expired",
        "The key that the app held for these accounts is not accepted any more. The app is still there, but cut off.",
        (
            "Copy the message of each company and send it. It asks to uninstall the app first, which is needed.",
            "When the customer says that it is done, open the app in that account and see that it works.",
            "Tell the developer, who takes the line out of the list of installs.",
        ),
        "The app works in the customer's account again, and the next report no longer lists the install here.",
    ),
    Cause.REFRESH_UNKNOWN: Card(
        "It is not known whether the old key still works",
        "HighLevel's answer to a refresh was lost on its way, so the old refresh token may be spent.",
        (
            "Run the job again, for the other routes.",
            "If it stays: send the old token once more with --force, or have the customer uninstall the app and install it again.",
        ),
        _GONE,
    ),
    Cause.AGENCY_REFUSED: Card(
        "The agency's access does not reach the account",
        "HighLevel gave no access to these accounts by their agency's token.",
        (
            "Check that the app has the scope oauth.write, and that the account belongs to that agency.",
            "Run the job again.",
            "If it stays: have the customer uninstall the app and install it again.",
        ),
        _GONE,
    ),
    Cause.REQUEST_REFUSED: Card(
        "HighLevel refused the request",
        "HighLevel understood the request and said no. Its words stand in each row.",
        ("Read what HighLevel said.", "Correct the configuration or the job.", "Run the job again."),
        _GONE,
    ),
    Cause.CODE_REJECTED: Card(
        "HighLevel refused its own code",
        "HighLevel handed out a code for these installs and then did not accept it.",
        (_AGAIN, f"If they are still here in the next report: {_SEND[0].lower()}{_SEND[1:]}"),
        _GONE,
    ),
    Cause.WRONG_ACCOUNT: Card(
        "HighLevel answered for another account",
        "The answer named another account than the one asked for. It was thrown away, and nothing was mixed up.",
        (_SEND, "Wait for their answer, then ask the developer to run the job again."),
        _GONE,
    ),
    Cause.WRONG_USER_TYPE: Card(
        "HighLevel answered with the wrong kind of access",
        "The answer was for an agency where a sub-account was asked for, or the reverse.",
        (
            "Look at the message: where it names an agency, add that agency to the list of installs as a row of its own.",
            "Run the job again. If they stay, report the trace ids to HighLevel's support.",
        ),
        _GONE,
    ),
    Cause.MALFORMED_ANSWER: Card(
        "HighLevel's answer could not be used",
        "HighLevel answered, but a part that is needed was missing, cut off or unreadable.",
        (_AGAIN, f"If they are still here in the next report: {_SEND[0].lower()}{_SEND[1:]}"),
        _GONE,
    ),
    Cause.RATE_LIMITED: Card(
        "HighLevel was too busy",
        "HighLevel asked the job to slow down until its patience ran out.",
        _PASSES,
        _GONE,
    ),
    Cause.SERVER_ERROR: Card(
        "HighLevel had an error", "HighLevel answered with an error of its own, several times.", _PASSES, _GONE
    ),
    Cause.NETWORK_ERROR: Card(
        "HighLevel could not be reached",
        "No answer came: the connection failed or took too long, several times.",
        _PASSES,
        _GONE,
    ),
}

WHY_STOPPED: Mapping[str, str] = {
    "reconnect_removed": "HighLevel no longer offers the way by which the job brings installs back.",
    "credentials_rejected": "HighLevel did not accept the app's credentials. The developer has to correct them.",
    "outage": "HighLevel did not answer properly for many installs in a row.",
    "refused": "HighLevel, or something in between, refused the first installs all alike. The developer has to look into it.",
    "disk": "The disk of the computer that ran the job was full or could not be written.",
    "ledger": "Another program held the job's own record of what is done.",
    "time_limit": "It was given a time limit, and the time was up.",
    "install_limit": "It was asked to do only some of the installs this time.",
    "signal": "Somebody stopped it.",
}
