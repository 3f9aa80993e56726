"""A CSV as a list: its encoding, its separator, its header, and the records after it."""

from __future__ import annotations

import codecs
import csv
import io
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from jobs.core.errors import refuse
from jobs.core.ids import as_seen
from jobs.manifest.csv_records import records

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from typing import TextIO

    from jobs.manifest.csv_records import Record
    from jobs.manifest.source import Source

SEPARATORS = ",;\t"
_LONGEST_HEADER = 1_048_576
UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
"""The encoding of what comes after each byte order mark."""
_UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
# Which of the first four bytes are 0 if they are two letters in UTF-16.
_LETTERS_IN_UTF16 = ([False, True, False, True], [True, False, True, False])
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A CSV that is a list. Its separator is the one with which the header names an id, and has the most columns."""

    source: Source
    separator: str
    header: tuple[str, ...]

    def records(self, _roles: Collection[int] = ()) -> Iterator[Record]:
        """Every record after the header. All cells are text, also those of ids. Raises UserError if the rest of the file is not text."""
        try:
            with _opened(self.source) as file:
                found = records(file, self.separator)
                _header_of(found)
                yield from found
        except UnicodeDecodeError:
            _refuse_undecodable(self.source)

    def line(self, number: int) -> int:
        """The number of a line."""
        return number


def open_csv(source: Source, names_an_id: Callable[[Sequence[str]], bool]) -> CsvFile:
    """The list in a CSV. Its header is empty if the file is. Raises UserError if it is not a CSV."""
    csv.field_size_limit(sys.maxsize)
    found = [(header, separator) for separator in SEPARATORS if (header := _header(source, separator)) is not None]
    if not found:
        raise refuse("has a first line that is not valid CSV", str(source.path), "fix its quotes")
    header, separator = max(found, key=lambda one: (names_an_id(one[0]), len(one[0])))
    return CsvFile(source, separator, tuple(header))


def _header(source: Source, separator: str) -> list[str] | None:
    """The first line that is not blank, cut at `separator`. None if its quotes show that this separator is wrong."""
    try:
        with _opened(source) as file:
            if len(file.readline(_LONGEST_HEADER)) >= _LONGEST_HEADER:
                raise refuse("has a first line that never ends", str(source.path), "check that it is a CSV")
            file.seek(0)
            return _header_of(records(file, separator))
    except UnicodeDecodeError:
        _refuse_undecodable(source)


def _header_of(found: Iterator[Record]) -> list[str] | None:
    """The first record of `found` that is not blank, which is taken from it. None if it is torn, [] if there is none."""
    for record in found:
        if record.torn:
            return None
        if any(map(as_seen, record.cells)) and not _names_separator(record.cells):
            return record.cells
    return []


def _names_separator(cells: Sequence[str]) -> bool:
    """Whether it is Excel's own first line, `sep=;`."""
    return "".join(cells).strip().casefold() in {"sep=", "sep=,", "sep=;", "sep=\t"} or [*cells] == ["sep=", ""]


def _opened(source: Source) -> TextIO:
    return io.TextIOWrapper(source.open(), encoding=_encoding(source.begins(), str(source.path)), newline="")


def _encoding(begins: bytes, where: str) -> str:
    """The encoding of a list that begins with these four bytes. Raises UserError if it is not a CSV."""
    if begins.startswith(_UTF32):
        raise refuse("is UTF-32", where, "save it as CSV UTF-8")
    if [byte == 0 for byte in begins] in _LETTERS_IN_UTF16:
        raise refuse("is UTF-16 without a byte order mark", where, "save it as CSV UTF-8")
    return "utf-16" if begins.startswith(tuple(UTF16)) else "utf-8-sig"


def _refuse_undecodable(source: Source) -> NoReturn:
    """Refuse a list that is not all text in its encoding, with the first line at fault."""
    line, where = 1, str(source.path)
    encoding = _encoding(source.begins(), where)
    with source.open() as raw:
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            while chunk := raw.read(_CHUNK_BYTES):
                line += decoder.decode(chunk).count("\n")
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            line += error.object[: error.start].decode(error.encoding).count("\n")
    name = encoding.removesuffix("-sig").upper()
    raise refuse(f"is not {name} (line {line})", where, "save it as CSV UTF-8") from None
