"""Puts stars in place of secrets in the user's cells. The header's name or the cell's form shows that it is a secret."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from jobs.core.ids import as_seen
from jobs.core.secret import STARS
from jobs.manifest.layout import ROW_AS_READ

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from jobs.core.model import Record

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET = {
    "apikey",
    "authorization",
    "bearer",
    "credential",
    "credentials",
    "jwt",
    "kennwort",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "passwords",
    "passwort",
    "pwd",
    "secret",
    "secrets",
    "token",
    "tokens",
}
_KEYS = {"access", "api", "auth", "encryption", "private", "secret", "signing"}
_RUN_TOGETHER = re.compile(r"(?:token|secret|password|apikey|privatekey)s?$")
# A column whose name ends with one of these words tells about a secret, but is not one.
_ABOUT = {"at", "count", "date", "expiration", "expires", "expiry", "in", "on", "scope", "scopes", "status", "type"}

_LONG = re.compile(r"[A-Za-z0-9_\-+~]{40,}")
_MIXED = re.compile(r"[A-Za-z0-9]{25,}")
_KNOWN = re.compile(
    r"eyJ[A-Za-z0-9_\-]{8,}[A-Za-z0-9_\-.]*|\b(?:sk|rk|pk)_(?:live|test)_\w+|\b(?:gh[opsu]|xox[abps])[_\-][\w\-]{8,}"
    r"|\bAKIA[0-9A-Z]{12,}|\b[Bb]earer {1,3}[A-Za-z0-9._~+/\-]{16,}|://[^\s/@:]{0,64}:[^\s/@]{1,128}@"
    r"|hooks\.slack\.com/services/[\w/]{20,}"
)
# A name with its value, as in JSON or in a query.
_NAMED = re.compile(
    r"(?:token|secret|passw(?:or)?d|passphrase|api[_\- ]?key|private[_\- ]?key)s?"
    r"[\"'\\]{0,4}\s{0,3}[:=]\s{0,3}[\"'\\]{0,4}[^\s\"',;}&\\]{4}|-----BEGIN [A-Z ]{0,20}PRIVATE KEY",
    re.IGNORECASE,
)
_PARTED = re.compile(r"[_\-+~]+")
_CELL = re.compile(r"[^,;\t\r\n]+")
_LONGEST_WORD = 20


def names_secret(header: str) -> bool:
    """Whether a column with this header holds secrets."""
    words = [word.casefold() for word in _WORD.findall(as_seen(header))]
    if not words or words[-1] in _ABOUT:
        return False
    keys = any(first in _KEYS and second in {"key", "keys"} for first, second in pairwise(words))
    return keys or not _SECRET.isdisjoint(words) or bool(_RUN_TOGETHER.search("".join(words)))


def holds_secret(cell: str) -> bool:
    """Whether a cell looks like a token or a secret, or holds one."""
    return bool(_NAMED.search(cell)) or without_secrets(cell) != cell


def without_secrets(text: str) -> str:
    """`text` with stars in place of everything that looks like a secret."""
    text = _KNOWN.sub(STARS, text)
    text = _LONG.sub(lambda found: STARS if _is_opaque(found[0]) else found[0], text)
    return _MIXED.sub(lambda found: STARS if _is_mixed(found[0]) else found[0], text)


def _is_opaque(run: str) -> bool:
    """Whether a long run of characters is not made of words, as the last part of a URL often is."""
    parts = [part for part in _PARTED.split(run) if part]
    return not all(part.isdigit() or (part.isalpha() and len(part) <= _LONGEST_WORD) for part in parts)


def _is_mixed(run: str) -> bool:
    return any(map(str.isupper, run)) and any(map(str.islower, run)) and any(map(str.isdigit, run))


class Redactor:
    """Puts the stars into records. `columns` are the headers of the columns that held a secret."""

    def __init__(self) -> None:
        self.columns: dict[str, None] = {}

    def __call__(self, record: Record) -> Record:
        """The record as everybody may see it."""
        cells = self.cells(record.cells)
        seen = replace(record, cells=cells) if cells != record.cells else record
        if record.level is not None:
            return seen
        # In a broken line, the cell of an id may hold anything.
        return replace(
            seen,
            location_id=self._cell("location_id", record.location_id, ()),
            company_id=self._cell("company_id", record.company_id, ()),
            client_id=self._cell("client_id", record.client_id, ()),
        )

    def cells(self, cells: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """These cells, each with its column, as others may see them."""
        cells = tuple(cells)
        secret = {name for name, _ in cells if names_secret(name)}
        return tuple((name, self._cell(name, cell, secret)) for name, cell in cells)

    def _cell(self, name: str, cell: str, secret: Container[str]) -> str:
        if not cell or cell.isspace():
            return cell
        if name == ROW_AS_READ:
            seen = _CELL.sub(_starred, cell) if secret or _NAMED.search(cell) else without_secrets(cell)
        else:
            seen = STARS if name in secret or holds_secret(cell) else cell
        if seen != cell:
            self.columns[name] = None
        return seen


def _starred(found: re.Match[str]) -> str:
    return STARS if found[0].strip() else found[0]
