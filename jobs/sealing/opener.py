"""Opens sealed pairs, and refuses a pair that was sealed for another install or holds another install's tokens.

Anyone who knows the public key can seal something, so a text must name the install that it was found at.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pyrage

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
_WHY_NOT = {"No matching keys found": "none of the identities opens it"}


class NotOpenedError(Exception):
    """A sealed pair cannot be opened, or is not the pair of its install. It says why, without anything of the pair."""


class Opener:
    """Opens pairs of the API at `base_url` with `identities`."""

    def __init__(self, identities: Sequence[Identity], base_url: str) -> None:
        self._identities = [*identities]
        self._base_url = base_url

    def open(self, key: InstallKey, tokens: Tokens) -> Tokens:
        """The pair of an install with its tokens, not sealed any more. A pair that is open already stays as it is.

        Raises NotOpenedError.
        """
        if tokens.sealed is None:
            return tokens
        values = self._opened(tokens.sealed)
        named = {"base_url": self._base_url, "client_id": key.client_id, "user_type": key.level.value}
        for name, mine in {**named, "resource_id": key.account_id}.items():
            if values.get(name) != mine:
                raise NotOpenedError(f"it was sealed for another install ({name} is another one)")
        access, refresh = Secret(values["access_token"]), Secret(values["refresh_token"])
        for name, token in (("access", access), ("refresh", refresh)):
            if why := names_another(token, key):
                raise NotOpenedError(f"its {name} token is refused: {why}")
        if fingerprint(access.reveal(), refresh.reveal()) != tokens.sealed.fingerprint:
            raise NotOpenedError("it holds another pair than the one that was recorded")
        return replace(tokens, access_token=access, refresh_token=refresh, sealed=None)

    def _opened(self, sealed: Sealed) -> dict[str, str]:
        """What a sealed text holds: texts by their names."""
        try:
            found: Any = json.loads(pyrage.decrypt(sealed.text.encode(), self._identities))
            json.dumps(found, ensure_ascii=False).encode()  # JSON can say what no text may hold: a lone surrogate.
        except pyrage.DecryptError as error:
            raise NotOpenedError(_WHY_NOT.get(str(error), "it is damaged")) from None
        except (ValueError, RecursionError):
            raise NotOpenedError("it holds something else than a pair") from None
        if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in _NAMES):
            raise NotOpenedError("it holds something else than a pair")
        return found
