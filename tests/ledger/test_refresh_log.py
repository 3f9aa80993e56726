"""What the ledger remembers of refresh tokens, so that none is spent twice unseen."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from jobs.core.model import Cause, Failed, Install, InstallKey, Level, RefreshState, Stage
from jobs.core.secret import Secret
from jobs.ledger import refresh_log
from jobs.ledger.engines import Purpose, transaction
from jobs.ledger.tables import spends as table
from tests.helpers.made import opened

INSTALL = Install(InstallKey("app", Level.SUB_ACCOUNT, "LocA"), "", Secret("the-old-token"))


@pytest.fixture
def ledger(home):
    ledger = opened(home)
    with transaction(ledger.engine, Purpose.WRITE) as connection:
        yield connection
    ledger.close()


def settled(ledger, refresh_state):
    failed = Failed(Cause.SERVER_ERROR, Stage.REFRESH, "", 0, "", 1, "", refresh_state=refresh_state)
    refresh_log.settle(ledger, [(INSTALL, failed)])
    return ledger.execute(select(table.c.state)).scalars().all()


def doubtful(ledger, *, force=False):
    (found,) = refresh_log.with_old(ledger, [INSTALL], [INSTALL.old], force=force)
    return found.doubtful


@pytest.mark.parametrize(
    ("refresh_state", "states"),
    [(RefreshState.UNTOUCHED, []), (RefreshState.SPENT, ["spent"]), (RefreshState.UNKNOWN, ["unknown"])],
)
def test_a_token_is_doubtful_from_before_it_is_sent_until_it_is_known_to_be_as_it_was(ledger, refresh_state, states):
    assert not doubtful(ledger)
    refresh_log.intend(ledger, INSTALL, "t")
    assert doubtful(ledger)
    assert not doubtful(ledger, force=True)
    assert settled(ledger, refresh_state) == states
    assert doubtful(ledger) is bool(states)


def test_a_doubtful_token_that_is_sent_by_force_and_never_left_stays_doubtful(ledger):
    refresh_log.intend(ledger, INSTALL, "first")
    settled(ledger, RefreshState.UNKNOWN)
    refresh_log.intend(ledger, INSTALL, "second")
    assert settled(ledger, RefreshState.UNTOUCHED) == ["unknown"]
    refresh_log.intend(ledger, INSTALL, "third")
    assert settled(ledger, RefreshState.SPENT) == ["spent"]


def test_an_intention_that_is_written_twice_is_one(ledger):
    """The answer to the first writing may have been lost. It is not taken for a token that is sent again by force."""
    for _ in range(2):
        refresh_log.intend(ledger, INSTALL, "t")
    assert settled(ledger, RefreshState.UNTOUCHED) == []


def test_what_was_in_flight_when_a_run_was_killed_is_unknown_afterwards(ledger):
    refresh_log.intend(ledger, INSTALL, "t")
    refresh_log.forget_flight(ledger)
    assert settled(ledger, RefreshState.UNTOUCHED) == ["unknown"]


def test_the_token_itself_is_not_kept(ledger):
    refresh_log.intend(ledger, INSTALL, "t")
    assert "the-old-token" not in str(ledger.execute(select(table)).all())
