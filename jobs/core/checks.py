"""The results that a check can give, and which answer means which. No other module decides this.

A check asks for the account itself, with its own token. It proves only that token, and spends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from jobs.core.causes import says
from jobs.core.model import Answer, Cause

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Check(StrEnum):
    """The result of a check of one install's access token."""

    WORKS = "works"
    ALIVE = "alive"
    EXPIRED = "expired"
    CORRUPTED = "corrupted"
    REFUSED = "refused"
    UNKNOWN = "unknown"


GOOD = frozenset({Check.WORKS, Check.ALIVE})
"""The results that need no recovery."""

MEANS: Mapping[Check, str] = {
    Check.WORKS: "HighLevel answered for this account",
    Check.ALIVE: "HighLevel knows the token, but the token has no scope for this call",
    Check.EXPIRED: "the token says that it has expired; it was not sent",
    Check.CORRUPTED: "the token is missing, damaged, or another install's; it was not sent",
    Check.REFUSED: "HighLevel does not accept the token for this account",
    Check.UNKNOWN: "no answer decided it, or the line cannot be used",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """A result, and the answers of HighLevel itself that give it: by their status, and by what their text says."""

    check: Check
    statuses: frozenset[int]
    says: Callable[[str], object]


_NO = frozenset({401, 403})

# The first match wins. Answers without a match say nothing about the token: 429, 5xx, other 4xx, a firewall's page.
RULES: tuple[Rule, ...] = (
    Rule(Check.ALIVE, _NO, says(r"not authorized for this scope")),
    # This is about the call, not the token: the route is closed, or its version is not known.
    Rule(Check.UNKNOWN, _NO, says(r"not yet supported by the iam service|version header|api version")),
    Rule(Check.REFUSED, _NO, says("")),
)
_BY_CAUSE = {Cause.WRONG_ACCOUNT: Check.REFUSED}


def verdict(answer: Answer | None) -> Check:
    """What the answer to a check means. None stands for a good answer about the right account."""
    if answer is None:
        return Check.WORKS
    if answer.cause is not None:
        return _BY_CAUSE.get(answer.cause, Check.UNKNOWN)
    found = (rule.check for rule in RULES if answer.status in rule.statuses and rule.says(answer.says))
    return Check.UNKNOWN if answer.foreign else next(found, Check.UNKNOWN)
