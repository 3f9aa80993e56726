"""Made-up ledgers, without a run: installs and how they ended, in a folder, with the reports rendered."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import text

from jobs.core.clock import utc_now
from jobs.core.model import (
    App,
    Broken,
    Cause,
    Failed,
    Install,
    InstallKey,
    Level,
    Recovered,
    Route,
    Row,
    Run,
    Stage,
    Tokens,
)
from jobs.core.secret import Secret
from jobs.ledger.counts import as_it_stands
from jobs.ledger.opening import open_ledger
from jobs.ledger.place import Place
from jobs.ledger.refusals import usual_wait
from jobs.ledger.unwritten import take_in
from jobs.report import render
from jobs.reports.messages import load_messages
from jobs.start import MESSAGES, PROJECT

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.ledger.ledger import Ledger
    from jobs.reports.messages import Messages

URL = "https://services.leadconnectorhq.com"
CLIENT_ID = "66c8a1b2c3d4e5f6a7b8c9d0-m0testing"
SECRET = "canary-client-secret/with+signs"
APP = App(CLIENT_ID, Secret(SECRET), "Calendar Sync", "https://app.example.com/callback", "calendars.readonly")
SAID = {
    Cause.UNKNOWN_APP: "no secret is configured for this client id",
    Cause.CREDENTIALS_REJECTED: "Invalid client credentials!",
    Cause.NOT_INSTALLED: "No installation found for this location",
    Cause.LOCATION_INACTIVE: "Location is not active",
    Cause.RECONNECT_REMOVED: "API endpoint has been removed",
    Cause.REFRESH_INVALID: "Invalid refresh token",
    Cause.REFRESH_UNKNOWN: "the answer to a refresh was lost",
    Cause.AGENCY_REFUSED: "The token does not have access to this location.",
    Cause.REQUEST_REFUSED: "version header is invalid",
    Cause.CODE_REJECTED: "Invalid grant: authorization code is invalid",
    Cause.WRONG_ACCOUNT: "the answer names another account; it was thrown away",
    Cause.WRONG_USER_TYPE: "the answer is for Company, not for Location",
    Cause.MALFORMED_ANSWER: "HighLevel's answer held no usable access token",
    Cause.RATE_LIMITED: "Too many requests",
    Cause.SERVER_ERROR: "Internal server error",
    Cause.NETWORK_ERROR: "the connection was reset",
}
Made = tuple["Row | Broken", "Cause | None"]


def place(number: int, company: str = "", *cells: str, level: Level = Level.SUB_ACCOUNT, client_id=CLIENT_ID) -> Row:
    """The row of an install; an agency's id is its company's."""
    account = company if level is Level.AGENCY else f"Loc{number:017}"
    return Row(number + 1, client_id, level, account, company, cells)


def broken(number: int, *cells: str, why: str = "") -> Broken:
    return Broken(number + 1, "bad id!", "", "", cells, why or f"line {number + 1}: the location id has illegal signs")


def pair() -> Tokens:
    return Tokens(Secret("made-access"), Secret("made-refresh"), "Bearer", "", "", "Location", "", "", "", "")


def outcome(cause: Cause | None, number: int, at: str, said: dict[Cause, str]) -> Failed | Recovered:
    if cause is None:
        return Recovered(pair(), Route.RECONNECT, 1, at)
    stage = Stage.EXCHANGE if cause is Cause.CODE_REJECTED else Stage.RECONNECT
    return Failed(cause, stage, said.get(cause, SAID[cause]), 400, f"trace-{number:08}", 1, at)


def enrol(ledger, rows, columns, at, *, with_companies=True):
    """The rows become the newest list. Returns how many they are."""
    with ledger.enrolling() as manifest:
        count = manifest.stage(rows)
        manifest.enrol(columns, at, with_companies=with_companies)
    return count


def line_up(ledger, apps, *, before="", causes=()):
    """How many installs each app has in a run that begins now."""
    with ledger.enrolling() as manifest:
        return manifest.line_up(apps, before=before, causes=causes)


def opened(place: Place) -> Ledger:
    """The ledger of a run that begins now."""
    ledger = place.open(usual_wait(), "a test")
    take_in(ledger, place.folder, place.base_url)
    return ledger


def as_place(where: Path | Place) -> Place:
    """The place of a ledger; of a folder's: in the folder."""
    return where if isinstance(where, Place) else Place(where, URL)


def make_run(where: Path | Place, columns: tuple[str, ...], made: list[Made], **more) -> Run:
    """One run that ends so: a cause, None for what is back, and `untried` rows. Renders the reports."""
    place = as_place(where)
    place.folder.mkdir(mode=0o700, exist_ok=True)
    untried: list[Row] = more.pop("untried", [])
    said: dict[Cause, str] = more.pop("said", {})
    at = more.pop("at", None) or utc_now()
    rows = [row for row, _ in made] + untried
    ledger = opened(place)
    try:
        enrol(ledger, rows, columns, at)
        run = Run(f"run of {at}", "/lists/installs.csv", URL, at)
        ledger.save_run(run)
        ended = [
            (Install(InstallKey(row.client_id, row.level, row.account_id), row.company_id), cause, number)
            for number, (row, cause) in enumerate(made)
            if isinstance(row, Row)
        ]
        ledger.record([(install, outcome(cause, number, at, said)) for install, cause, number in ended])
        killed, workbook = more.pop("killed", False), more.pop("workbook", False)
        with ledger.at_one_moment() as connection:
            run = as_it_stands(connection, run, len(rows))
        if not killed:
            code = int(bool(run.counts.failed))
            run = replace(run, finished_at=at, **{"exit_code": code, **more})
            ledger.save_run(run)
            render(place.folder, ledger, run, {APP.client_id: APP}, messages(), workbook=workbook)
        return run
    finally:
        ledger.close()


def render_again(where: Path | Place, apps: dict[str, App] | None = None, words: Messages | None = None) -> str:
    """What `recover report` leaves: the page's text."""
    place = as_place(where)
    ledger = opened(place)
    try:
        render(
            place.folder, ledger, ledger.last_run(), apps or {APP.client_id: APP}, words or messages(), workbook=False
        )
    finally:
        ledger.close()
    return (place.folder / "failures.html").read_text(encoding="utf-8")


@cache
def messages() -> Messages:
    return load_messages(PROJECT / MESSAGES)


NAMES = ("Harbor", "Pine", "Oak", "Lake", "Hill", "Maple", "River", "Bay", "Park", "Dune", "Elm", "Fox", "Glen", "Ivy")
TRADES = ("Dental", "Yoga", "Bakery", "Plumbing", "Realty", "Garage", "Clinic", "Gym", "Florist", "Tutors", "Movers")
COLUMNS = ("account_name", "owner_email")


def person(number: int) -> tuple[str, str]:
    """The name of a made-up business, and its owner's address."""
    name, trade = NAMES[number % len(NAMES)], TRADES[number // len(NAMES) % len(TRADES)]
    return f"{name} {trade}", f"owner@{name.lower()}{trade.lower()}.example"


def all_causes() -> list[Made]:
    """31 failures, of every cause, most of one agency, which is back itself."""
    harbor = "CoHarborAgency000001"
    made: list[Made] = [(place(0, harbor, "Harbor Agency", "ops@harbor.example", level=Level.AGENCY), None)]
    causes = [cause for cause in Cause if cause is not Cause.INVALID_ROW]
    again = (Cause.NOT_INSTALLED, Cause.RECONNECT_REMOVED, Cause.NOT_INSTALLED, Cause.RECONNECT_REMOVED)
    causes = sorted([*causes, *again, *causes][:30], key=causes.index)
    for number, cause in enumerate(causes, 1):
        company = "" if causes.count(cause) > 1 and causes[number : number + 1] != [cause] else harbor
        made.append((place(number, company, *person(number)), cause))
    made.append((broken(31, "Kite Travel", "quin@kitetravel.example"), Cause.INVALID_ROW))
    return made


def with_version_1(folder: Path) -> None:
    """Make a ledger what an earlier version left."""
    ledger = open_ledger(folder, "")
    with ledger.engine.begin() as connection:
        for table in ("reported", "reported_lines", "spends"):
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text("PRAGMA user_version = 1"))
    ledger.close()
