"""On which cores a run goes: its threads on one, all else where it was allowed to."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from jobs.cores import one_core

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cores can be chosen on Linux alone")


def test_threads_that_are_started_meanwhile_share_one_core_and_what_comes_after_has_all_of_them():
    allowed, seen = os.sched_getaffinity(0), []
    with one_core():
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
        assert seen == [os.sched_getaffinity(0)]
        assert len(seen[0]) == 1
        assert seen[0] <= allowed
    assert os.sched_getaffinity(0) == allowed


def test_where_the_system_forbids_it_nothing_is_done(monkeypatch):
    def forbidden(*_):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    with one_core():
        assert os.sched_getaffinity(0)
