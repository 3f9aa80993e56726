"""The list of installs, read row by row: each line becomes an install, or a broken line with the reason. None is lost.

Which column is which is decided once, in `layout`. What may hold a secret is starred by `redaction` for the eyes of others.
"""

from __future__ import annotations

__all__ = ["layout", "reader", "redaction", "warnings"]
