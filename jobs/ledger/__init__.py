"""The truth, on disk or in PostgreSQL: every install, its state, its newest pair, and which refresh tokens were spent.

A write is synced when it returns. No recorded pair is ever lost, and no token counts as unused once it may have been sent.
"""

from __future__ import annotations

__all__ = [
    "changes",
    "copying",
    "counts",
    "deliveries",
    "engines",
    "enrolment",
    "failed_set",
    "last_use",
    "lease",
    "leasing",
    "ledger",
    "moved_folder",
    "moves",
    "opening",
    "pair_pages",
    "place",
    "purging",
    "reads",
    "refresh_log",
    "refusals",
    "scratch",
    "scrubbing",
    "sealed",
    "support_queries",
    "tables",
    "unwritten",
]
