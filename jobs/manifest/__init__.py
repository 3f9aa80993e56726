"""The list of installs, read line by line. Each line becomes a row or a broken line with the reason, and none is lost.

`layout` decides once which column is which. `redaction` puts stars in place of anything that may be a secret.
"""

from __future__ import annotations

__all__ = ["distinct", "layout", "piped", "reader", "redaction", "warnings"]
