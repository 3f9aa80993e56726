"""Reads the run's installs in their order, a page at a time, with their old tokens if the run may spend these."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select

from jobs.core.model import Install, InstallKey, Level
from jobs.ledger import refresh_log
from jobs.ledger.scratch import old_tokens
from jobs.ledger.tables import installs, todo

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from jobs.ledger.scratch import Scratch
    from jobs.sealing.opener import Opener

_PAGE = (
    select(
        todo.c.seq,
        installs.c.client_id,
        installs.c.level,
        installs.c.account_id,
        installs.c.company_id,
        installs.c.tokens,
        installs.c.position,
    )
    .join(installs, installs.c.id == todo.c.install)
    .where(todo.c.client_id == bindparam("client"), todo.c.seq > bindparam("last"))
    .order_by(todo.c.seq)
    .limit(500)
)


def page_after(
    connection: Connection,
    scratch: Scratch,
    client_id: str,
    last: int,
    *,
    spending: bool,
    force: bool,
    opener: Opener | None,
) -> tuple[list[Install], int]:
    """The next installs of an app after position `last`, and the position of the last of them.

    `spending` adds their old tokens, which `opener` opens if they are sealed. `force` treats tokens that may be spent as
    good.
    """
    rows = connection.execute(_PAGE, {"client": client_id, "last": last}).all()
    found = [Install(InstallKey(row[1], Level(row[2]), row[3]), row[4]) for row in rows]
    if spending:
        listed = scratch.ask(partial(old_tokens, positions=[row.position for row in rows if row.position]))
        olds = [
            refresh_log.newest(one.key, row.tokens, listed.get(row.position), opener)
            for one, row in zip(found, rows, strict=True)
        ]
        found = refresh_log.with_old(connection, found, olds, force=force)
    return found, rows[-1].seq if rows else last
