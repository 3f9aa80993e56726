"""What a run says before its first request."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.start import Plan
from jobs.terminal.header import Opening, header

NOW = datetime(2026, 11, 26, 3, tzinfo=UTC)
AGO = "2026-11-26T02:00:00.000Z"


@pytest.mark.parametrize(
    ("count", "to_do", "left_alone"),
    [
        (
            1,
            (
                "1 of 1 install to try, of 1 app, 1 agency first; 1 belongs to an app without a secret (next: developer); "
                "1 line cannot be used; 1 repeated (line 9)"
            ),
            "1 recovered install is left alone (recovered 1h 0m ago)",
        ),
        (
            2,
            (
                "2 of 2 installs to try, of 2 apps, 2 agencies first; 2 belong to an app without a secret (next: developer); "
                "2 lines cannot be used; 2 repeated (lines 9, 9)"
            ),
            "2 recovered installs are left alone (recovered 1h 0m ago)",
        ),
    ],
)
def test_one_is_told_as_one_and_several_as_several(count, to_do, left_alone):
    plan = Plan(
        3 * count, count, count, [9] * count,
        broken_lines=count, recovered=count, unknown_app=count, agencies_to_do=count, to_do=count,
    )  # fmt: skip
    lines = header(Opening(Path("list.csv"), Path("data/list"), plan, count, count, (AGO, AGO), 10), NOW)
    assert lines[:2] == [to_do, left_alone]


def test_for_whom_new_pairs_are_sealed_is_said_in_a_line_of_its_own():
    plan = Plan(1, 1, 1, [], to_do=1, sealed_for=("SHA256:2HcI21NUOSqOSVbL", "SHA256:eiDMwDXlPo2R8Gig"))
    lines = header(Opening(Path("list.csv"), Path("data/list"), plan, 1, 0, None, 10), NOW)
    assert lines[-2] == "new pairs are sealed for SHA256:2HcI21NUOSqOSVbL and SHA256:eiDMwDXlPo2R8Gig"
