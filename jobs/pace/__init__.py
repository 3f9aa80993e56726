"""When the next request may leave. One gate lets requests out evenly, within the limits that the server tells or shows.

It knows times, statuses and headers, but no installs, no tokens and nothing else of the job. No request leaves during a hold.
"""

from __future__ import annotations

__all__ = ["gate", "usage"]
