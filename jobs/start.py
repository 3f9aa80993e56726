"""What a run needs before it can begin (settings, apps, the API's address, the manifest), what the user asked for, and the
plan of what the run would do.

The start collects all problems, so that a person can fix them in one go.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dotenv.parser import parse_stream

from jobs.config.apps import Apps, base_url, load_apps, too_open
from jobs.config.recipients import key_fingerprint
from jobs.config.settings import LedgerSettings, Settings, load_section, load_section_or_defaults, load_settings
from jobs.core.clock import utc_now
from jobs.core.errors import Gathered, Problem, UserError, refuse
from jobs.core.file_errors import what_to_do
from jobs.core.model import Broken, Level, Route, Row, Status
from jobs.highlevel.proxy import check_way_out
from jobs.ledger.opening import LEDGER
from jobs.ledger.place import Place
from jobs.ledger.refusals import usual_wait
from jobs.ledger.sealed import refuse_half_sealed
from jobs.ledger.unwritten import take_in
from jobs.manifest.reader import Manifest, open_manifest
from jobs.manifest.warnings import ListWarnings
from jobs.reports.files import SUMMARY
from jobs.reports.messages import Messages, load_messages
from jobs.reports.summary import is_summary
from jobs.sealing.opener import Opener
from jobs.system.locks import LOCK, app_lock, hold
from jobs.system.output_folder import make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from contextlib import ExitStack

    from jobs.config.settings import AnySection, DeliverSettings
    from jobs.core.model import Cause
    from jobs.ledger.enrolment import Enrolment, StagedGroup
    from jobs.ledger.last_use import LastUse
    from jobs.ledger.lease import Leases
    from jobs.ledger.ledger import Ledger
    from jobs.manifest.layout import Chosen
    from jobs.sealing.sealer import Sealer

SETTINGS = Path("config") / "recovery.toml"
MESSAGES = Path("config") / "messages"
PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Basis:
    """What every command needs that sends something to HighLevel. `environment` stands over the project's `.env`."""

    settings: Settings
    apps: Apps
    base_url: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Start(Basis):
    """Everything that is known before the first request. `needed` are the configured client ids that INPUT uses."""

    manifest: Manifest
    needed: frozenset[str]
    messages: Messages
    noticed: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know before the run. A warning does not keep the run from starting."""
        left_out = ", ".join(self.manifest.left_out)
        words = (
            [f"these columns are left out, because the reports have columns of the same name: {left_out}"]
            if left_out
            else []
        )
        open_pairs = too_open(self.manifest.path) if self.manifest.with_old_pairs else ()
        return (
            *self.apps.warnings, *words, *open_pairs, *self._of_sealing(), *self.noticed, *self.messages.warnings
        )  # fmt: skip

    def _of_sealing(self) -> Iterator[str]:
        recipients = self.settings.seal.recipients
        if len(recipients) == 1:
            yield "new pairs are sealed for one recipient alone: if its identity is lost, so are they"
        if recipients and self.manifest.with_old_pairs:
            yield f"only new pairs are sealed: the old ones in {self.manifest.path} stay as they are"

    def sealer(self) -> Sealer | None:
        """What seals new pairs. None if they stay open."""
        if not self.settings.seal.recipients:
            return None
        from jobs.sealing.sealer import Sealer  # slow to import, and needed only with recipients

        return Sealer(self.settings.seal.recipients, self.base_url)

    @property
    def sealed_for(self) -> tuple[str, ...]:
        """The fingerprints of those for whom new pairs are sealed. Empty: pairs are open."""
        return tuple(map(key_fingerprint, self.settings.seal.recipients))


def environment_of(project: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment over the variables of the project's `.env`. Raises UserError if `.env` cannot be read."""
    file = project / ".env"
    try:
        text = file.read_text(encoding="utf-8-sig") if file.is_file() else ""
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        todo = what_to_do(error, "correct the file or its rights")
        raise refuse(f"cannot be read ({reason})", str(file), todo) from None
    lines = list(parse_stream(io.StringIO(text)))
    if bad := [str(line.original.line) for line in lines if line.error]:
        raise refuse(
            f"has a line that is not NAME=value (line {', '.join(bad)})", str(file), "correct it, with quotes if needed"
        )
    return {line.key: line.value for line in lines if line.key and line.value is not None} | dict(environment)


def readable_environment(project: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The same, but without `.env` if it cannot be read."""
    try:
        return environment_of(project, environment)
    except UserError:
        return dict(environment)


def section_of(kind: type[AnySection], project: Path, environment: Mapping[str, str]) -> AnySection:
    """One section of the settings, even if others or `.env` are wrong. If it is wrong itself, its defaults."""
    return load_section_or_defaults(kind, project / SETTINGS, readable_environment(project, environment))


def read_basis(
    project: Path, environment: Mapping[str, str], options: Mapping[str, str], gathered: Gathered
) -> tuple[Settings, Apps, str, dict[str, str]]:
    """The fields of a `Basis`. None of it may be used before the problems that were `gathered` are raised."""
    take = gathered.take
    known = take(lambda: environment_of(project, environment)) or dict(environment)
    settings = take(lambda: load_settings(project / SETTINGS, known, options))
    apps = take(lambda: load_apps(project, known)) or Apps()
    url = take(lambda: base_url(known))
    take(lambda: check_way_out(url or "https://", known))
    return settings, apps, url, known


def place_of(project: Path, environment: Mapping[str, str], folder: Path) -> Place:
    """Where the ledger of an output folder is. Raises UserError if the settings for that are wrong."""
    known = readable_environment(project, environment)  # A bad `.env` keeps nobody from the ledger in a folder.
    return place_by(load_section(LedgerSettings, project / SETTINGS, known), known, folder)


def place_by(settings: LedgerSettings, known: Mapping[str, str], folder: Path) -> Place:
    """The same, by settings and an environment that are read already."""
    return Place(folder, base_url(known) if settings.in_database else "", settings)


def opener_of(
    identity: Path | None, base_url: str, ask: Callable[[str], str], warn: Callable[[str], None]
) -> Opener | None:
    """What opens sealed pairs with the identities in this file. None without one.

    `ask` gives the passphrase for what is asked about. Raises UserError.
    """
    if identity is None:
        return None
    # Slow to import, and needed only with sealed pairs.
    from jobs.sealing.identities import read_identities

    for warning in too_open(identity) if identity.is_file() else ():
        warn(warning)
    return Opener(read_identities(identity, ask), base_url)


def open_held(held: ExitStack, place: Place, command: str, say: Callable[[str], None]) -> Ledger:
    """The ledger of a folder, which a command holds until `held` is closed. Raises UserError, with exit 11 if it is in use."""
    place.must_exist()
    hold_folder(held, place.folder, command)
    ledger = place.open(usual_wait(say), f"`{command}`")
    held.callback(ledger.close)
    return ledger


def open_whole(held: ExitStack, place: Place, command: str, say: Callable[[str], None]) -> Ledger:
    """The same, with the pairs that an earlier run had to set aside. Raises UserError also if it is half sealed."""
    ledger = open_held(held, place, command, say)
    ledger.ask(partial(refuse_half_sealed, folder=place.folder))
    take_in(ledger, place.folder, ledger.ask(place.bound_to))
    return ledger


def hold_folder(held: ExitStack, folder: Path, command: str) -> None:
    """Hold an output folder for a command until `held` is closed. Raises UserError with exit 11 if another process has it."""
    held.enter_context(hold(make_folder(folder) / LOCK, str(folder), f"`{command}`, which began {utc_now()}"))


def hold_apps(held: ExitStack, basis: Basis, client_ids: Iterable[str], holder: str) -> None:
    """Hold these apps until `held` is closed. Raises UserError with exit 11 if another process has one."""
    for client_id in sorted(client_ids):
        lock = app_lock(basis.environment, basis.base_url, client_id)
        held.enter_context(hold(lock, f"the app {client_id}", holder))


def take_apps(held: ExitStack, basis: Basis, client_ids: Collection[str], command: str) -> Leases | None:
    """The leases of these apps, which `command` holds until `held` is closed. None if the ledger is in a folder.

    Raises UserError, with exit 11 if another process or run has one.
    """
    hold_apps(held, basis, client_ids, f"{command} that began {utc_now()}")
    settings = basis.settings.ledger
    if not settings.in_database:
        return None
    from jobs.ledger.leasing import take_leases  # slow to import, and needed only with a database

    leases = take_leases(settings, basis.base_url, client_ids, command)
    held.callback(leases.give_back)
    return leases


def make_start(
    project: Path,
    environment: Mapping[str, str],
    manifest: Path,
    options: Mapping[str, str],
    chosen: Chosen | None = None,
    sheet: str | None = None,
) -> Start:
    """Everything that a run needs. It reads INPUT to its last line.

    `options` are the settings of the command line, by option. `chosen` says which column of INPUT is which, and `sheet`
    which sheet of a workbook is read. Raises UserError with every problem found.
    """
    gathered = Gathered()
    take = gathered.take
    settings, apps, url, known = read_basis(project, environment, options, gathered)
    opened = take(lambda: open_manifest(manifest, chosen or {}, sheet=sheet))
    noticed = ListWarnings()
    needed = take(lambda: needed_apps(opened.rows(noticed), apps)) if opened else set()
    take(lambda: _check_target(settings.deliver, opened.columns, known) if settings and opened else None)
    messages = load_messages(project / MESSAGES)
    gathered.raise_all()
    told = tuple(noticed.warnings())
    return Start(settings, apps, url, known, opened, frozenset(needed), messages, told)


def _check_target(deliver: DeliverSettings, columns: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raise UserError if new pairs must be handed over to a target that can never work."""
    if deliver.target is not None:
        from jobs.outgoing.deliver.opening import check_target  # slow to import, and needed only with a target

        check_target(deliver, columns, environment)


def output_for(project: Path, manifest: Path, given: Path | None, *, in_database: bool = False) -> Path:
    """The output folder: the one that was given, the output folder that holds the manifest, or `data/<its stem>`.

    If the ledger is `in_database`, no file of it is in an output folder, but a run leaves its summary there.
    """
    if given is not None:
        return given
    # Not `Path.resolve`, which takes a circle of links for a bug until Python 3.13.
    for folder in (manifest.parent, Path(os.path.realpath(manifest)).parent):
        if (folder / LEDGER).exists() or (in_database and is_summary(folder / SUMMARY)):
            return folder
    # Not `Path.stem`: from Python 3.14 on it reads names that begin with dots in a different way.
    stem = manifest.name.rpartition(".")[0] if "." in manifest.name else manifest.name
    if not stem.strip(". "):
        raise refuse("does not give a name for the output folder", str(manifest), "use --output")
    return project / "data" / stem


USUAL_ROUTES = (Route.RECONNECT, Route.AGENCY)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the user asked for in one run. `max_duration` is in seconds.

    The run recovers again what was recovered before `recovered_before` (UTC, ISO 8601). If that is empty, it leaves
    recovered installs alone. `force` also sends old refresh tokens that may be spent. `opener` opens sealed pairs of
    earlier runs.
    """

    limit: int | None = None
    max_duration: float | None = None
    causes: tuple[Cause, ...] = ()
    force: bool = False
    routes: tuple[Route, ...] = USUAL_ROUTES
    recovered_before: str = ""
    opener: Opener | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The state of INPUT's installs before a run, how many of them it would try, and how many each route can serve.

    The run leaves `recovered` alone and recovers `recovered_again` again. `unplaced` among the routes counts the installs
    that name no company: an agency may serve these too. `warnings` are what a person should know before a run. `ledger` is
    set if it is in a database. `sealed_for` are the fingerprints of those for whom new pairs are sealed.
    """

    rows: int
    installs: int
    duplicates: int
    duplicate_lines: list[int] = field(default_factory=list)
    broken_lines: int = 0
    recovered: int = 0
    recovered_again: int = 0
    unknown_app: int = 0
    never_tried: int = 0
    failed_before: dict[str, int] = field(default_factory=dict)
    agencies_to_do: int = 0
    to_do: int = 0
    routes: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    deliver_to: str = ""
    undelivered: int = 0
    ledger: LastUse | None = None
    sealed_for: tuple[str, ...] = ()

    @property
    def where_pairs_go(self) -> list[str]:
        """Where the ledger is and for whom new pairs are sealed, for a person. Empty: in the folder, and for nobody."""
        ledger = [str(self.ledger)] if self.ledger else []
        sealed = [f"new pairs are sealed for {' and '.join(self.sealed_for)}"] if self.sealed_for else []
        return ledger + sealed


def with_apps(rows: Iterable[Row | Broken], apps: Apps) -> Iterator[Row | Broken]:
    """`rows`, with the client id of the only app in each row that leaves it out."""
    for row in rows:
        if isinstance(row, Broken) or row.client_id:
            yield row
        elif apps.only:
            yield replace(row, client_id=apps.only)
        else:
            location = row.account_id if row.level is Level.SUB_ACCOUNT else ""
            why = f"line {row.line} names no client id, and several apps are configured"
            yield Broken(row.line, location, row.company_id, "", row.cells, why)


def needed_apps(rows: Iterable[Row | Broken], apps: Apps) -> set[str]:
    """The configured client ids that `rows` use. It reads all rows, so that it finds a bad line before anything begins.

    Raises UserError if the secret of one is missing.
    """
    needed = {row.client_id for row in with_apps(rows, apps) if isinstance(row, Row)}
    problems: list[Problem] = [problem for client_id, problem in apps.missing.items() if client_id in needed]
    if problems:
        raise UserError(*problems)
    return needed & set(apps.known)


def staged(start: Start, manifest: Enrolment) -> int:
    """The number of rows of INPUT, which is staged."""
    return manifest.stage(with_apps(start.manifest.rows(), start.apps))


def plan_of(start: Start, manifest: Enrolment, rows: int, before: str, causes: Sequence[Cause] = ()) -> Plan:
    """The plan for the staged rows. What was recovered `before` (see `RunOptions`) would be recovered again."""
    count, lines = manifest.duplicate_lines()
    duplicates, broken = (count, [*map(start.manifest.table.line, lines)]), manifest.broken_lines()
    return _plan(rows, duplicates, broken, manifest.staged(before), start.needed, causes)


def _plan(
    rows: int,
    duplicates: tuple[int, list[int]],
    broken_lines: int,
    groups: Sequence[StagedGroup],
    known: Iterable[str],
    causes: Sequence[Cause],
) -> Plan:
    apps = set(known)
    failed: dict[str, int] = {}
    recovered = again = unknown = never = agencies = to_do = 0
    for group in groups:
        is_back = group.status == Status.RECOVERED and not group.again
        recovered += group.how_many if is_back else 0
        again += group.how_many if group.again else 0
        if group.client_id not in apps:
            unknown += 0 if is_back else group.how_many
            continue
        wanted = not is_back and (not causes or group.cause in causes)
        if not is_back and group.cause:
            failed[group.cause] = failed.get(group.cause, 0) + group.how_many
        elif not is_back and not group.again:
            never += group.how_many
        to_do += group.how_many if wanted else 0
        agencies += group.how_many if wanted and group.level == Level.AGENCY else 0
    installs = rows - duplicates[0]
    return Plan(rows, installs, *duplicates, broken_lines, recovered, again, unknown, never, failed, agencies, to_do)
