"""New pairs handed over to the app's own store: at least once, and only the newest pair of an install.

A courier takes waiting pairs from the ledger, hands them to the target, and writes each answer down before anything
else happens to that install. A store that is slow or down costs a run nothing: the courier works beside the run, and
rests if it must.
"""

from __future__ import annotations

__all__ = ["courier", "opening", "pair", "verdict"]
