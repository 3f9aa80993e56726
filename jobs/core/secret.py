"""A value that shows stars, and the scrubbing of texts that may hold secrets because of a server or a bug."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

STARS = "****"
# Ids, client ids (33 characters) and trace ids (36) are shorter. Codes (40 hex digits), JWTs and their parts are not.
_TOKEN_LIKE = re.compile(r"[A-Za-z0-9_\-+/=~.%]{40,}|eyJ[A-Za-z0-9_\-.]{8,}")
# Our own paths and addresses have short parts between their slashes and dots.
_OPAQUE = re.compile(r"[A-Za-z0-9_\-+~]{40,}|eyJ[A-Za-z0-9_\-.]{8,}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]+")
_MIN_SECRET = 4


class Secret:
    """A secret text. Only `reveal` shows it."""

    __slots__ = ("_forms", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._forms: tuple[str, ...] = ()

    def reveal(self) -> str:
        """The text itself, for the code that sends or stores it."""
        return self._value

    def forms(self) -> tuple[str, ...]:
        """Every form in which a server may write it into an answer, longest first. No form is shorter than the secret."""
        if not self._forms:
            self._forms = tuple(sorted(_forms(self._value), key=len, reverse=True))
        return self._forms

    def __repr__(self) -> str:
        return STARS

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


def _forms(secret: str) -> set[str]:
    in_json = json.dumps(secret)[1:-1]
    return {
        secret,
        in_json,
        in_json.replace("/", "\\/"),
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        html.escape(secret),
        html.escape(secret, quote=False),
        repr(secret)[1:-1],
    }


def scrub(text: str, secrets: Iterable[Secret] = ()) -> str:
    """A server's `text` with stars for the given secrets and for everything that looks like a token or a code."""
    return _TOKEN_LIKE.sub(STARS, _without(text, secrets))


def scrub_own(text: str, secrets: Iterable[Secret] = (), spared: Container[str] = ()) -> str:
    """The same for our own text, in which paths and addresses stay readable. It is the second line of defence."""
    return _OPAQUE.sub(lambda found: found[0] if found[0] in spared else STARS, _without(text, secrets))


def opaque_parts(text: str) -> frozenset[str]:
    """The parts of one of our own names that look like secrets only because they are long."""
    return frozenset(part for part in _OPAQUE.findall(text) if not part.startswith("eyJ"))


def _without(text: str, secrets: Iterable[Secret]) -> str:
    for secret in secrets:
        # A text shorter than the secret cannot hold a form of it, so a short trace id costs nothing.
        if _MIN_SECRET <= len(secret.reveal()) <= len(text):
            for form in secret.forms():
                text = text.replace(form, STARS)
    return text


def plain(text: str, limit: int) -> str:
    """`text` on one line, without control or direction characters, at most `limit` characters."""
    line = " ".join(_CONTROL.sub(" ", text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
