"""The open pairs of a process, for whoever hands them over: a sealed pair cannot be read back from the ledger."""

from __future__ import annotations

from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING

from jobs.sealing.reader import opened

if TYPE_CHECKING:
    from jobs.core.model import InstallKey, Tokens
    from jobs.sealing.opener import Opener
    from jobs.sealing.reader import Unread

MOST_OPEN = 10_000
"""How many new pairs wait open in memory for their delivery, which is about 30 MB of them."""


class OpenPairs:
    """Up to `most` open pairs that wait for their delivery, the newest of each install. Any thread may use them.

    All other sealed pairs are opened by `opener`, if there is one. Pairs are known by their install and when they were
    recovered (UTC, ISO 8601).
    """

    def __init__(self, opener: Opener | None = None, most: int = MOST_OPEN) -> None:
        self._opener = opener
        self._most = most
        self._kept: dict[InstallKey, tuple[str, Tokens]] = {}
        self._changing = Lock()

    def keep(self, key: InstallKey, recovered_at: str, tokens: Tokens) -> None:
        """Keep a new pair, if it will be sealed in the ledger and there is room. It is about to overtake older ones."""
        if tokens.sealed is None or not tokens.is_open:
            return
        with self._changing:
            self._kept.pop(key, None)
            if len(self._kept) < self._most:
                self._kept[key] = (recovered_at, replace(tokens, sealed=None))

    def forget(self, key: InstallKey, recovered_at: str) -> None:
        """Forget a pair that does not wait any more."""
        with self._changing:
            if self._find(key, recovered_at) is not None:
                del self._kept[key]

    def can_open(self, key: InstallKey, recovered_at: str, tokens: Tokens) -> bool:
        """Whether a pair is open, is kept, or may be opened."""
        return tokens.sealed is None or self._opener is not None or self._find(key, recovered_at) is not None

    def opened(self, key: InstallKey, recovered_at: str, tokens: Tokens) -> Tokens | Unread:
        """A pair with its tokens, which the ledger holds in this form, or why it cannot be read (see `reader`)."""
        return self._find(key, recovered_at) or opened(self._opener, key, tokens)

    def _find(self, key: InstallKey, recovered_at: str) -> Tokens | None:
        at, tokens = self._kept.get(key, ("", None))
        return tokens if at == recovered_at else None
