"""What a person or a program sees of a command: its start, what happens, its end.

No writer here waits for a reader that does not read, and no secret passes: the streams scrub what they are given.
"""

from __future__ import annotations

__all__ = ["checks", "header", "live", "streams", "terminal"]
