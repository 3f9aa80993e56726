"""Seals token pairs for their recipients, each bound to its install."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pyrage

from jobs.config.recipients import key_fingerprint, panics_as_errors, recipient_of
from jobs.core.fingerprints import fingerprint_of
from jobs.core.model import Sealed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.core.model import InstallKey, Tokens


class Sealer:
    """Seals pairs of the API at `base_url` for `recipients`, which are public keys. `named` are their fingerprints.

    Raises ValueError for any other text.
    """

    def __init__(self, recipients: Sequence[str], base_url: str) -> None:
        self._recipients = [recipient_of(text) for text in recipients]
        self._base_url = base_url
        self.named = tuple(sorted(map(key_fingerprint, recipients)))

    def seal(self, key: InstallKey, tokens: Tokens, issued_at: str) -> Tokens:
        """The pair of an install with its sealed form, which is all that is ever written of it.

        `issued_at` is the moment at which it came (UTC, ISO 8601). A pair that is sealed already stays as it is.
        """
        if tokens.sealed is not None:
            return tokens
        values = {
            "base_url": self._base_url,
            "client_id": key.client_id,
            "user_type": key.level.value,
            "resource_id": key.account_id,
            "access_token": tokens.access_token.reveal(),
            "refresh_token": tokens.refresh_token.reveal(),
            "issued_at": issued_at,
        }
        with panics_as_errors():
            text = pyrage.encrypt(json.dumps(values).encode(), self._recipients, armored=True)
        return replace(tokens, sealed=Sealed(text.decode("ascii"), fingerprint_of(tokens), self.named))
