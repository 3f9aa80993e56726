"""The truth on disk: every install, its state, its newest pair, and which refresh tokens were spent.

A write is synced when it returns. No recorded pair is ever lost, and no token counts as unused once it may have been sent.
"""

from __future__ import annotations

__all__ = [
    "changes",
    "counts",
    "deliveries",
    "failed_set",
    "ledger",
    "moved_folder",
    "opening",
    "purging",
    "reads",
    "refresh_log",
    "sqlite",
    "support_queries",
    "tables",
]
