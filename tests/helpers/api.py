"""The client of the API as tests make one, and the gate that its requests leave by."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from jobs.core.model import App, Install, InstallKey, Level
from jobs.core.secret import Secret
from jobs.highlevel.api import CallFailed, HighLevel, Limits
from jobs.highlevel.transport import Transport

APP = App("client-1", Secret("s3cret/value+x"), redirect_uri="https://me.example/cb")
LOCATION = Install(InstallKey("client-1", Level.SUB_ACCOUNT, "LocA"), "CoA")
AGENCY = Install(InstallKey("client-1", Level.AGENCY, "CoA"), "CoA")
GOOD = {
    "access_token": "access.jwt", "refresh_token": "refresh.jwt", "token_type": "Bearer", "expires_in": 86399,
    "scope": "a b", "userType": "Location", "locationId": "LocA", "companyId": "CoA", "userId": "u", "new": [1],
}  # fmt: skip
DATE = {"Date": "Tue, 24 Nov 2026 10:00:00 GMT"}


class Gate:
    """Lets everything out, and remembers what happened in which order. `ask` is called where a request takes its turn."""

    def __init__(self, ask=lambda: None):
        self.did, self.urgent, self.observed, self.ask = [], [], [], ask

    def enter(self, *, urgent, resource):
        self.did.append("turn")
        self.urgent.append(urgent)
        self.ask()
        return len(self.did)

    def withdraw(self, number):
        self.did.append("withdrawn")

    def observe(self, number, status, retry_after, headers):
        assert retry_after is None or retry_after >= 0
        self.did.append(status)
        self.observed.append((status, retry_after))


def refused(call, *arguments):
    """What a call that fails was answered."""
    with pytest.raises(CallFailed) as failed:
        call(*arguments)
    return failed.value.answer


def client(url, gate=None, *, seconds=10.0, environment=None, clock=time.monotonic, now=None, transport=None):
    """The API at `url`, each answer within so many seconds; over a real transport where no other is given."""
    limits = Limits(5, seconds, seconds, 100_000)
    return HighLevel(
        base_url=url, transport=transport or Transport(url, limits, environment or {}), gate=gate or Gate(),
        clock=clock, now=now or (lambda: datetime.now(UTC)), user_agent="highlevel-recovery/0.1.0",
    )  # fmt: skip


def over(net, gate=None, clock=time.monotonic):
    """The API over a transport that answers at once (see `transport`), at the time of `DATE`."""
    return client(
        "https://hl.test", gate, clock=clock, now=lambda: datetime(2026, 11, 24, 10, tzinfo=UTC), transport=net
    )
