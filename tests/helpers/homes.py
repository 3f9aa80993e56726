"""Places of new ledgers, in each engine."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from jobs.config.settings import DatabaseUrl, LedgerSettings
from jobs.ledger.place import Place
from tests.helpers.made import URL

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.postgres import Postgres

_NUMBERS = count(1)


def home_in_folder(folder: Path, base_url=URL) -> Place:
    """The ledger in the folder."""
    return Place(folder, base_url)


def home_in_database(server: Postgres, folder: Path, **more) -> Place:
    """A new ledger of its own name. All of them share a schema."""
    settings = {"url": DatabaseUrl(server.url), "name": f"ledger {next(_NUMBERS)}", **more}
    return Place(folder, URL, LedgerSettings(**settings))


def environment_of(home: Place) -> dict[str, str]:
    """The variables by which a command finds it."""
    if not home.in_database:
        return {}
    settings = home.settings
    return {
        "RECOVERY_LEDGER__URL": settings.url.reveal(),
        "RECOVERY_LEDGER__NAME": settings.name,
        "RECOVERY_LEDGER__SCHEMA": settings.schema,
        "HIGHLEVEL_BASE_URL": home.base_url,
    }
