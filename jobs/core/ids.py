"""What the id of a location, a company or a client looks like, and the characters that nobody sees."""

from __future__ import annotations

import re
import unicodedata

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
# Format characters (zero width, direction, BOM), control characters, and every kind of space, also non-breaking ones.
_UNSEEN = {"Cf", "Cc", "Zs", "Zl", "Zp"}


def is_id(text: str) -> bool:
    """Whether `text` can be an id: 1 to 64 characters of `A-Z a-z 0-9 _ . -`, beginning with a letter or digit."""
    return _ID.fullmatch(text) is not None


def as_seen(text: str) -> str:
    """`text` as a person sees it: an unseen character counts as a space, and spaces at both ends are removed."""
    if text.isascii():
        return text.strip()
    return "".join(" " if unicodedata.category(sign) in _UNSEEN else sign for sign in text).strip()


def has_unseen(text: str) -> bool:
    """Whether `text` holds a space or a character that nobody sees."""
    return any(unicodedata.category(sign) in _UNSEEN for sign in text)
