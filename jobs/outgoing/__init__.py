"""Everything that leaves for somebody else than HighLevel: the message that says how a run ended, and pairs for the app.

A message holds no secret and no id, and a failed message never fails a run. Pairs go only to the target that the operator
has set, and a target that is slow or down costs no install.
"""

from __future__ import annotations

__all__ = ["deliver", "notify"]
