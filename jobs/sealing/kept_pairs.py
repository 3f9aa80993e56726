"""The open pairs of a process, for whoever hands them over: a sealed pair cannot be read back from the ledger."""

from __future__ import annotations

from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING

from jobs.sealing.opener import opened

if TYPE_CHECKING:
    from jobs.core.model import InstallKey, Tokens
    from jobs.sealing.opener import Opener, Unread

MOST_OPEN = 10_000
"""How many new pairs wait open in memory for their delivery, which is about 30 MB of them."""
MOST_GIVEN = 1_000
"""How many more are known while a command has them, so that their tokens are found in what it answers."""


class KeptPairs:
    """Up to `most` open pairs that wait for their delivery, the newest of each install. Any thread may use them.

    Of those that were given away and are not settled yet, the last `most_given` are known too. `opener`, if there is one,
    opens all other sealed pairs. Pairs are known by their install and when they were recovered (UTC, ISO 8601).
    """

    def __init__(self, opener: Opener | None = None, most: int = MOST_OPEN, most_given: int = MOST_GIVEN) -> None:
        self._opener = opener
        self._most = most
        self._most_given = most_given
        self._kept: dict[InstallKey, tuple[str, Tokens]] = {}
        self._given: dict[InstallKey, tuple[str, Tokens]] = {}
        self._changing = Lock()

    def keep(self, key: InstallKey, recovered_at: str, tokens: Tokens) -> None:
        """Keep a new pair, if it will be sealed in the ledger and there is room. It is about to overtake older ones."""
        if tokens.sealed is None or not tokens.is_open:
            return
        with self._changing:
            self._remove(key)
            if len(self._kept) < self._most:
                self._kept[key] = (recovered_at, replace(tokens, sealed=None))

    def give(self, key: InstallKey, recovered_at: str) -> None:
        """Make room, since whoever has this pair now may settle it much later. What it says may hold the pair's tokens."""
        with self._changing:
            tokens = self._find(key, recovered_at)
            if tokens is not None:
                self._remove(key)
                self._given[key] = (recovered_at, tokens)
            if len(self._given) > self._most_given:
                del self._given[next(iter(self._given))]

    def forget(self, key: InstallKey, recovered_at: str) -> None:
        """Forget a pair that was settled."""
        with self._changing:
            if self._find(key, recovered_at) is not None:
                self._remove(key)

    def _remove(self, key: InstallKey) -> None:
        self._kept.pop(key, None)
        self._given.pop(key, None)

    def can_open(self, key: InstallKey, recovered_at: str, tokens: Tokens) -> bool:
        """Whether a pair is open, is kept, or may be opened."""
        return tokens.sealed is None or self._opener is not None or self._find(key, recovered_at) is not None

    def opened(self, key: InstallKey, recovered_at: str, tokens: Tokens) -> Tokens | Unread:
        """A pair with its tokens, which the ledger holds in this form, or why it cannot be read."""
        return self._find(key, recovered_at) or opened(self._opener, key, tokens)

    def _find(self, key: InstallKey, recovered_at: str) -> Tokens | None:
        at, tokens = self._kept.get(key) or self._given.get(key) or ("", None)
        return tokens if at == recovered_at else None
