"""Numbers of things in words."""

from __future__ import annotations


def counted(count: int, one: str, many: str) -> str:
    """The number with the word for so many: `1 line`, `2,000 lines`."""
    return f"{count:,} {one if count == 1 else many}"
