"""Refresh tokens that are spent: what the ledger remembers of each, by fingerprint, so that none is spent unseen.

`asked` before the call; then `spent` or `unknown`, or nothing where the token is as it was. One that was in doubt before
and is sent again by force is `forced`, and stays in doubt where that did not settle it. What is found `asked` or
`forced` at the start of a run was in flight when the one before was killed: what became of it is unknown.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from jobs.core.model import RefreshState
from jobs.core.secret import Secret
from jobs.ledger.reads import tokens_from_text
from jobs.ledger.tables import spends

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from jobs.core.model import Install, Outcome

ASKED, FORCED = "asked", "forced"


def fingerprint(token: Secret) -> str:
    """What a token is recognised by without being kept."""
    return hashlib.sha256(token.reveal().encode()).hexdigest()


def intend(connection: Connection, install: Install, at: str) -> None:
    """The old token of `install` is about to be sent. `at` is UTC ISO 8601."""
    assert install.old is not None
    client_id, level, account_id = install.key
    mark = fingerprint(install.old)
    statement = upsert(spends).values(
        fingerprint=mark, client_id=client_id, level=level.value, account_id=account_id, at=at, state=ASKED
    )
    again = {"state": FORCED, "at": at}
    connection.execute(statement.on_conflict_do_update(index_elements=["fingerprint"], set_=again))


def settle(connection: Connection, ended: Iterable[tuple[Install, Outcome]]) -> None:
    """What became of the tokens that were about to be sent for these installs; others are left as they stand."""
    fates = [(fingerprint(install.old), outcome.refresh_state) for install, outcome in ended if install.old is not None]
    if not fates:
        return
    this = spends.c.fingerprint == bindparam("mark")
    asked, forced = spends.c.state == ASKED, spends.c.state == FORCED
    as_it_was = [{"mark": mark} for mark, refresh_state in fates if refresh_state is RefreshState.UNTOUCHED]
    ended_as = [
        {"mark": mark, "fate": refresh_state.value}
        for mark, refresh_state in fates
        if refresh_state is not RefreshState.UNTOUCHED
    ]
    if as_it_was:
        connection.execute(delete(spends).where(this, asked), as_it_was)
        connection.execute(update(spends).where(this, forced).values(state=RefreshState.UNKNOWN.value), as_it_was)
    if ended_as:
        connection.execute(update(spends).where(this, asked | forced).values(state=bindparam("fate")), ended_as)


def forget_flight(connection: Connection) -> None:
    """What was in flight when a run was killed is not any more."""
    connection.execute(
        update(spends).where(spends.c.state.in_((ASKED, FORCED))).values(state=RefreshState.UNKNOWN.value)
    )


def newest(recorded: str | None, listed: str | None) -> Secret | None:
    """The refresh token that an install has: that of the ledger's own pair, or else the one that the manifest lists."""
    token = tokens_from_text(recorded).refresh_token if recorded else Secret(listed or "")
    return token if token.reveal() else None


def with_old(
    connection: Connection, installs: Sequence[Install], olds: Sequence[Secret | None], *, force: bool
) -> list[Install]:
    """`installs` with their old tokens; doubtful are those that are spent, or may be, unless it is to be forced."""
    marks = [fingerprint(old) if old else "" for old in olds]
    asked = select(spends.c.fingerprint).where(spends.c.fingerprint.in_([mark for mark in marks if mark]))
    spent = set() if force else set(connection.scalars(asked))
    return [
        replace(install, old=old, doubtful=mark in spent)
        for install, old, mark in zip(installs, olds, marks, strict=True)
    ]
