"""What the job sends to anybody except HighLevel: so far, the message that says how a run ended.

Nothing here can make a run fail, and no secret or id is sent.
"""

from __future__ import annotations

__all__ = ["notify"]
