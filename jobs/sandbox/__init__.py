"""A local HighLevel over real HTTP, to rehearse with and to test against.

It imports nothing from the job, so that it cannot share the job's mistakes.
"""

from __future__ import annotations

__all__ = ["command"]
