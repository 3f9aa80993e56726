"""What is measured of each contender; a scenario gives one row of figures for one round."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import measure
from tests.bench.contenders import Load
from tests.bench.stand_in import Play

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.contenders import Contender

Figures = dict[str, float]
_FLAT_OUT = 100_000.0


@dataclass(frozen=True)
class Sizes:
    """How many installs each scenario has."""

    flat_out: int
    paced: int
    faults: int
    kill: int


QUICK, SLOW = Sizes(3_000, 400, 100, 200), Sizes(20, 10, 30, 40)


def sizes_for(contender: Contender) -> Sizes:
    """A shell starts five programs an install, and may do one after another: it gets fewer of them."""
    return SLOW if "curl" in contender.needs else QUICK


def flat_out(contender: Contender, folder: Path, sizes: Sizes, seed: int) -> Figures:
    """No pace in effect, 16 workers, 20 ms: what an install costs."""
    load = Load(_FLAT_OUT, 16)
    with measure.stand_in(Play(seed=seed)) as url:
        used = measure.run(contender, url, measure.manifest(folder, sizes.flat_out), folder, load)
        told = measure.seen(url)
    back = len(contender.pairs(folder))
    return {
        "installs a second": back / (told.at[-1] - told.at[0]),
        "CPU ms an install": used.cpu / back * 1000,
        "peak MB": used.peak,
    }


def paced(contender: Contender, folder: Path, sizes: Sizes, seed: int) -> Figures:
    """50 requests a second allowed, answers after 200 ms: how much of the pace is used, and whether it is passed."""
    load = Load(50, 16)
    with measure.stand_in(Play(latency=0.2, seed=seed)) as url:
        used = measure.run(contender, url, measure.manifest(folder, sizes.paced), folder, load)
        told = measure.seen(url)
    return {
        "paced: wall ms an install": used.wall / sizes.paced * 1000,
        "use of the pace %": 100 * (len(told.at) - 1) / (told.at[-1] - told.at[0]) / load.rate,
        "most in a second": measure.window(told.at, 1.0),
    }


def faults(contender: Contender, folder: Path, sizes: Sizes, seed: int) -> Figures:
    """500s, lost answers, 429s, and a limit, at the documented pace: how many come back in the first run, and when."""
    load = Load(10, 16)
    play = Play(errors=0.05, drops=0.03, refusals=0.03, limit=100, window=2.0, seed=seed)
    with measure.stand_in(play) as url:
        used = measure.run(contender, url, measure.manifest(folder, sizes.faults), folder, load)
        told = measure.seen(url)
    return {
        "back under faults %": 100 * len(contender.pairs(folder)) / sizes.faults,
        "faults: wall ms an install": used.wall / sizes.faults * 1000,
        "faults: requests an install": len(told.at) / sizes.faults,
    }


def kill(contender: Contender, folder: Path, sizes: Sizes, seed: int) -> Figures:
    """kill -9 halfway, then the same command again: what is lost, and what is done twice."""
    load = Load(200, 16)
    with measure.stand_in(Play(seed=seed)) as url:
        installs = measure.manifest(folder, sizes.kill)
        measure.killed(contender, url, installs, folder, load, after=sizes.kill // 2)
        measure.run(contender, url, installs, folder, load)
        told = measure.seen(url)
    return {
        "done twice after a kill %": 100 * measure.twice(told) / sizes.kill,
        "lost after a kill %": 100 * measure.lost(contender.pairs(folder), told) / sizes.kill,
    }


SCENARIOS = (flat_out, paced, faults, kill)


def play_all(contender: Contender, sizes: Sizes, seed: int) -> Iterator[tuple[str, Figures]]:
    """One round of every scenario, each in a folder of its own."""
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            yield scenario.__name__, scenario(contender, Path(folder), sizes, seed)
