"""What tries are made with sends nothing without the leases of the run."""

from __future__ import annotations

import json
import time
from contextlib import closing

import pytest

from jobs.config.apps import Apps
from jobs.config.settings import Settings
from jobs.core.errors import Exit, Problem
from jobs.pace.controller import Resource
from jobs.pace.gate import Stopped
from jobs.recovery.equipment import Equipment
from jobs.recovery.stop import Stop
from jobs.start import Basis
from tests.helpers.bad_server import FINE, serving
from tests.helpers.calls import APP, CALLS, INSTALL


class Held:
    """Leases that are held as long as `held` says so."""

    def __init__(self):
        self.held = lambda: True
        self.lost = False
        self.problem = lambda: None
        self.used_before = self.used = dict

    def hold(self):
        return self.held()


@pytest.fixture
def leases():
    return Held()


@pytest.fixture
def stop():
    return Stop(time.monotonic)


@pytest.fixture
def server():
    with serving(lambda *_: (FINE, json.dumps(CALLS["reconnect"].good).encode())) as made:
        yield made


@pytest.fixture
def equipment(server, stop, leases):
    with closing(Equipment(Basis(Settings(), Apps(), server.url, {}), stop, leases)) as made:
        yield made


def test_a_lease_that_is_over_once_a_request_has_its_turn_keeps_it_from_the_wire(equipment, server, leases):
    at_the_wire = iter([False])
    leases.held = lambda: not equipment.gate.requests or next(at_the_wire, True)
    equipment.api.reconnect(APP, INSTALL)
    assert next(at_the_wire, "asked") == "asked"
    assert len(server.requests) == equipment.gate.requests == 1


def test_not_even_a_code_in_hand_is_sent_once_the_lease_is_lost(equipment, stop, leases):
    leases.lost, leases.problem = True, lambda: Problem("is lost", "the lease", "look at it")
    leases.looked_after()
    assert (stop.because, stop.code) == ("lease_lost", Exit.STOPPED_EARLY)
    with pytest.raises(Stopped):
        equipment.gate.enter(urgent=True, resource=Resource("app"))
