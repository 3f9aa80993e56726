"""The benchmark's parts work; what it measures is not tested here."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET

import pandas as pd
import pytest

from tests.bench.__main__ import as_markdown, medians
from tests.bench.contenders import CONTENDERS, ONE_HOUR, OURS, PROJECT
from tests.bench.measure import Seen, lost, twice, window
from tests.bench.picture import draw
from tests.bench.scenarios import Sizes, faults, flat_out, kill
from tests.bench.sealing import OPEN, SEALED, play_sealing
from tests.bench.stand_in import ACCESS_CHARACTERS
from tests.bench.workbook import CPU, PANDAS, PEAK, play_workbook

TINY = Sizes(flat_out=4, paced=2, faults=4, kill=6)


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_every_contender_brings_the_installs_back(contender, tmp_path):
    if missing := contender.missing():
        pytest.skip(f"{missing} is not installed")
    figures = flat_out(contender, tmp_path, TINY, seed=1)
    assert len(contender.pairs(tmp_path)) == TINY.flat_out
    assert figures["CPU ms an install"] > 0


def test_a_run_that_is_killed_goes_on_and_a_run_under_faults_ends(tmp_path):
    ours = CONTENDERS[0]
    for name in ("killed", "faulty"):
        (tmp_path / name).mkdir()
    assert kill(ours, tmp_path / "killed", TINY, seed=1)["lost after a kill %"] == 0
    assert faults(ours, tmp_path / "faulty", TINY, seed=1)["back under faults %"] == 100


def test_open_and_sealed_pairs_are_measured_beside_each_other():
    figures = dict(play_sealing(seed=1, sizes=TINY))
    assert list(figures) == [OPEN, SEALED]
    assert figures[SEALED]["results.csv: KB an install"] > figures[OPEN]["results.csv: KB an install"] > 2


def test_the_workbook_is_measured_beside_one_by_pandas():
    figures = dict(play_workbook(failures=20))
    assert list(figures) == [OURS, PANDAS]
    assert list(figures[OURS]) == [CPU, PEAK]
    assert min(*figures[PANDAS].values(), figures[OURS][PEAK]) > 0


def test_what_starts_the_contenders_holds_little_because_they_count_it_as_their_own():
    code = "import sys, tests.bench.__main__, tests.bench.scale; print({'jobs', 'pandas', 'pytest', 'sqlalchemy'} & {*sys.modules})"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, check=True).stdout == b"set()\n"
    )


def test_what_is_lost_and_done_twice_is_told_by_the_newest_pair():
    told = Seen([], 0, {"A": ["a1"], "B": ["b1", "b2"], "C": ["c1"]})

    def token(mark):
        return mark.ljust(ACCESS_CHARACTERS, "a")

    assert twice(told) == 1
    assert lost({"A": token("a1"), "B": token("b2"), "C": token("c1")}, told) == 0
    assert lost({"A": token("a1"), "B": token("b1")}, told) == 2
    assert lost({"A": "a1 torn", "B": token("b2"), "C": token("c1")}, told) == 1


def test_a_window_counts_the_densest_stretch():
    assert window([0.0, 0.4, 0.9, 1.05, 1.1, 3.0], 1.0) == 4


def test_the_table_and_the_picture_show_medians_and_ratios():
    rows = [{"contender": OURS, "CPU ms an install": value, "installs a second": 300.0} for value in (1.0, 9.0, 2.0)]
    rows += [{"contender": ONE_HOUR, "CPU ms an install": 4.0, "installs a second": 200.0}]
    table = medians(pd.DataFrame(rows), [OURS, ONE_HOUR])
    assert "| CPU: ratio | 0.5 | 1 |" in as_markdown(table)
    assert "| installs a second: ratio | 1.5 | 1 |" in as_markdown(table)
    assert PEAK not in as_markdown(table)
    beside = medians(
        pd.DataFrame([{"contender": OURS, PEAK: 50.0}, {"contender": PANDAS, PEAK: 100.0}]), [OURS, PANDAS], PANDAS
    )
    assert f"| {PEAK}: ratio | 0.5 | 1 |" in as_markdown(beside)
    svg = ET.fromstring(draw(table, {"CPU ms an install": "CPU & time"}, OURS))
    assert "CPU & time" in "".join(svg.itertext())
