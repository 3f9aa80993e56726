"""results.csv, to load into the app, and failures.csv, to act on and to give to the next run."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, BinaryIO

from jobs.core.formula_guard import guard, under
from jobs.reports.columns import FAILURES, RESULTS, RESULTS_OPEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobs.core.model import App, Record


def write_results(file: BinaryIO, columns: Sequence[str], records: Iterable[Record], *, sealed: bool = False) -> None:
    """Write every install with its tokens and then the user's `columns`. Cells are not changed: a program reads them.

    `sealed`: there is a column for sealed pairs.
    """
    ours = RESULTS if sealed else RESULTS_OPEN
    taken = {column.name for column in ours}
    columns = [name for name in columns if name not in taken]  # An older list may have had one of these names.
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow([*(column.name for column in ours), *columns])
    for record in records:
        writer.writerow([*(column.of(record, {}) for column in ours), *own_cells(record, columns)])
    text.detach()


def write_failures(file: BinaryIO, columns: Sequence[str], failures: Iterable[Record], apps: Mapping[str, App]) -> None:
    """Write what was not recovered, without secrets. It has a BOM and harmless cells, because a spreadsheet reads it."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow([*(column.name for column in FAILURES), *map(guard, columns)])
    for record in failures:
        cells = [*(column.of(record, apps) for column in FAILURES), *own_cells(record, columns)]
        writer.writerow([guard(cell) for cell in cells])
    text.detach()


def own_cells(record: Record, columns: Sequence[str]) -> list[str]:
    """The user's cells of a record under `columns`."""
    return under(columns, record.cells)
