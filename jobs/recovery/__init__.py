"""Tries installs: which one goes next, by which route, how often, and when going on makes no sense.

An install is handed out only after the outcomes before it are on disk. A pair in hand is never dropped, whatever ends the run.
"""

from __future__ import annotations

__all__ = ["agency_tokens", "attempt", "coverage", "equipment", "inquiry", "runner", "stop"]
