"""The records of a CSV, one after the other, each with its lines as they stand in the file: none is ever lost.

A quote that is not closed where a cell ends tears apart what it spans. Each line of that is a record of its own, torn;
the line at which it shows is read again by itself, and so is everything behind a quote that never closes.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# A cell of more lines is none: its quote was never meant to open one, and what follows is not to be held in memory.
_MOST_LINES = 1_000
_OPEN = "unexpected end of data"


class Record(NamedTuple):
    """The cells of a record, the number of its first line, and its lines as they are; or why it is torn (no cells then)."""

    line: int
    cells: list[str]
    lines: tuple[str, ...]
    torn: str = ""

    @property
    def text(self) -> str:
        """Its lines as one text, without the end of the last."""
        return "".join(self.lines).rstrip("\r\n")


class _Lines:
    """The lines of a file. Those of one record are kept in `taken`, which ends at the most of them, and may come again."""

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
        """The first line of the next record; None at the end."""
        self.taken = []
        return next(self, None)


def records(file: Iterable[str], separator: str) -> Iterator[Record]:
    """Every record of `file`, whose lines end as they do there; a blank line is one too."""
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
    """The lines that a quote tears apart: one whose quote never closes, or all up to where the next quote stands wrong."""
    lines = taken[:1] if never_closes or len(taken) == 1 else taken[:-1]
    last = number + len(lines) - 1
    what = f"line {number} has" if last == number else f"the lines {number} to {last} are torn apart by"
    fault = "never closes" if never_closes else "is not closed where a cell ends"
    for at, line in enumerate(lines, start=number):
        this = f"; this is line {at}" if last > number else ""
        yield Record(at, [], (line,), f"{what} a quote that {fault}{this}")
