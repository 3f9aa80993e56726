"""Warnings about a list for a person, collected while it is read. A warning never stops a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMED = 20
# An id is unlike the others if at least this many times as many ids share one form.
_OVERWHELMING = 8


@dataclass(slots=True)
class Seen:
    """How many lines of one kind there were, and the numbers of the first ones."""

    count: int = 0
    lines: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        """One more."""
        self.count += 1
        if len(self.lines) < _NAMED:
            self.lines.append(line)


class Ids:
    """The ids of one kind, counted by their form: their length and their kinds of characters."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._forms: dict[tuple[int, bool, bool], Seen] = {}

    def add(self, text: str, line: int) -> None:
        """One more."""
        form = len(text), text.isalnum(), text.isdigit()
        if form not in self._forms:
            self._forms[form] = Seen()
        self._forms[form].add(line)

    def __bool__(self) -> bool:
        return bool(self._forms)

    def __contains__(self, text: str) -> bool:
        """Whether there was an id with the form of `text`."""
        return (len(text), text.isalnum(), text.isdigit()) in self._forms

    def warnings(self) -> Iterator[str]:
        """The lines whose ids have an unusual form, if one form is clearly usual."""
        usual = max(self._forms, key=lambda form: self._forms[form].count, default=None)
        others = [seen for form, seen in self._forms.items() if form != usual]
        count = sum(seen.count for seen in others)
        if usual is None or not count or self._forms[usual].count < _OVERWHELMING * count:
            return
        length, letters, digits = usual
        signs = "digits" if digits else "letters and digits" if letters else "characters, including _ . or -"
        odd = Seen(count, sorted(line for seen in others for line in seen.lines)[:_NAMED])
        kind = f"a {self._kind} id unlike all the others ({length} {signs})"
        yield f"{_lines(odd, 'has', 'have')} {kind}: please check"


@dataclass(slots=True)
class ListWarnings:
    """The warnings of one pass over a list.

    `emptied` are agencies whose location cell holds a word for nothing. `agencies` are those whose location cell is empty.
    `sealed` are those whose pair is sealed. `fault` says why the first torn line is torn.
    `formulas` are blank lines of formulas without a value. `why` says why the first unusable line is unusable.
    `sheets` says which sheets are read, if some are not.
    """

    blank: int = 0
    sealed: Seen = field(default_factory=Seen)
    headers: Seen = field(default_factory=Seen)
    behind_another: Seen = field(default_factory=Seen)
    torn: Seen = field(default_factory=Seen)
    formulas: Seen = field(default_factory=Seen)
    emptied: Seen = field(default_factory=Seen)
    agencies: Seen = field(default_factory=Seen)
    spans: list[tuple[int, int]] = field(default_factory=list)
    locations: Ids = field(default_factory=lambda: Ids("location"))
    companies: Ids = field(default_factory=lambda: Ids("company"))
    unusable: Seen = field(default_factory=Seen)
    fault: str = ""
    why: str = ""
    sheets: str = ""

    def cannot_be_used(self, line: int, why: str) -> None:
        """A line that cannot be used."""
        self.why = self.why or why
        self.unusable.add(line)

    def torn_line(self, line: int, why: str) -> None:
        """A line that a quote tears, or a line after it."""
        self.fault = self.fault or why
        self.torn.add(line)

    def spans_rows(self, first: int, last: int) -> None:
        """A cell that spans lines which look like rows."""
        if len(self.spans) < _NAMED:
            self.spans.append((first, last))

    def warnings(self) -> Iterator[str]:
        """What a person should check, with the line numbers."""
        if self.sheets:
            yield self.sheets
        if self.headers.count:
            yield f"{_lines(self.headers, 'equals the header and is', 'equal the header and are')} skipped"
        if self.behind_another.count:
            where = _lines(self.behind_another, "comes", "come")
            yield f"{where} after the header of another list and cannot be used: move that list into its own file"
        if self.spans:
            where = ", ".join(f"{first} to {last}" for first, last in self.spans)
            yield f"a cell spans lines that look like rows (lines {where}): check whether a quote is missing there"
        if self.torn.count:
            yield f"{_lines(self.torn, 'is', 'are')} torn by a quote: close or remove the quote (failures.csv says where)"
        if self.unusable.count:
            several = f"{_lines(self.unusable, '', 'cannot be used')}: " if self.unusable.count > 1 else ""
            yield several + self.why
        if self.formulas.count:
            skipped = _lines(self.formulas, "holds only formulas and is", "hold only formulas and are")
            yield f"{skipped} skipped: none of them has a value"
        if self.emptied.count:
            treated = _lines(self.emptied, "is treated as an agency", "are treated as agencies")
            yield f"{treated}: the location id is a word such as null or nan"
        if self.agencies.count and not (self.locations or self.emptied.count):
            treated = _lines(self.agencies, "is treated as an agency", "are treated as agencies")
            yield f"no line has a location id: {treated}"
        yield from self.locations.warnings()
        yield from self.companies.warnings()


def _lines(seen: Seen, one: str, many: str) -> str:
    named = ", ".join(map(str, seen.lines)) + (", ..." if seen.count > len(seen.lines) else "")
    return f"line {named} {one}" if seen.count == 1 else f"{seen.count:,} lines ({named}) {many}"
