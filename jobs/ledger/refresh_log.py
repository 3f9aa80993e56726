"""The log of refresh tokens, by fingerprint, so that no token is spent without a trace.

A token is `asked` before the call. Afterwards it is `spent` or `unknown`, or its entry is removed if the token was not
used. A doubtful token that is sent again by force is `forced`, and stays doubtful if the call did not settle it. A token
that is still `asked` or `forced` at the start of a run was in flight when the last run was killed, so it becomes `unknown`.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, select, update

from jobs.core.model import RefreshState
from jobs.core.secret import Secret
from jobs.ledger.engines import key_of, upsert
from jobs.ledger.reads import tokens_from_text
from jobs.ledger.tables import spends
from jobs.sealing.opener import Unread, opened

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import Connection

    from jobs.core.model import Install, InstallKey, Outcome
    from jobs.sealing.opener import Opener

ASKED, FORCED = "asked", "forced"


def fingerprint(token: Secret) -> str:
    """A hash that identifies a token without storing it."""
    return hashlib.sha256(token.reveal().encode()).hexdigest()


def intend(connection: Connection, install: Install, at: str) -> None:
    """Record that the old token of `install` is about to be sent. `at` is UTC, ISO 8601. Twice at one moment is once."""
    assert install.old is not None
    client_id, level, account_id = install.key
    mark = fingerprint(install.old)
    statement = upsert(connection, spends).values(
        fingerprint=mark, client_id=client_id, level=level.value, account_id=account_id, at=at, state=ASKED
    )
    again = {"state": FORCED, "at": at}
    key, another = key_of(connection, "fingerprint"), spends.c.at != at
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=again, where=another))


def settle(connection: Connection, ended: Iterable[tuple[Install, Outcome]]) -> None:
    """Record what happened to the tokens of these installs. Tokens that were not about to be sent stay as they are."""
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
    """Mark the tokens that were in flight when a run was killed as unknown."""
    connection.execute(
        update(spends).where(spends.c.state.in_((ASKED, FORCED))).values(state=RefreshState.UNKNOWN.value)
    )


def newest(key: InstallKey, recorded: str | None, listed: str | None, opener: Opener | None) -> Secret | Unread | None:
    """The refresh token of an install: the one of the ledger's pair, or else the one in the manifest.

    The manifest's is older than a sealed pair too, so it never replaces one that is not opened.
    """
    if not recorded:
        return Secret(listed) if listed else None
    pair = opened(opener, key, tokens_from_text(recorded))
    if isinstance(pair, Unread):
        return pair
    return pair.refresh_token if pair.refresh_token.reveal() else None


def with_old(
    connection: Connection, installs: Sequence[Install], olds: Sequence[Secret | Unread | None], *, force: bool
) -> list[Install]:
    """`installs` with their old tokens. A token that is or may be spent is doubtful, unless `force` is set."""
    marks = [fingerprint(old) if isinstance(old, Secret) else "" for old in olds]
    asked = select(spends.c.fingerprint).where(spends.c.fingerprint.in_([mark for mark in marks if mark]))
    spent: set[str] = set() if force else set(connection.scalars(asked))
    return [_with_old(*one, spent) for one in zip(installs, olds, marks, strict=True)]


def _with_old(install: Install, old: Secret | Unread | None, mark: str, spent: Collection[str]) -> Install:
    if isinstance(old, Unread):
        return replace(install, unread=f"its pair {old.words}")
    return replace(install, old=old, doubtful=mark in spent)
