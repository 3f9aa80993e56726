"""Waiting for what must happen."""

from __future__ import annotations

import time


def wait_until(condition, seconds=60):
    """Come back when it has happened."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def line_with(words, stream):
    """The next line of a stream that has these words."""
    return next(line for line in iter(stream.readline, "") if words in line)
