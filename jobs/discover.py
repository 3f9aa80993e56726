"""`recover discover`: a list of installs, made from the locations that agencies list. Its existing lines are kept."""

from __future__ import annotations

import csv
import io
import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from jobs.core.clock import utc
from jobs.core.errors import Exit, Gathered, Problem, UserError, refuse
from jobs.core.file_errors import FileError
from jobs.core.formula_guard import without_formula
from jobs.core.ids import is_id
from jobs.core.model import InstallKey, Level, Row
from jobs.core.plurals import counted
from jobs.core.secret import Secret
from jobs.highlevel.api import CallFailed, Pages
from jobs.highlevel.jwt_claims import read_claims, why_useless
from jobs.ledger.place import Place
from jobs.manifest.reader import UTF16, is_workbook, open_manifest
from jobs.manifest.warnings import ListWarnings
from jobs.pace.gate import Stopped
from jobs.recovery.agency_tokens import AgencyKey, Bearer, UnreadAgency
from jobs.recovery.attempt import is_refused_by_pace
from jobs.recovery.coverage import known_bearers
from jobs.recovery.equipment import Equipment
from jobs.recovery.stop import Stop, end_at_once
from jobs.start import Basis, read_basis, take_apps, with_apps
from jobs.system.files import replacing
from jobs.system.signals import on_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from jobs.config.apps import Apps
    from jobs.highlevel.api import HighLevel
    from jobs.ledger.lease import Leases
    from jobs.manifest.reader import Manifest
    from jobs.recovery.attempt import RetryPolicy
    from jobs.sealing.opener import Opener

TOKEN = "HIGHLEVEL_AGENCY_ACCESS_TOKEN"  # noqa: S105 - the name of a variable
_LOOK_UP_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Question(Basis):
    """Everything that is known before the first request. `manifest` is the existing list, if there is one."""

    agencies: dict[AgencyKey, Secret]
    manifest: Manifest | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What an agency listed: the names of its locations by id, or None and the reason."""

    agency: AgencyKey
    locations: dict[str, str] | None
    why: str = ""


def prepare(
    project: Path,
    environment: Mapping[str, str],
    companies: Sequence[str],
    source: Path | None,
    output: Path,
    opener_for: Callable[[str], Opener | None],
) -> Question:
    """Everything that is needed to ask the agencies. `opener_for` a base URL opens the sealed pairs of `source`.

    Raises UserError with every problem that was found.
    """
    gathered = Gathered()
    settings, apps, url, known = read_basis(project, environment, {}, gathered)
    gathered.raise_all()
    if output.exists() and is_workbook(output):
        raise refuse("is a workbook, to which no line can be added", str(output), "save it as CSV UTF-8, or name a CSV")
    manifest = open_manifest(output) if output.exists() else None
    noticed = ListWarnings()
    # A list that cannot be read is refused before anything is sent.
    deque(manifest.rows(noticed) if manifest else (), maxlen=0)
    if noticed.fault:  # New lines must not end up inside an open quote.
        raise refuse(noticed.fault, str(output), "close or remove it")
    if not os.access(output.absolute().parent, os.W_OK | os.X_OK):
        raise refuse("cannot be written to", str(output.absolute().parent), "make the folder, or correct its rights")
    if manifest is not None and manifest.layout.location_id < 0:
        raise refuse("has no column location_id to add to", str(output), "give one of its columns that name, in line 1")
    if manifest is not None and not apps.only and manifest.layout.client_id < 0:
        raise refuse("has no column client_id, and several apps are configured", str(output), "add the column")
    place = Place(source, url, settings.ledger) if source is not None else None
    found = _of_ledger(place, apps, companies, opener_for(url)) if place else []
    agencies = _agencies(found, companies, Secret(known.get(TOKEN, "").strip()), apps)
    return Question(settings, apps, url, known, agencies, manifest)


def _agencies(
    found: Sequence[Bearer | UnreadAgency], companies: Sequence[str], given: Secret, apps: Apps
) -> dict[AgencyKey, Secret]:
    """The token of each of these agencies: the one that was `found`, or the one that was `given`. Raises UserError."""
    agencies: dict[AgencyKey, Secret] = {}
    problems: list[Problem] = []
    for company in dict.fromkeys(companies):
        of_company = [one for one in found if one.company_id == company]
        mine = {AgencyKey(one.client_id, company): one.token for one in of_company if isinstance(one, Bearer)}
        if not mine:
            mine, problem = _of_environment(given, company, apps)
            unread = next((_not_opened(one) for one in of_company if isinstance(one, UnreadAgency)), None)
            problems += [unread or problem] if problem else []
        agencies |= mine
    if problems:
        raise UserError(*problems)
    return agencies


def _of_ledger(
    place: Place, apps: Apps, companies: Sequence[str], opener: Opener | None
) -> list[Bearer | UnreadAgency]:
    """The valid tokens of these agencies in an output folder, and those of the agencies whose pairs cannot be read."""
    place.must_exist()
    with place.reading() as ledger:
        return ledger.ask(
            lambda connection: [
                one
                for one in known_bearers(connection, ledger.scratch, utc(), opener)
                if one.client_id in apps.known and one.company_id in companies
            ]
        )


def _not_opened(agency: UnreadAgency) -> Problem:
    todo = f"give the identity that opens it, or set {TOKEN}"
    return Problem(f"the pair of this agency {agency.why}", f"--company {agency.company_id}", todo)


def _of_environment(token: Secret, company: str, apps: Apps) -> tuple[dict[AgencyKey, Secret], Problem | None]:
    """The token from the environment, if it can belong to this company."""
    if not is_id(company):
        return {}, Problem("is not a company id", f"--company {company}", "correct it")
    if not token.reveal():
        todo = f"recover its row first and give --from, or set {TOKEN}"
        return {}, Problem("no valid token of this agency is known", f"--company {company}", todo)
    claims = read_claims(token)
    client_id = claims.client_id if claims and claims.client_id in apps.known else apps.only
    if not client_id:
        return {}, Problem("does not name one of the configured apps", TOKEN, "configure the app it belongs to")
    why = why_useless(token, InstallKey(client_id, Level.AGENCY, company), time.time())
    if why:
        return {}, Problem(f"cannot serve for {company} ({why})", TOKEN, "set it to a valid token of that agency")
    return {AgencyKey(client_id, company): token}, None


def discover(question: Question, output: Path, say: Callable[[str], None], complain: Callable[[str], None]) -> Exit:
    """The exit code after each agency was asked and new installs were added to `output`.

    `complain` names the agencies that would not list their locations. Raises UserError if the app is in use, or if
    `output` cannot be written.
    """
    stop = Stop(time.monotonic)
    client_ids = {key.client_id for key in question.agencies}
    with ExitStack() as held:
        leases = take_apps(held, question, client_ids, "recover discover")
        held.enter_context(on_signals(stop.signal, partial(end_at_once, leases)))
        replies = _ask_all(question, stop, leases)
    for reply in replies:
        if reply.locations is None:
            complain(f"{reply.agency.company_id}: {reply.why}")
        else:
            say(f"{reply.agency.company_id}: {len(reply.locations):,} locations have the app")
    try:
        added = add(output, question, replies)
    except FileError as refused:
        raise UserError(refused.problem, code=Exit.STOPPED_EARLY) from None  # Something was sent.
    say(f"{counted(added, 'install', 'installs')} added to {output}" if added else f"nothing to add to {output}")
    if stop.because:
        if stop.met:
            complain(f"stopped early: {stop.met}")
        return stop.code
    return Exit.SOME_FAILED if any(reply.locations is None for reply in replies) else Exit.OK


def _ask_all(question: Question, stop: Stop, leases: Leases | None) -> list[Reply]:
    """The replies of all agencies, in order. A signal cuts waits short."""
    stopping = threading.Event()
    with closing(Equipment(question, stop, leases)) as equipment, ThreadPoolExecutor(1) as executor:
        ask = partial(_ask, equipment.api, equipment.retry_policy, stopping)
        replies = [executor.submit(ask, agency, token) for agency, token in question.agencies.items()]
        while wait(replies, _LOOK_UP_SECONDS).not_done:
            if stop.asked():
                stopping.set()
                equipment.gate.stop()
        return [reply.result() for reply in replies]


def _ask(
    api: HighLevel, retry_policy: RetryPolicy, stopping: threading.Event, agency: AgencyKey, token: Secret
) -> Reply:
    """The whole list of an agency. A page that fails is asked for again while that may help; earlier pages are kept."""
    tries, pages = 0, Pages(agency.client_id, agency.company_id)
    while not pages.whole:
        try:
            api.installed_locations(pages, token)
            tries = 0
            continue
        except Stopped:
            return Reply(agency, None, "its list was not read to the end; run the command again")
        except CallFailed as failed:
            answer = failed.answer
        if is_refused_by_pace(answer) and (answer.retry_after or 0.0) <= retry_policy.patience:
            stopping.wait(answer.retry_after or 0.0)  # The gate holds all requests back, or only this agency waits.
            continue
        tries += 1
        wait = retry_policy.wait_after(tries, answer)
        if wait is None or stopping.wait(wait):
            return Reply(agency, None, f"refused: {answer.message}")
    return Reply(agency, pages.found)


def add(output: Path, question: Question, replies: Sequence[Reply]) -> int:
    """How many locations were added to `output`: those that it did not have yet. The rest of it is unchanged."""
    manifest, apps = question.manifest, question.apps
    rows = with_apps(manifest.rows(), apps) if manifest else ()
    known = {(row.client_id, row.account_id) for row in rows if isinstance(row, Row) and row.level is Level.SUB_ACCOUNT}
    fresh = [
        (reply.agency, location, name)
        for reply in replies
        for location, name in (reply.locations or {}).items()
        if (reply.agency.client_id, location) not in known and is_id(location)
    ]
    if not fresh:
        return 0
    before = output.read_bytes() if manifest else b""
    lines = _lines(manifest, apps, fresh)
    encoding = UTF16.get(before[:2], "utf-8")
    if before and not before.endswith(("\n".encode(encoding), "\r".encode(encoding))):
        lines = "\n" + lines
    with replacing(output) as file:
        file.write(before + lines.encode(encoding))
    return len(fresh)


def _lines(manifest: Manifest | None, apps: Apps, fresh: Iterable[tuple[AgencyKey, str, str]]) -> str:
    """The new lines as CSV, under the existing columns, or with a header of their own."""
    text = io.StringIO()
    if manifest is None:
        header = ["location_id", "company_id", *([] if apps.only else ["client_id"]), "name"]
        places = {name: index for index, name in enumerate(header)}
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
    else:
        layout = manifest.layout
        places = {"location_id": layout.location_id, "company_id": layout.company_id, "client_id": layout.client_id}
        places |= {name: layout.own[i] for i, name in enumerate(manifest.columns) if name == "name"}
        header = [""] * layout.width
        writer = csv.writer(text, delimiter=layout.separator, lineterminator="\n")
    for agency, location, name in fresh:
        cells = [""] * len(header)
        said = {"location_id": location, "company_id": agency.company_id, "client_id": agency.client_id}
        for column, cell in {**said, "name": without_formula(name)}.items():
            if places.get(column, -1) >= 0:
                cells[places[column]] = cell
        writer.writerow(cells)
    return text.getvalue()
