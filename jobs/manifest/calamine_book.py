"""A workbook that calamine has open. Whatever is wrong with it is a UserError."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from jobs.core.errors import refuse
from jobs.manifest.raw_parts import damaged
from jobs.manifest.raw_sheets import measured

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import BinaryIO

    from python_calamine import CalamineSheet, CalamineWorkbook

    from jobs.manifest.raw_sheets import HiddenCell, Kind
    from jobs.manifest.source import Source

_STDERR = 2
_PANIC = re.compile(rb"\n?thread '[^']*' (?:\(\d+\) )?panicked at ")


@dataclass(frozen=True, slots=True)
class Book:
    """A workbook that is open. `hidden` looks up what calamine does not show in these sheets. `stamp` changes when the file does."""

    calamine: CalamineWorkbook
    hidden: Callable[[Collection[int]], Iterator[HiddenCell]]
    stamp: tuple[int, ...]
    where: str

    def sheet(self, place: int) -> CalamineSheet:
        """A sheet, by its place among all."""
        with _without_backtrace(), _one_line(self.where):
            return self.calamine.get_sheet_by_index(place)

    def rows(self, sheet: CalamineSheet) -> Iterator[list[Any]]:
        """The cells of each row of a sheet."""
        rows = sheet.iter_rows()
        while True:
            with _one_line(self.where):
                cells = next(rows, None)
            if cells is None:
                return
            yield cells


@contextmanager
def opened_book(source: Source, kind: Kind) -> Iterator[Book]:
    """The workbook, until the block ends."""
    import pandas as pd  # slow to import, and needed only for a workbook

    where = str(source.path)
    with source.open() as file, measured(file, kind, where) as hidden:
        file.seek(0)
        with _without_backtrace(), _one_line(where):
            opened = pd.ExcelFile(file, engine="calamine")
        with opened:
            yield Book(opened.book, hidden, _stamp(file, source), where)


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    """Turn whatever calamine raises into a UserError."""
    from python_calamine import CalamineError

    try:
        yield
    except OverflowError:
        what = "holds a duration that is longer than two million years"
        raise refuse(what, where, "format the cells of durations as text") from None
    except (CalamineError, OSError, ValueError) as error:
        raise damaged(where) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise damaged(where) from error


@contextmanager
def _without_backtrace() -> Iterator[None]:
    """Leave out what Rust writes to standard error by itself if calamine fails. What others write there comes later."""
    kept = os.dup(_STDERR)
    with TemporaryFile() as held:
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
            held.seek(0)
            if said := _PANIC.split(held.read(), maxsplit=1)[0]:
                with suppress(OSError):
                    os.write(_STDERR, said)


def _stamp(file: BinaryIO, source: Source) -> tuple[int, ...]:
    """What changes when the file does."""
    if source.data is not None:
        return ()
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns
