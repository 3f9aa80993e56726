"""From records to the files that a run leaves: `results.csv`, `failures.csv`, `failures.html`, `summary.json`.

Reports take values, never the ledger itself, and what they show of a cell is safe in a spreadsheet and in a page.
"""

from __future__ import annotations

__all__ = ["earlier", "files", "messages", "page", "summary"]
