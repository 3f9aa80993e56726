"""Pairs that the ledger could not take, in `unwritten.jsonl` beside the reports: the last resort, until the next run.

The next run takes them in first. A pair that the ledger knows, or that is older than the one it has, is left out.
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import select

from jobs.core.errors import refuse
from jobs.core.file_errors import doing
from jobs.core.model import Install, InstallKey, Level, Recovered, Route
from jobs.ledger import writes
from jobs.ledger.reads import fingerprint, knows_pairs, tokens_from_text, tokens_to_text
from jobs.ledger.tables import installs
from jobs.system.files import replacing, sync

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from jobs.ledger.ledger import Ledger

UNWRITTEN = "unwritten.jsonl"


class Aside(NamedTuple):
    """A pair of `unwritten.jsonl`, and the API that issued it."""

    base_url: str
    install: Install
    outcome: Recovered


def set_aside(folder: Path, base_url: str, pairs: Iterable[tuple[Install, Recovered]]) -> Path:
    """Add pairs to the file of `folder`, private and synced. Returns the file. Raises FileError."""
    path = folder / UNWRITTEN
    with doing("read", path):
        before = path.read_bytes() if path.exists() else b""
    with replacing(path) as file:
        file.write(before)
        for install, outcome in pairs:
            file.write(_line(base_url, install, outcome).encode() + b"\n")
    return path


def notice(folder: Path) -> tuple[str, ...]:
    """The warning that `folder` holds such a file, for those who leave it alone, or nothing. Raises FileError."""
    path = folder / UNWRITTEN
    count = sum(1 for _ in _lines(path))
    pairs = "a pair that an earlier run" if count == 1 else f"{count:,} pairs that an earlier run"
    return (
        (f"{path} holds {pairs} could not write into the ledger: the next run takes in what is new",) if count else ()
    )


def take_in(ledger: Ledger, folder: Path, base_url: str) -> int:
    """How many pairs of the file the ledger took. `base_url` is the ledger's API ('': not known). The file goes once all of its pairs are in the ledger, or need not be.

    Raises UserError if a line cannot be read, or belongs to another API or to an install that the ledger never saw.
    """
    path = folder / UNWRITTEN
    found = [_aside(path, number, line) for number, line in _lines(path)]
    strange = next((one for one in found if base_url and one.base_url != base_url), None)
    if strange is not None:
        raise refuse(f"holds pairs of {strange.base_url}", str(path), "run the job for that API on this folder first")
    if not found:
        return 0
    taken = ledger.write(partial(_record, path=path, found=found, delivers=ledger.delivers))
    with doing("removed", path):
        path.unlink(missing_ok=True)
    sync(folder)
    return taken


def _record(connection: Connection, path: Path, found: list[Aside], *, delivers: bool) -> int:
    newest: dict[InstallKey, tuple[Install, Recovered]] = {}
    for one in found:
        held = newest.get(one.install.key)
        if held is None or _moment(held[1].at) < _moment(one.outcome.at):
            newest[one.install.key] = one.install, one.outcome
    wanted = [
        (install, outcome) for install, outcome in newest.values() if _is_news(connection, path, install, outcome)
    ]
    writes.recover(connection, wanted, delivers=delivers)
    return len(wanted)


def _is_news(connection: Connection, path: Path, install: Install, outcome: Recovered) -> bool:
    """Whether the ledger neither knows this pair nor has a newer one."""
    mark = fingerprint(outcome.tokens.access_token.reveal(), outcome.tokens.refresh_token.reveal())
    if knows_pairs(connection, [mark]):
        return False
    client_id, level, account_id = install.key
    this = (installs.c.client_id == client_id, installs.c.level == level.value, installs.c.account_id == account_id)
    row = connection.execute(select(installs.c.recovered_at).where(*this)).first()
    if row is None:
        todo = "keep the file, and run the job on the list of that run, on its own ledger"
        raise refuse(f"holds a pair of {account_id}, which this ledger never saw", str(path), todo)
    return not row.recovered_at or _moment(row.recovered_at) < _moment(outcome.at)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _line(base_url: str, install: Install, outcome: Recovered) -> str:
    values = {
        "base_url": base_url,
        "client_id": install.key.client_id,
        "level": install.key.level.value,
        "account_id": install.key.account_id,
        "company_id": install.company_id,
        "route": outcome.route.value,
        "attempts": outcome.attempts,
        "recovered_at": outcome.at,
        "pair": json.loads(tokens_to_text(outcome.tokens)),
    }
    return json.dumps(values)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with doing("read", path):
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def _aside(path: Path, number: int, line: str) -> Aside:
    try:
        values: dict[str, Any] = json.loads(line)
        key = InstallKey(values["client_id"], Level(values["level"]), values["account_id"])
        tokens = tokens_from_text(json.dumps(values["pair"]))
        _moment(values["recovered_at"])
        outcome = Recovered(tokens, Route(values["route"]), int(values["attempts"]), values["recovered_at"])
        return Aside(values["base_url"], Install(key, values["company_id"]), outcome)
    except (ValueError, KeyError, TypeError):
        todo = "correct or remove that line; it may hold tokens that are nowhere else"
        raise refuse("cannot be read", f"{path}, line {number}", todo) from None
