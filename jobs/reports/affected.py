"""The list that a check leaves, for a run to read: the installs whose access token is not known to work."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from jobs.core.model import Broken, Level, Row
from jobs.manifest.layout import IDS, ROW_AS_READ
from jobs.manifest.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.core.checks import Check

CHECK = "check"
_TOKENS = ("access_token", "refresh_token")


@dataclass(frozen=True, slots=True)
class Shape:
    """What the list has: the user's `columns`, the tokens or stars in their place, and the broken lines as they were read."""

    columns: Sequence[str]
    with_tokens: bool = False
    with_lines: bool = False


class AffectedList:
    """Writes the list to `file`, row by row. It replaces the column of an earlier check."""

    def __init__(self, file: BinaryIO, shape: Shape) -> None:
        self._shape = shape
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self._writer = csv.writer(self._text)
        self._redactor = Redactor()
        self._places = [place for place, name in enumerate(shape.columns) if name != CHECK]
        names = [shape.columns[place] for place in self._places]
        self._names = [*names, *([ROW_AS_READ] if shape.with_lines and ROW_AS_READ not in names else [])]
        self._writer.writerow([*IDS, CHECK, *(_TOKENS if shape.with_tokens else ()), *self._names])

    @property
    def starred(self) -> tuple[str, ...]:
        """The columns in which something was starred."""
        return tuple(self._redactor.columns)

    def add(self, row: Row | Broken, check: Check) -> None:
        """Write one more row."""
        own = [*row.cells, *[""] * (len(self._shape.columns) + 1 - len(row.cells))]  # A torn line has one cell more.
        named = [*zip(self._names, [*(own[place] for place in self._places), own[-1]], strict=False)]
        self._writer.writerow([*self._ids(row), check.value, *self._tokens(row), *self._seen(named)])

    def close(self) -> None:
        """Let go of the file, after the last row."""
        self._text.detach()

    def _ids(self, row: Row | Broken) -> list[str]:
        if isinstance(row, Broken):  # It may hold anything as an id.
            return self._seen([*zip(IDS, (row.location_id, row.company_id, row.client_id), strict=True)])
        location = row.account_id if row.level is Level.SUB_ACCOUNT else ""
        return [location, row.company_id, row.client_id]

    def _tokens(self, row: Row | Broken) -> list[str]:
        if not self._shape.with_tokens:
            return []
        pair = (row.access_token, row.refresh_token) if isinstance(row, Row) else (None, None)
        return [token.reveal() if token else "" for token in pair]

    def _seen(self, named: Sequence[tuple[str, str]]) -> list[str]:
        return [cell for _, cell in (named if self._shape.with_tokens else self._redactor.cells(named))]
