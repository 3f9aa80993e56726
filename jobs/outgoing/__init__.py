"""What leaves for somebody else than HighLevel: so far the message that says how a run ended.

Nothing here can fail a run, and no secret and no id leaves with it.
"""

from __future__ import annotations

__all__ = ["notify"]
