"""Reads pairs that may be sealed. Nothing here imports pyrage, so whoever has no identity does without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jobs.core.model import InstallKey, Tokens
    from jobs.sealing.opener import Opener


class Unread(NamedTuple):
    """Why a sealed pair cannot be read, in words that follow «the pair»."""

    why: str


NEEDS_IDENTITY = Unread("is sealed, and needs --identity FILE")


def opened(opener: Opener | None, key: InstallKey, tokens: Tokens) -> Tokens | Unread:
    """The pair of an install with its tokens, or why it cannot be read. A pair that is not sealed stays as it is."""
    if tokens.sealed is None:
        return tokens
    if opener is None:
        return NEEDS_IDENTITY
    from jobs.sealing.opener import NotOpenedError  # slow to import, and there already with an opener

    try:
        return opener.open(key, tokens)
    except NotOpenedError as refused:
        return Unread(f"cannot be opened: {refused}")
