"""Notes that a person should hear while a run goes on."""

from __future__ import annotations


class Notes:
    """The notes that nobody has taken yet, in order."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._told: set[tuple[str, ...]] = set()

    def add(self, words: str) -> None:
        """Add a note."""
        self._waiting.append(words)

    def add_once(self, about: tuple[str, ...], words: str) -> None:
        """Add a note, unless there was an earlier one about the same thing."""
        if about not in self._told:
            self._told.add(about)
            self.add(words)

    def take(self) -> tuple[str, ...]:
        """The notes that were added since the last call."""
        taken = tuple(self._waiting)
        self._waiting.clear()
        return taken
