"""The records of a CSV, one after the other, each with its lines as they are in the file. No line is ever lost.

A quote that does not close at the end of a cell tears apart the lines that it spans. Each of these lines becomes a torn
record. The line that shows the fault is read again on its own, and so are all lines after a quote that never closes.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# A cell never has more lines. Its quote was not meant to open a cell, and the lines must not all be held in memory.
_MOST_LINES = 1_000
_OPEN = "unexpected end of data"


class Record(NamedTuple):
    """The cells of a record, the number of its first line, and its lines as they are. A torn record has no cells.

    A row of a sheet has no lines. `unusable` says why the cell of an id or a token cannot be used.
    """

    line: int
    cells: list[str]
    lines: tuple[str, ...]
    torn: str = ""
    unusable: str = ""

    @property
    def text(self) -> str:
        """Its lines as one text, without the last line end. For a row of a sheet, its line in a CSV."""
        if self.lines:
            return "".join(self.lines).rstrip("\r\n")
        text = io.StringIO()
        csv.writer(text).writerow(self.cells)
        return text.getvalue().rstrip("\r\n")


class _Lines:
    """The lines of a file. `taken` holds the lines of one record, up to a limit. Lines put into `again` come once more."""

    def __init__(self, file: Iterable[str]) -> None:
        self._file = iter(file)
        self.again: list[str] = []
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.taken) >= _MOST_LINES:
            raise StopIteration
        line = self.again.pop() if self.again else next(self._file)
        self.taken.append(line)
        return line

    def begin(self) -> str | None:
        """The first line of the next record, or None at the end."""
        self.taken = []
        return next(self, None)


def records(file: Iterable[str], separator: str) -> Iterator[Record]:
    """Every record of `file`. Lines keep their line ends, and a blank line is a record too."""
    lines, number = _Lines(file), 1
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while (line := lines.begin()) is not None:
        if '"' not in line:
            yield Record(number, line.rstrip("\r\n").split(separator), (line,))
            number += 1
            continue
        lines.again.append(lines.taken.pop())
        try:
            found = [Record(number, next(reader), tuple(lines.taken))]
        except csv.Error as error:
            found = list(_torn(number, lines.taken, never_closes=_OPEN in str(error)))
            lines.again += reversed(lines.taken[len(found) :])
        number += len(found) if len(found) > 1 else len(found[0].lines)
        yield from found


def _torn(number: int, taken: list[str], *, never_closes: bool) -> Iterator[Record]:
    """The lines that a quote tears apart: only the first if the quote never closes, or all but the one with the fault."""
    lines = taken[:1] if never_closes or len(taken) == 1 else taken[:-1]
    last = number + len(lines) - 1
    what = f"line {number} has" if last == number else f"lines {number} to {last} are torn apart by"
    fault = "never closes" if never_closes else "does not close at the end of a cell"
    for at, line in enumerate(lines, start=number):
        this = f"; this is line {at}" if last > number else ""
        yield Record(at, [], (line,), f"{what} a quote that {fault}{this}")
