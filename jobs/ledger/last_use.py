"""Which ledger of a database a command is about, and where it was used before."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LastUse:
    """A ledger by its name and place, when it was last used (UTC, ISO 8601), and on which machine. Both are empty if never."""

    ledger: str
    used_at: str = ""
    used_by: str = ""

    def __str__(self) -> str:
        """One line for a person."""
        when = f"was last used on {self.used_by} at {self.used_at}" if self.used_at else "was not used before"
        return f"{self.ledger}, {when}"
