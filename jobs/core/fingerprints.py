"""Fingerprints, which identify token pairs without storing them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.core.model import Tokens


def fingerprint(access_token: str, refresh_token: str) -> str:
    """A hash that identifies a pair without storing it."""
    return hashlib.sha256(f"{access_token}\0{refresh_token}".encode()).hexdigest()


def fingerprint_of(tokens: Tokens) -> str:
    """The fingerprint of a pair, also of one that is sealed."""
    if tokens.sealed is not None:
        return tokens.sealed.fingerprint
    return fingerprint(tokens.access_token.reveal(), tokens.refresh_token.reveal())


def sealed_mark(text: str) -> str:
    """The fingerprint of a sealed text, whatever a spreadsheet made of the ends of its lines."""
    return fingerprint("".join(text.split()), "")
