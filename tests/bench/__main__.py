"""`make bench`: this job beside what people would use instead, against a stand-in API, in one run.

The medians of some rounds as a table, their ratios to the one-hour script, and a picture of both; then the same for this
job with its ledger in a file and in PostgreSQL, with open and with sealed pairs, and for failures.xlsx beside one by
pandas. Other work on the machine moves the figures, but those of one run together: the ratios are what to compare.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.contenders import CONTENDERS, ONE_HOUR, OURS, PROJECT
from tests.bench.databases import IN_DATABASE, IN_FILE, play_databases
from tests.bench.measure import in_use
from tests.bench.picture import draw
from tests.bench.scenarios import play_all, sizes_for
from tests.bench.sealing import OPEN, SEALED, play_sealing
from tests.bench.workbook import CPU, PANDAS, PEAK, play_workbook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

    from tests.bench.scenarios import Figures

PICTURE = PROJECT / ".github" / "bench.svg"
_RATIOS = {
    "CPU ms an install": "CPU: ratio",
    "installs a second": "installs a second: ratio",
    CPU: f"{CPU}: ratio",
    PEAK: f"{PEAK}: ratio",
}
_DRAWN = {
    "CPU ms an install": "CPU time for an install, ms (flat out, 16 workers)",
    "use of the pace %": "Use of the allowed pace, % (50 requests a second, answers after 200 ms)",
    "back under faults %": "Back in the first run under faults, %",
    "done twice after a kill %": "Done twice after kill -9 halfway and a second start, %",
}


def main() -> int:
    """Measure, and show."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    there = [contender for contender in CONTENDERS if not contender.missing()]
    for contender in CONTENDERS:
        if missing := contender.missing():
            say(f"{contender.name} is skipped: {', '.join(missing)} is not installed")
    workbooks = [
        *_rounds(lambda _: play_workbook(), options.rounds)
    ]  # First: what comes later makes this process larger.
    rows: list[dict[str, object]] = []
    for number in range(1, options.rounds + 1):
        for contender in there:
            for scenario, figures in play_all(contender, sizes_for(contender), seed=number):
                say(f"round {number}, {contender.name}, {scenario}: {told(figures)}")
                rows.append({"contender": contender.name, **figures})
    engines = [*_rounds(play_databases, options.rounds)]
    sealing = [*_rounds(play_sealing, options.rounds)]
    # Not before: a process that is started counts what its starter holds into its own peak.
    import pandas as pd

    table = medians(pd.DataFrame(rows), [contender.name for contender in there])
    sys.stdout.write(as_markdown(table) + "\n")
    if engines:
        beside = medians(pd.DataFrame(engines), [IN_FILE, IN_DATABASE], IN_FILE)
        sys.stdout.write(f"\n{as_markdown(beside)}\n")
    sys.stdout.write(f"\n{as_markdown(medians(pd.DataFrame(sealing), [OPEN, SEALED], OPEN))}\n")
    sys.stdout.write(f"\n{as_markdown(medians(pd.DataFrame(workbooks), [OURS, PANDAS], PANDAS))}\n")
    options.picture.parent.mkdir(exist_ok=True)
    options.picture.write_text(draw(table, _DRAWN, OURS), encoding="utf-8")
    return 0


def _rounds(play: Callable[[int], Iterator[tuple[str, Figures]]], rounds: int) -> Iterator[dict[str, object]]:
    """The figures of each round of this job with something, and without it."""
    for number in range(1, rounds + 1):
        for name, figures in play(number):
            say(f"round {number}, {name}: {told(figures)}")
            yield {"contender": name, **figures}


def medians(rows: pd.DataFrame, order: list[str], to: str = ONE_HOUR) -> pd.DataFrame:
    """The median of each figure for each contender, and the ratios to one of them where it is there."""
    table = rows.groupby("contender").median().reindex(order)
    if to in table.index:
        for column, ratio in ((column, ratio) for column, ratio in _RATIOS.items() if column in table):
            table[ratio] = table[column] / table.loc[to, column]
    return table


def as_markdown(table: pd.DataFrame) -> str:
    """A row for each figure, a column for each contender."""
    names = list(table.index)
    lines = [f"| median | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    lines += [f"| {figure} | {' | '.join(f'{value:,.3g}' for value in table[figure])} |" for figure in table.columns]
    return "\n".join(lines)


def told(figures: dict[str, float]) -> str:
    """The figures on one line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def say(line: str) -> None:
    """How far it is, on standard error."""
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(in_use() or main())
