"""What answers say about the server's limits, however they say it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.pace.server_limits import Said, read_limits

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
WINDOW = {
    "x-ratelimit-max": "100", "x-ratelimit-remaining": "42", "x-ratelimit-interval-milliseconds": "10000",
}  # fmt: skip


def test_the_window_and_the_day_are_read():
    day = {"x-ratelimit-daily-remaining": "199000", "x-ratelimit-daily-reset": "3600"}
    assert read_limits(WINDOW | day, NOW) == Said(100, 42, 10.0, 199_000, NOW + timedelta(hours=1))
    assert read_limits(WINDOW, NOW) == Said(100, 42, 10.0)
    assert read_limits({"content-type": "text/html"}, NOW) is None


@pytest.mark.parametrize("name", sorted(WINDOW))
@pytest.mark.parametrize("value", ["", "many", "-1", "nan", "inf", "1e30"])
def test_what_cannot_be_read_says_nothing(name, value):
    assert read_limits(WINDOW | {name: value}, NOW) is None


@pytest.mark.parametrize("text", [
    "7200", "7200000", "1795528800", "1795528800000", "2026-11-24T14:00:00Z", "2026-11-24T15:00:00+01:00",
    "Tue, 24 Nov 2026 14:00:00 GMT",
])  # fmt: skip
def test_the_next_day_is_understood_in_every_likely_unit(text):
    said = read_limits({"x-ratelimit-daily-remaining": "0", "x-ratelimit-daily-reset": text}, NOW)
    assert said is not None
    assert said.next_day == NOW + timedelta(hours=2)


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "1e300", "-5", "1000000000", "2031-01-01T00:00:00Z"])
def test_a_next_day_that_is_past_far_off_or_unreadable_is_ignored(text):
    said = read_limits({"x-ratelimit-daily-remaining": "0", "x-ratelimit-daily-reset": text}, NOW)
    assert said is not None
    assert said.next_day is None


@given(st.dictionaries(st.sampled_from([*WINDOW, "x-ratelimit-daily-remaining", "x-ratelimit-daily-reset"]), st.text()))
def test_no_header_breaks_the_run(headers):
    read_limits(headers, NOW)
