"""From records to the files that a run leaves: `results.csv`, `failures.csv`, `failures.html`, `failures.xlsx`, `summary.json`.

Reports take values, never the ledger itself. Every cell they show is safe in a spreadsheet and in a browser.
"""

from __future__ import annotations

__all__ = ["affected", "columns", "earlier", "files", "messages", "page", "summary", "tables", "workbook"]
