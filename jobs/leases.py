"""The stories of `ledger who`, which shows the leases in the database, and of `ledger release`, which breaks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.config.apps import base_url, load_apps
from jobs.config.settings import LedgerSettings, load_section
from jobs.core.errors import refuse
from jobs.start import SETTINGS, environment_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from jobs.ledger.lease import Shown


def who(project: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """A line for each lease in the schema of the database, of whatever app, ledger and API. Raises UserError."""
    from jobs.ledger.leasing import leases_in, where_leases_are

    settings = _settings(project, environment_of(project, environment))
    yield from _lines(leases_in(settings)) or [f"nobody holds a lease in {where_leases_are(settings)}"]


def release(project: Path, environment: Mapping[str, str], sure: Callable[[str], None]) -> Iterator[str]:
    """A line for each lease that was broken, once the person is `sure`. Raises UserError.

    These are the leases of this API: those of the configured apps, and those of the ledger `ledger.name`, or of all ledgers if
    it is not set.
    """
    from jobs.ledger.leasing import release_leases, where_leases_are

    known = environment_of(project, environment)
    settings, url, apps = _settings(project, known), base_url(known), load_apps(project, known)
    client_ids = {*apps.known, *apps.missing}
    found = release_leases(settings, url, client_ids, only_look=True)
    if not found:
        whose = f"a lease of the configured apps, or of {_named(settings)}, at {url}"
        yield f"nobody holds {whose}; `recover ledger who` shows all leases in {where_leases_are(settings)}"
        return
    sure(
        f"{'; '.join(_lines(found))}. A run that is still alive stops, and its last pairs go to unwritten.jsonl in its output folder"
    )
    for one in release_leases(settings, url, client_ids):
        yield f"{one.key} is free now; it was held by {one.holder}"


def _settings(project: Path, environment: Mapping[str, str]) -> LedgerSettings:
    settings = load_section(LedgerSettings, project / SETTINGS, environment)
    if not settings.in_database:
        raise refuse("is not set", "RECOVERY_LEDGER__URL", "set it; only a ledger in PostgreSQL has leases")
    return settings


def _named(settings: LedgerSettings) -> str:
    return f"the ledger {settings.name}" if settings.name else "any ledger"


def _lines(leases: Sequence[Shown]) -> list[str]:
    return [_line(one) for one in leases]


def _line(one: Shown) -> str:
    what = f"{one.key} of {one.key.base_url}"
    if one.live:
        return f"{what}: held by {one.holder} since {one.since}, until {one.until} unless it is renewed"
    return f"{what}: expired at {one.until}; the next run takes it over. It was held by {one.holder} since {one.since}"
