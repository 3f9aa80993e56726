"""What is written of an outcome when its pair cannot be sealed."""

from __future__ import annotations

import pyrage
import pytest
from sqlalchemy import text

from jobs.core.model import Install, InstallKey, Level, Recovered, Route
from jobs.ledger.refusals import Wait
from jobs.recovery.recorder import Recorder
from jobs.recovery.stop import Stop
from jobs.sealing.sealer import Sealer
from jobs.system.lock_holders import Patience
from tests.helpers.deliveries import tokens_of
from tests.helpers.made import CLIENT_ID, as_place, enrol, opened, place


class Refusing(Sealer):
    """Does not seal the pair of this install."""

    refused = f"Loc{1:017}"

    def seal(self, key, tokens, issued_at):
        if key.account_id == self.refused:
            raise RuntimeError("no random bytes")
        return super().seal(key, tokens, issued_at)


@pytest.fixture
def said():
    return []


@pytest.fixture
def recorder(tmp_path, said):
    """One on a ledger of three installs. `said` is what it says, and that it lets nothing out any more."""
    ledger = opened(as_place(tmp_path))
    enrol(ledger, map(place, range(3)), (), "2026-11-26T01:00:00.000Z")
    ledger.wait = Wait(Patience(0.3, 0, said.append))
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    sealer = Refusing([recipient], "https://api.example.test")
    yield Recorder(ledger, Stop(lambda: 0.0), lambda: None, lambda: said.append("nothing out"), sealer=sealer)
    ledger.close()


def new_pair(number):
    install = Install(InstallKey(CLIENT_ID, Level.SUB_ACCOUNT, f"Loc{number:017}"), "")
    return install, Recovered(tokens_of(number), Route.RECONNECT, 1, "2026-11-26T02:00:00.000Z")


def test_a_pair_that_cannot_be_sealed_is_named_and_never_written_and_the_others_are_kept(recorder, said, tmp_path):
    pairs = [new_pair(number) for number in range(3)]
    with pytest.raises(RuntimeError):
        recorder.write(pairs)
    assert said == ["nothing out"]
    recorder.close()
    query = text("select tokens like '%BEGIN AGE%' from installs order by account_id")
    assert recorder.ledger.ask(lambda one: one.scalars(query).all()) == [1, None, 1]
    lost = "could not be sealed (no random bytes), so it was not written: it is lost, and the next run tries this install again"
    assert said[-1] == f"the new pair of {Refusing.refused} {lost}"
    assert b"refresh+" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
