"""This job with its ledger in a file, beside the same with its ledger in PostgreSQL.

Both sync every outcome. Flat out, the server is on this machine. At the documented pace, each of its answers takes 20 ms.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from tests.bench import measure
from tests.bench.contenders import CONTENDERS, Load
from tests.bench.scenarios import QUICK, flat_out
from tests.bench.stand_in import Play

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.contenders import Contender
    from tests.bench.scenarios import Figures
    from tests.helpers.postgres import Postgres

IN_FILE, IN_DATABASE = "SQLite", "PostgreSQL"
_OURS = CONTENDERS[0]
_PACED_INSTALLS, _ANSWER_SECONDS = 150, 0.02


def play_databases(seed: int) -> Iterator[tuple[str, Figures]]:
    """One round: each engine and its figures. There are none where PostgreSQL is not installed."""
    # Not before: a process that is started counts what its starter holds into its own peak.
    from tests.helpers.postgres import INSTALLED, postgres_server

    if not INSTALLED:
        return
    with postgres_server("fsync=on") as server, _answers_late(server) as far:
        for engine in (IN_FILE, IN_DATABASE):
            with tempfile.TemporaryDirectory(prefix="bench-") as name:
                near, folder = server.url, Path(name)
                figures = flat_out(_with(engine, near, "flat out"), folder, QUICK, seed)
                yield engine, figures | _paced(_with(engine, far, "paced"), folder, seed)


def _with(engine: str, url: str, ledger: str) -> Contender:
    settings = {} if engine == IN_FILE else {"RECOVERY_LEDGER__URL": url, "RECOVERY_LEDGER__NAME": ledger}
    return replace(_OURS, settings=settings)


def _paced(contender: Contender, folder: Path, seed: int) -> Figures:
    """10 requests a second, answers after 200 ms: how much of the pace is used."""
    load, place = Load(10, 4), folder / "paced"
    place.mkdir()
    with measure.stand_in(Play(latency=0.2, seed=seed)) as url:
        measure.run(contender, url, measure.manifest(place, _PACED_INSTALLS), place, load)
        at = measure.seen(url).at
    return {"use of the pace %": 100 * (len(at) - 1) / (at[-1] - at[0]) / load.rate}


@contextmanager
def _answers_late(server: Postgres) -> Iterator[str]:
    """The address of a server whose answers come late."""
    with tempfile.TemporaryDirectory(prefix="far-") as folder:
        name, ready = ".s.PGSQL.5432", threading.Event()
        listening = _listen(server.folder / name, Path(folder) / name, ready)
        threading.Thread(target=asyncio.run, args=(listening,), daemon=True).start()
        ready.wait()
        yield server.url.replace(quote_plus(str(server.folder)), quote_plus(folder))


async def _listen(there: Path, here: Path, ready: threading.Event) -> None:
    server = await asyncio.start_unix_server(lambda *client: _forward(there, *client), here)
    ready.set()
    await server.serve_forever()


async def _forward(there: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass everything on, what the server says after a while."""
    answers, questions = await asyncio.open_unix_connection(there)
    loop = asyncio.get_running_loop()

    async def ask() -> None:
        while data := await reader.read(65_536):
            questions.write(data)
        questions.close()

    asking = asyncio.create_task(ask())
    while data := await answers.read(65_536):
        loop.call_later(_ANSWER_SECONDS, writer.write, data)
    await asking
