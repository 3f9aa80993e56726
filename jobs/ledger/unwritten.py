"""Pairs that the ledger could not take, in `unwritten.jsonl` beside the reports: the last resort, until the next run.

The next run takes them in first. A pair that the ledger knows, or that is older than the one it has, is left out. One whose
install the ledger does not know, since the database went back to before that run, waits until a run enrols its install.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import select

from jobs.core.errors import refuse
from jobs.core.file_errors import doing
from jobs.core.fingerprints import fingerprint_of
from jobs.core.model import Install, InstallKey, Level, Recovered, Route
from jobs.core.plurals import counted
from jobs.ledger import writes
from jobs.ledger.reads import knows_pairs, tokens_from_text, tokens_to_text
from jobs.ledger.sealed import command_for, is_half_sealed, is_open, is_sealed
from jobs.ledger.tables import installs
from jobs.system.files import replacing, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from jobs.core.model import Tokens
    from jobs.ledger.ledger import Ledger
    from jobs.sealing.kept_pairs import KeptPairs

UNWRITTEN = "unwritten.jsonl"


class Aside(NamedTuple):
    """A pair of `unwritten.jsonl`, the API that issued it, and its line."""

    base_url: str
    install: Install
    outcome: Recovered
    line: str


class Taken(NamedTuple):
    """How many pairs the ledger took, and those whose install it does not know."""

    how_many: int
    unknown: list[Aside]


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


def take_in(ledger: Ledger, folder: Path, base_url: str) -> Taken:
    """What the ledger took of the file. `base_url` is the ledger's API ('': not known). The others stay in the file.

    Raises UserError as `pairs_in`.
    """
    found = pairs_in(folder, base_url)
    if not found:
        return Taken(0, [])
    taken = ledger.write(partial(record, found=found, delivers=ledger.delivers, folder=folder))
    leave(folder, found, taken.unknown)
    for line in told(folder, taken):
        ledger.wait.patience.say(line)
    return taken


def pairs_in(folder: Path, base_url: str) -> list[Aside]:
    """The pairs of the file. Raises UserError if a line cannot be read, or belongs to another API."""
    path = folder / UNWRITTEN
    found = [_aside(path, number, line) for number, line in _lines(path)]
    strange = next((one for one in found if base_url and one.base_url != base_url), None)
    if strange is not None:
        raise refuse(
            f"holds pairs of {strange.base_url}", str(path), "move it to the output folder of a run for that API"
        )
    return found


def leave(folder: Path, found: list[Aside], left: list[Aside]) -> None:
    """Leave only these of the pairs that were `found` in the file. Without any, the file goes."""
    path = folder / UNWRITTEN
    if len(left) == len(found):
        return
    if left:
        with replacing(path) as file:
            file.writelines(one.line.rstrip("\n").encode() + b"\n" for one in left)
        return
    with doing("removed", path):
        path.unlink(missing_ok=True)
    sync(folder)


def seal_lines(folder: Path, base_url: str, seal: Callable[[InstallKey, Tokens, str], Tokens]) -> int:
    """How many open pairs of the file are sealed now.

    `seal` gives the sealed form of an install's pair, which came at that moment.
    Raises UserError as `pairs_in`, and FileError.
    """
    found = pairs_in(folder, base_url)
    count = sum(_is_open(one) for one in found)
    if count:
        with replacing(folder / UNWRITTEN) as file:
            file.writelines(_sealed_line(one, seal).encode() + b"\n" for one in found)
    return count


def _sealed_line(one: Aside, seal: Callable[[InstallKey, Tokens, str], Tokens]) -> str:
    if not _is_open(one):
        return one.line.rstrip("\n")
    sealed = replace(one.outcome, tokens=seal(one.install.key, one.outcome.tokens, one.outcome.at))
    return _line(one.base_url, one.install, sealed)


def has_open_lines(folder: Path, base_url: str) -> bool:
    """Whether the file holds a pair that is not sealed. Raises UserError as `pairs_in`."""
    return any(map(_is_open, pairs_in(folder, base_url)))


def _is_open(one: Aside) -> bool:
    return one.outcome.tokens.sealed is None


def told(folder: Path, taken: Taken) -> Iterator[str]:
    """What became of the pairs, for a person."""
    if taken.how_many:
        which = counted(taken.how_many, f"pair of {UNWRITTEN} is", f"pairs of {UNWRITTEN} are")
        yield f"{which} in the ledger now"
    if taken.unknown:
        what = counted(len(taken.unknown), "pair of an install", "pairs of installs")
        todo = "keep the file; a run on the list that has them takes them in"
        yield f"{folder / UNWRITTEN} holds {what} that this ledger does not know: {todo}"


def record(connection: Connection, found: list[Aside], *, delivers: KeptPairs | None, folder: Path) -> Taken:
    """Write the newest pair of each install, unless the ledger knows it or has a newer one.

    Raises UserError if the ledger would hold open pairs beside sealed ones.
    """
    refuse_mixed_lines(connection, found, folder)
    newest: dict[InstallKey, Aside] = {}
    unknown: list[Aside] = []
    for one in found:
        held = newest.get(one.install.key)
        if _recovered_at(connection, one.install.key) is None:
            unknown.append(one)
        elif held is None or _moment(held.outcome.at) < _moment(one.outcome.at):
            newest[one.install.key] = one
    wanted = [
        (one.install, one.outcome) for one in newest.values() if _is_news(connection, one.install.key, one.outcome)
    ]
    writes.recover(connection, wanted, delivers=delivers)
    return Taken(len(wanted), unknown)


def refuse_mixed_lines(connection: Connection, found: list[Aside], folder: Path, *, seals: bool | None = None) -> None:
    """Raise UserError if the ledger would hold open pairs beside sealed ones. `seals`: new pairs are sealed, or not."""
    some_open, some_sealed = any(map(_is_open, found)), not all(map(_is_open, found))
    if is_half_sealed(connection):
        return  # Only `recover seal` comes here then, which has just sealed all lines.
    if some_open and (seals or some_sealed or is_sealed(connection)):
        what = "holds pairs that are not sealed, but others are"
    elif some_sealed and (seals is False or is_open(connection)):
        what = "holds sealed pairs, but others are not"
    else:
        return
    todo = f"set seal.recipients, and run {command_for(folder)} first"
    raise refuse(what, str(folder / UNWRITTEN), todo)


def _must_fit(key: InstallKey, tokens: Tokens) -> None:
    """Raise ValueError if a pair says itself that it belongs to another install. What is sealed cannot be looked at."""
    names_another = key.level is Level.SUB_ACCOUNT and tokens.location_id not in ("", key.account_id)
    if tokens.user_type != key.level or names_another:
        raise ValueError(tokens.user_type)


def _recovered_at(connection: Connection, key: InstallKey) -> str | None:
    """When an install was recovered: '' if it never was, None if the ledger does not know it."""
    client_id, level, account_id = key
    names = installs.c
    this = (names.client_id == client_id, names.level == level.value, names.account_id == account_id)
    return connection.scalar(select(names.recovered_at).where(*this))


def _is_news(connection: Connection, key: InstallKey, outcome: Recovered) -> bool:
    """Whether the ledger, which knows the install, neither knows this pair nor has a newer one."""
    mark = fingerprint_of(outcome.tokens)
    if knows_pairs(connection, [mark]):
        return False
    recovered_at = _recovered_at(connection, key)
    return not recovered_at or _moment(recovered_at) < _moment(outcome.at)


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
            with path.open(encoding="utf-8", errors="replace") as file:
                yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def _aside(path: Path, number: int, line: str) -> Aside:
    try:
        values: dict[str, Any] = json.loads(line)
        key = InstallKey(values["client_id"], Level(values["level"]), values["account_id"])
        tokens = tokens_from_text(json.dumps(values["pair"]))
        _must_fit(key, tokens)
        _moment(values["recovered_at"])
        outcome = Recovered(tokens, Route(values["route"]), int(values["attempts"]), values["recovered_at"])
        return Aside(values["base_url"], Install(key, values["company_id"]), outcome, line)
    except (ValueError, KeyError, TypeError):
        todo = "correct or remove that line; it may hold tokens that are nowhere else"
        raise refuse("cannot be read", f"{path}, line {number}", todo) from None
