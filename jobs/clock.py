"""The operator's clock, as the reports write it."""

from __future__ import annotations

from datetime import UTC, datetime


def utc() -> datetime:
    """This moment, UTC."""
    return datetime.now(UTC)


def utc_now() -> str:
    """This moment, UTC, ISO 8601 with milliseconds."""
    return utc().isoformat(timespec="milliseconds").replace("+00:00", "Z")
