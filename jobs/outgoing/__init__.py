"""Everything that leaves for somebody else than HighLevel: the message that says how a run ended, the pings for a watcher,
the metrics for a monitor, and pairs for the app.

A message, a ping or a metric holds no secret and no id, and a failed one never fails a run. Pairs go only to the target that
the operator has set, and a target that is slow or down costs no install.
"""

from __future__ import annotations

__all__ = ["deliver", "metrics", "notify", "ping"]
