"""How often an install is tried, and after which waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.core.model import Answer, Cause, Stage, Tokens
from jobs.core.secret import Secret
from jobs.recovery.attempt import RetryPolicy

DOWN = Answer(Stage.RECONNECT, 503)
MISSING = Answer(Stage.RECONNECT, 400, "Location not found")
PAIR = Tokens(Secret("a"), Secret("r"), "", "", "", "Location", "", "", "LocA", "")


def waits(retry_policy, tried=DOWN):
    found = []
    while (wait := retry_policy.wait_after(len(found) + 1, tried)) is not None:
        found.append(wait)
    return found


@given(st.integers(1, 20), st.floats(0, 10), st.floats(0, 100))
def test_the_tries_are_bounded_and_each_wait_is_between_the_two_waits(attempts, low, high):
    found = waits(RetryPolicy(attempts, low, high))
    assert len(found) == attempts - 1
    assert all(min(low, high) <= wait <= high + 1e-9 for wait in found)


def test_the_window_doubles_from_the_least_wait_to_the_most_and_the_whole_of_it_is_used():
    retry_policy = RetryPolicy(5, 1, 10)
    drawn = list(zip(*(waits(retry_policy) for _ in range(400)), strict=True))
    for found, most in zip(drawn, (2, 4, 8, 10), strict=True):
        assert 1 <= min(found) < 1 + 0.2 * (most - 1)
        assert most - 0.2 * (most - 1) < max(found) <= most


@pytest.mark.parametrize("tried", [MISSING, PAIR, None, Answer(Stage.EXCHANGE, 200, cause=Cause.WRONG_ACCOUNT)])
def test_what_another_try_cannot_help_is_not_tried_again(tried):
    assert waits(RetryPolicy(5, 1, 10), tried) == []


def test_without_a_retry_after_everybody_is_held_for_longer_and_longer_and_never_past_the_most():
    retry_policy = RetryPolicy(5, 1, 10)
    for refusals, most in ((1, 2), (2, 4), (3, 8), (4, 10), (400, 10)):
        found = [retry_policy.backoff(refusals) for _ in range(100)]
        assert 1 <= min(found) <= max(found) <= most
