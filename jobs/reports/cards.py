"""What the support page says about each cause, in words for people who never use a terminal. One entry for each cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.core.model import Cause, Owner

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Card:
    """A cause as a person reads it: its title, what happened, what to do step by step, how to tell that it is done."""

    title: str
    happened: str
    steps: tuple[str, ...]
    done: str


@dataclass(frozen=True, slots=True)
class Section:
    """The part of the page for one owner: its title, a line below it, and whether it is open at first."""

    title: str
    lead: str
    is_open: bool


SECTIONS: Mapping[Owner, Section] = {
    Owner.CUSTOMER: Section("Ask the customer", "A message for each company is ready to copy below.", True),
    Owner.AGENCY: Section("Ask the agency", "A message for each agency is ready to copy below.", True),
    Owner.DEVELOPER: Section(
        "For the developer", "Send this page to the developer. Customers cannot help here.", False
    ),
    Owner.HIGHLEVEL: Section("For HighLevel's support", "One report covers all of these. It is ready to copy.", False),
    Owner.NOBODY: Section("Nobody has to act", "These installs may come back by themselves in the next run.", False),
}

_GONE = "The next report no longer lists these installs here."
_AGAIN = "Ask the developer to run the job again."
_SEND = "Send the report above to HighLevel's support, and note the ticket number."
_IF_STILL = f"If the next report still lists the installs here: {_SEND[0].lower()}{_SEND[1:]}"
_PASSES = (
    "You do not have to do anything.",
    "The developer runs the job again later, and it tries these installs again.",
)
_INSTALL_AGAIN = (
    "Copy the message for each company and send it. It asks the customer to uninstall the app first. That step is needed.",
    "When the customer says that it is done, open the app in that account and check that it works.",
    "Ask the developer to take the line out of the list of installs.",
)

CARDS: Mapping[Cause, Card] = {
    Cause.INVALID_ROW: Card(
        "Lines in the list that cannot be read",
        "A line in the list of installs is broken, so the job did not try it.",
        ("Find the line in the list of installs by its number.", "Correct what the message names.", _AGAIN),
        "The next report no longer lists the line here.",
    ),
    Cause.UNKNOWN_APP: Card(
        "An app that the job does not know",
        "The list names an app, but the job does not have its credentials. So the job did not try these installs.",
        ("Add the app to config/apps.toml, or correct its client id in the list.", "Run the job again."),
        _GONE,
    ),
    Cause.CREDENTIALS_REJECTED: Card(
        "The app's credentials were refused",
        "HighLevel did not accept the app's client id and secret for these installs.",
        (
            "Check that the client id and secret are the ones the app was installed with.",
            "Correct them in .env or config/apps.toml.",
            "Run the job again.",
        ),
        _GONE,
    ),
    Cause.NOT_INSTALLED: Card(
        "The app is not installed there",
        "HighLevel says that the app is not installed in these accounts, or not any more.",
        (
            "Copy the message for each company and send it.",
            "When the customer answers, ask the developer to run the job again.",
            "If the customer removed the app on purpose, ask the developer to take the line out of the list.",
        ),
        "The app opens in the customer's account, and the next report no longer lists the install here.",
    ),
    Cause.LOCATION_INACTIVE: Card(
        "The account is paused",
        "HighLevel says that these accounts are not active. They are paused, or the agency's subscription has lapsed.",
        (
            "Copy the message for each agency and send it.",
            "When the agency says that the account is active, ask the developer to run the job again.",
        ),
        _GONE,
    ),
    Cause.RECONNECT_REMOVED: Card(
        "The app must be installed again",
        "HighLevel no longer offers the call that the job uses to bring an app back. The app is still installed, but cut off.",
        _INSTALL_AGAIN,
        "The app works in the customer's account again, and the next report no longer lists the install here.",
    ),
    Cause.REFRESH_INVALID: Card(
        "The app must be installed again: its old key no longer works",
        "HighLevel no longer accepts the key that the app holds for these accounts. The app is still installed, but cut off.",
        _INSTALL_AGAIN,
        "The app works in the customer's account again, and the next report no longer lists the install here.",
    ),
    Cause.REFRESH_UNKNOWN: Card(
        "The old key may no longer work",
        "HighLevel's answer to a refresh was lost on the way, so the old refresh token may be spent.",
        (
            "Run the job again: it tries the other routes.",
            "If the installs fail again, run the job with --force to send the old token once more.",
            "If that fails too, ask the customer to uninstall the app and install it again.",
        ),
        _GONE,
    ),
    Cause.AGENCY_REFUSED: Card(
        "The agency's token does not open the account",
        "Their agency's token gave no access to these accounts, or it is sealed and could not be used.",
        (
            "If a row names --identity, run the job again with an identity that opens the pair.",
            "Otherwise check that the app has the scope oauth.write, and that the account belongs to this agency.",
            "Run the job again.",
            "If the installs fail again, ask the customer to uninstall the app and install it again.",
        ),
        _GONE,
    ),
    Cause.REQUEST_REFUSED: Card(
        "HighLevel refused the request",
        "HighLevel understood the request and refused it. Each row shows what HighLevel said.",
        ("Read what HighLevel said.", "Correct the configuration or the job.", "Run the job again."),
        _GONE,
    ),
    Cause.CODE_REJECTED: Card(
        "HighLevel refused its own code",
        "HighLevel gave out a code for these installs and then did not accept it.",
        (_AGAIN, _IF_STILL),
        _GONE,
    ),
    Cause.WRONG_ACCOUNT: Card(
        "HighLevel answered for a different account",
        "The job asked for one account, and the answer was for a different one. The job discarded it, so nothing is mixed up.",
        (_SEND, "When they answer, ask the developer to run the job again."),
        _GONE,
    ),
    Cause.WRONG_USER_TYPE: Card(
        "HighLevel answered with the wrong kind of access",
        "The job asked for a sub-account and HighLevel answered for an agency, or the reverse.",
        (
            "Read the message. If it names an agency, add that agency to the list of installs as its own row.",
            "Run the job again.",
            "If the installs fail again, send their trace ids to HighLevel's support.",
        ),
        _GONE,
    ),
    Cause.MALFORMED_ANSWER: Card(
        "HighLevel's answer could not be used",
        "HighLevel answered, but a part that the job needs was missing, cut off or unreadable.",
        (_AGAIN, _IF_STILL),
        _GONE,
    ),
    Cause.RATE_LIMITED: Card(
        "HighLevel was too busy",
        "HighLevel asked the job to slow down, again and again, until the job gave up.",
        _PASSES,
        _GONE,
    ),
    Cause.SERVER_ERROR: Card(
        "HighLevel had an error", "HighLevel answered with an internal error several times.", _PASSES, _GONE
    ),
    Cause.NETWORK_ERROR: Card(
        "HighLevel could not be reached",
        "The connection failed or took too long, several times.",
        _PASSES,
        _GONE,
    ),
}

WHY_STOPPED: Mapping[str, str] = {
    "reconnect_removed": "HighLevel no longer offers the call that the job uses to bring installs back.",
    "credentials_rejected": "HighLevel did not accept the app's credentials. The developer needs to correct them.",
    "outage": "HighLevel did not answer properly for many installs in a row.",
    "refused": "HighLevel, or something in between, refused the first installs in the same way. The developer needs to look into it.",
    "disk": "The disk of the computer that ran the job was full, or the job could not write to it.",
    "ledger": "The job could not write its own record of what is done: another program held it, or its database was away.",
    "lease_lost": "Another run of the job took over.",
    "time_limit": "The run reached its time limit.",
    "install_limit": "The run was started for only some of the installs.",
    "signal": "Somebody stopped it.",
}
