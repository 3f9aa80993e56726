"""What an id of a location, a company or a client looks like."""

from __future__ import annotations

import re

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")


def is_id(text: str) -> bool:
    """Whether `text` may be an id: 1 to 64 of `A-Z a-z 0-9 _ . -`, beginning with a letter or digit."""
    return _ID.fullmatch(text) is not None
