"""Opens sealed pairs, and refuses a pair that was sealed for another install or holds another install's tokens.

Anyone who knows the public key can seal something, so a text must name the install that it was found at.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from jobs.core.fingerprints import fingerprint
from jobs.core.secret import Secret
from jobs.highlevel.jwt_claims import names_another

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeAlias

    from pyrage import ssh, x25519

    from jobs.core.model import InstallKey, Sealed, Tokens

    Identity: TypeAlias = x25519.Identity | ssh.Identity


_NAMES = {"base_url", "client_id", "user_type", "resource_id", "access_token", "refresh_token"}
_WHY_NOT = {"No matching keys found": "no identity in --identity FILE opens it"}


class Unread(NamedTuple):
    """A sealed pair that was not opened. `why` holds nothing of the pair, and is empty if there is no identity."""

    why: str = ""

    @property
    def words(self) -> str:
        """Why it cannot be read, in words that follow «the pair»."""
        return f"cannot be opened: {self.why}" if self.why else "is sealed, and needs --identity FILE"


NEEDS_IDENTITY = Unread()
_NO_PAIR = Unread("it holds something else than a pair")


def opened(opener: Opener | None, key: InstallKey, tokens: Tokens) -> Tokens | Unread:
    """The pair of an install with its tokens, or why not. A pair that is not sealed stays as it is."""
    if opener is None:
        return tokens if tokens.sealed is None else NEEDS_IDENTITY
    return opener.open(key, tokens)


class Opener:
    """Opens pairs of the API at `base_url` with `identities`."""

    def __init__(self, identities: Sequence[Identity], base_url: str) -> None:
        self._identities = [*identities]
        self._base_url = base_url

    def open(self, key: InstallKey, tokens: Tokens) -> Tokens | Unread:
        """The pair of an install with its tokens, not sealed any more, or why not. An open pair stays as it is."""
        if tokens.sealed is None:
            return tokens
        values = self._values(tokens.sealed)
        if isinstance(values, Unread):
            return values
        named = {"base_url": self._base_url, "client_id": key.client_id, "user_type": key.level.value}
        for name, mine in {**named, "resource_id": key.account_id}.items():
            if values.get(name) != mine:
                return Unread(f"it was sealed for another install ({name} is another one)")
        access, refresh = Secret(values["access_token"]), Secret(values["refresh_token"])
        for name, token in (("access", access), ("refresh", refresh)):
            if why := names_another(token, key):
                return Unread(f"its {name} token is refused: {why}")
        if fingerprint(access.reveal(), refresh.reveal()) != tokens.sealed.fingerprint:
            return Unread("it holds another pair than the one that was recorded")
        return replace(tokens, access_token=access, refresh_token=refresh, sealed=None)

    def _values(self, sealed: Sealed) -> dict[str, str] | Unread:
        """What a sealed text holds: texts by their names."""
        import pyrage  # slow to import, and needed only where a pair is sealed

        try:
            found: Any = json.loads(pyrage.decrypt(sealed.text.encode(), self._identities))
            json.dumps(found, ensure_ascii=False).encode()  # JSON can say what no text may hold: a lone surrogate.
        except pyrage.DecryptError as error:
            return Unread(_WHY_NOT.get(str(error), "it is damaged"))
        except (ValueError, RecursionError):
            return _NO_PAIR
        if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in _NAMES):
            return _NO_PAIR
        return found
