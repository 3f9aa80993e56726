"""When the next request may leave. One gate lets them out evenly, within the limits that the server has told or shown.

It knows times, statuses and headers, and nothing of installs, tokens or the job. Nothing leaves during a hold.
"""

from __future__ import annotations

__all__ = ["gate"]
