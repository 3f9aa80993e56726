"""What a target says about a pair that it was handed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jobs.outgoing.deliver.pair import Pair


@dataclass(frozen=True, slots=True)
class Yes:
    """It is stored."""


@dataclass(frozen=True, slots=True)
class No:
    """This one is refused, and trying again does not help."""

    why: str


@dataclass(frozen=True, slots=True)
class Later:
    """The target could not take it. With `hold`, nothing at all may be sent for so many seconds."""

    why: str
    hold: float | None = None


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing more may be sent in this run."""

    why: str


Verdict = Yes | No | Later | Over


class Target(Protocol):
    """A store that takes one pair at a time, from several threads. `where` is what may be shown of its address."""

    kind: str
    where: str

    def hand_over(self, pair: Pair) -> Verdict:
        """Hand a pair over, once. Raises nothing but bugs."""

    def close(self) -> None:
        """Let go of all connections."""
