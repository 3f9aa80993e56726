"""Waiting for what must happen."""

from __future__ import annotations

import time


def wait_until(condition, seconds=60):
    """Come back when it has happened."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
