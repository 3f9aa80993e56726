"""The live line in words, fitted to a width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.core.clock import duration
from jobs.terminal.words import LOWERED, hold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobs.terminal.gauge import Standing

_WIDEST_BAR = 30
_NARROWEST_BAR = 4


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the line, long and short. If there is no room, the part with the highest `leave` is dropped first."""

    long: str
    short: str
    style: str = ""
    leave: int = 0


def fit(standing: Standing, width: int) -> tuple[int, list[tuple[str, str]]]:
    """The bar's width (0: no bar), and the texts of the line with their styles."""
    parts = list(_parts(standing))
    for wide in (True, False):
        texts = [(part.long if wide else part.short, part.style) for part in parts]
        gap = 2 if wide else 1
        room = width - sum(len(text) + gap for text, _ in texts)
        if room >= (2 if wide else 1) * _NARROWEST_BAR:
            return min(room, _WIDEST_BAR), [(" " * gap + text, style) for text, style in texts]
    while len(parts) > 1 and sum(len(part.short) + 1 for part in parts) - 1 > width:
        parts.remove(max(parts, key=lambda part: part.leave))
    return 0, [(f"{' ' if number else ''}{part.short}", part.style) for number, part in enumerate(parts)]


def _parts(standing: Standing) -> Iterable[Part]:
    done, total = f"{standing.done:,}", f"{standing.total:,}"
    yield Part(f"{done} of {total}", f"{done}/{total}", "bold", 1)
    yield Part(f"{standing.recovered:,} recovered", f"{standing.recovered:,} recovered", "green", 2)
    yield Part(f"{standing.failed:,} failed", f"{standing.failed:,} failed", "red" if standing.failed else "", 3)
    yield Part(f"{standing.waiting:,} waiting", f"{standing.waiting:,} waiting", "", 4)
    if standing.delivered is not None:
        yield Part(f"{standing.delivered:,} delivered", f"{standing.delivered:,} delivered", "green", 3)
    rate, limit = f"{standing.rate:.1f}", f"{standing.limit:g}"
    if standing.lowered is None:
        yield Part(f"{rate} of {limit} requests/s", f"{rate}/{limit} req/s", "", 5)
    else:
        why, most = LOWERED[standing.lowered.why][1], f"{standing.lowered.rate:.3g}"
        yield Part(f"{rate} of {limit} requests/s ({why}: {most})", f"{rate}/{limit} req/s ({why})", "yellow", 1)
    words, style = tail(standing)
    yield Part(words, words, style)


def tail(standing: Standing) -> tuple[str, str]:
    """What matters most now, with its style. If nothing special happens, that is the time to go."""
    if standing.stopping:
        return f"stopping gracefully: {standing.in_flight} in flight", "yellow"
    if standing.held_until is not None:
        return hold(standing.held_until, standing.held_status), "yellow"
    if standing.alone:
        return "trying one first", "cyan"
    if standing.to_go is None:
        return "time to go unknown", ""
    return f"{duration(round(standing.to_go))} to go", ""
