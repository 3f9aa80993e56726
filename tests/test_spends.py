"""What the ledger remembers of refresh tokens, so that none is spent twice unseen."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from jobs import schema, spends
from jobs.core.model import Cause, Failed, Fate, Install, InstallKey, Level, Stage
from jobs.core.secret import Secret
from jobs.schema import spends as table

INSTALL = Install(InstallKey("app", Level.SUB_ACCOUNT, "LocA"), "", Secret("the-old-token"))


@pytest.fixture
def ledger():
    engine = schema.open_memory()
    schema.metadata.create_all(engine)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def settled(ledger, fate):
    failed = Failed(Cause.SERVER_ERROR, Stage.REFRESH, "", 0, "", 1, "", fate=fate)
    spends.settle(ledger, [(INSTALL, failed)])
    return ledger.execute(select(table.c.state)).scalars().all()


def doubtful(ledger, *, force=False):
    (found,) = spends.with_old(ledger, [INSTALL], [INSTALL.old], force=force)
    return found.doubtful


@pytest.mark.parametrize(
    ("fate", "states"), [(Fate.UNTOUCHED, []), (Fate.SPENT, ["spent"]), (Fate.UNKNOWN, ["unknown"])]
)
def test_a_token_is_doubtful_from_before_it_is_sent_until_it_is_known_to_be_as_it_was(ledger, fate, states):
    assert not doubtful(ledger)
    spends.intend(ledger, INSTALL, "t")
    assert doubtful(ledger)
    assert not doubtful(ledger, force=True)
    assert settled(ledger, fate) == states
    assert doubtful(ledger) is bool(states)


def test_a_doubtful_token_that_is_sent_by_force_and_never_left_stays_doubtful(ledger):
    spends.intend(ledger, INSTALL, "t")
    settled(ledger, Fate.UNKNOWN)
    spends.intend(ledger, INSTALL, "t")
    assert settled(ledger, Fate.UNTOUCHED) == ["unknown"]
    spends.intend(ledger, INSTALL, "t")
    assert settled(ledger, Fate.SPENT) == ["spent"]


def test_what_was_in_flight_when_a_run_was_killed_is_unknown_afterwards(ledger):
    spends.intend(ledger, INSTALL, "t")
    spends.forget_flight(ledger)
    assert settled(ledger, Fate.UNTOUCHED) == ["unknown"]


def test_the_token_itself_is_not_kept(ledger):
    spends.intend(ledger, INSTALL, "t")
    assert "the-old-token" not in str(ledger.execute(select(table)).all())
