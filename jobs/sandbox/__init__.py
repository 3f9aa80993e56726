"""A local HighLevel over real HTTP, to rehearse with and to test against.

It imports nothing of the job, so that it cannot share its mistakes.
"""

from __future__ import annotations

__all__ = ["command"]
