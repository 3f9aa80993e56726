"""Bring the OAuth connections of a HighLevel app back, in one batch."""

from __future__ import annotations

__version__ = "0.3.0"
