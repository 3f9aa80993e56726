"""The story of a check: which installs of a list have an access token that works.

Each install gets one GET, which is paced and tried again like every call. It proves only the access token, and spends
nothing: no refresh token is sent, and only `--output` is written.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs.config.apps import too_open
from jobs.core.checks import GOOD, Check, verdict
from jobs.core.clock import utc_now
from jobs.core.errors import Exit, Gathered, UserError, refuse
from jobs.core.file_errors import FileError
from jobs.core.model import Broken, Counts, InstallKey, Row, Run
from jobs.core.plurals import counted
from jobs.highlevel.jwt_claims import EXPIRED, read_claims, why_useless
from jobs.manifest.distinct import Distinct
from jobs.manifest.piped import NAMED, STANDARD_INPUT, piped
from jobs.manifest.reader import open_manifest
from jobs.manifest.warnings import ListWarnings
from jobs.recovery.inquiry import inquire
from jobs.recovery.stop import Left, Stop, end_at_once, end_of
from jobs.reports.affected import AffectedList, Shape
from jobs.reports.files import SUMMARY
from jobs.reports.summary import is_summary
from jobs.start import Basis, read_basis, take_apps, with_apps
from jobs.system.files import clear_left_behind, replacing
from jobs.system.signals import on_signals
from jobs.terminal.checks import Opening, Standing, closing_block

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping
    from pathlib import Path

    from jobs.config.apps import Apps
    from jobs.core.model import Answer
    from jobs.core.secret import Secret
    from jobs.highlevel.api import HighLevel
    from jobs.ledger.lease import Leases
    from jobs.manifest.layout import Chosen
    from jobs.manifest.reader import Manifest
    from jobs.recovery.inquiry import Round
    from jobs.terminal.terminal import Terminal

_SCOPE = re.compile(r"[\w./-]+")
_SEEN_AT_ONCE = 500
_NO_TOKEN = "the list has no access token for it"  # noqa: S105 - words


@dataclass(frozen=True, slots=True)
class Listed:
    """What the whole list holds: how many lines, installs (each counted once) and broken lines, their apps, and warnings."""

    lines: int
    installs: int
    broken: int
    client_ids: frozenset[str]
    has_torn_lines: bool
    warnings: tuple[str, ...]

    @property
    def total(self) -> int:
        """How many results the check has: one for each install and broken line."""
        return self.installs + self.broken

    @property
    def repeated(self) -> int:
        """How many lines repeat an install."""
        return self.lines - self.total


@dataclass(frozen=True, slots=True)
class Question(Basis):
    """All that is known before the first request. `left` holds the installs that were not looked at yet."""

    manifest: Manifest
    listed: Listed
    left: Distinct

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know before the first request. None of it stops the check."""
        readable = too_open(self.manifest.path) if self.manifest.data is None else ()
        return (*self.apps.warnings, *readable, *self.listed.warnings)


@dataclass(frozen=True, slots=True)
class Case:
    """An install whose access token HighLevel is asked about. `scopes` say what the token may do, None if unknown."""

    row: Row
    key: InstallKey
    token: Secret
    scopes: Collection[str] | None


class Finding(NamedTuple):
    """The result of a line of the list. `answer` is what HighLevel said, if it was asked and did not give the account."""

    row: Row | Broken
    check: Check
    why: str = ""
    answer: Answer | None = None


def prepare(
    project: Path,
    environment: Mapping[str, str],
    source: Path,
    options: Mapping[str, str],
    chosen: Chosen,
    sheet: str | None,
) -> Question:
    """All that a check needs, with the whole list read. Raises UserError with every problem found."""
    gathered, left = Gathered(), Distinct()
    settings, apps, url, known = read_basis(project, environment, options, gathered)
    data, path = piped(source), NAMED if source == STANDARD_INPUT else source
    manifest = gathered.take(lambda: open_manifest(path, chosen, data, sheet))
    listed: Any = gathered.take(lambda: _listed(manifest, apps, left)) if manifest else None
    gathered.raise_all()
    return Question(settings, apps, url, known, manifest, listed, left)


def _listed(manifest: Manifest, apps: Apps, left: Distinct) -> Listed:
    """What the list holds. Each of its installs is put into `left`."""
    noticed, lines, installs, broken, torn = ListWarnings(), 0, 0, 0, False
    clients: set[str] = set()
    for row in with_apps(manifest.rows(noticed), apps):
        lines += 1
        if isinstance(row, Row):
            installs += left.add(_key(row))
            clients.add(row.client_id)
        else:
            broken += 1
            torn = torn or len(row.cells) > len(manifest.columns)
    if noticed.sealed.count:
        raise _needs_open(manifest.path, noticed.sealed.count)
    return Listed(lines, installs, broken, frozenset(clients), torn, tuple(noticed.warnings()))


def _needs_open(path: Path, count: int) -> UserError:
    folder = quote(str(path.parent)) if is_summary(path.parent / SUMMARY) else "DIR"
    todo = f"run `recover open {folder} --identity FILE --output - | recover check -`"
    return refuse(f"holds {counted(count, 'sealed pair', 'sealed pairs')}, which a check cannot read", str(path), todo)


def _key(row: Row) -> InstallKey:
    return InstallKey(row.client_id, row.level, row.account_id)


def check(question: Question, output: Path | None, terminal: Terminal, *, with_tokens: bool) -> Exit:
    """Check every install of the list, and write those that are not known to work to `output`. Returns the exit code.

    Raises UserError and FileError before anything is sent.
    """
    if output is not None:
        _refuse_input(output, question.manifest.path)
    stop = Stop(time.monotonic)
    standing = Standing(question.listed.total)
    with ExitStack() as held:
        held.callback(question.left.close)
        me, client_ids = f"recover check on {question.manifest.path}", question.listed.client_ids
        leases = take_apps(held, question, client_ids, me)
        try:
            with ExitStack() as written:
                affected = written.enter_context(_affected(question, output, with_tokens=with_tokens))
                written.enter_context(on_signals(stop.signal, partial(_cut_short, terminal, output, leases)))
                terminal.checking(_opening(question, output))
                book = _Book(standing, affected, terminal)
                for now in written.enter_context(closing(_ask_all(question, stop, book, leases))):
                    standing.requests = now.requests
                    terminal.checked(standing, now, signalled=stop.signalled)
        except FileError as refused:
            if not standing.requests:
                raise
            stop.must(refused.because, Exit.STOPPED_EARLY, str(refused))
    return _end(question, output, stop, book, terminal)


def _refuse_input(output: Path, source: Path) -> None:
    """Refuse an output that is a folder, or the list itself under any name. A link is replaced, not followed."""
    if output.is_dir() and not output.is_symlink():
        raise refuse("is a folder", str(output), "give the name of a file to --output")
    with suppress(OSError):
        there = output.lstat()
        if any(os.path.samestat(there, one) for one in (source.stat(), source.lstat())):
            raise refuse("is INPUT itself", str(output), "give another name to --output")


@contextmanager
def _affected(question: Question, output: Path | None, *, with_tokens: bool) -> Iterator[AffectedList | None]:
    """The list that replaces `output` when the block ends well, or None if nobody asked for one."""
    if output is None:
        yield None
        return
    clear_left_behind(output.parent, output.name)
    with replacing(output) as file:
        shape = Shape(question.manifest.columns, with_tokens, question.listed.has_torn_lines)
        affected = AffectedList(file, shape)
        yield affected
        affected.close()


def _cut_short(terminal: Terminal, output: Path | None, leases: Leases | None, code: Exit) -> None:
    if output is not None:  # A half-written list may hold tokens.
        with suppress(OSError):
            clear_left_behind(output.parent, output.name)
    terminal.cut_short(code, "stopped at once; no list was written")
    end_at_once(leases)


def _opening(question: Question, output: Path | None) -> Opening:
    listed, pace = question.listed, question.settings.pace.requests_per_second
    return Opening(output, listed.installs, listed.repeated, listed.broken, len(listed.client_ids), pace)


class _Book:
    """Puts each finding into the counts, onto the terminal, and into the list if there is one."""

    def __init__(self, standing: Standing, affected: AffectedList | None, terminal: Terminal) -> None:
        self.standing = standing
        self.affected = affected
        self._terminal = terminal

    def settle(self, finding: Finding) -> None:
        """Put a finding where it belongs."""
        row, check, answer = finding.row, finding.check, finding.answer
        if self.affected is not None and check not in GOOD:
            self.affected.add(row, check)
        self.standing.counts[check] += 1
        self._terminal.found(check, row, finding.why or (answer.message if answer else ""), answer)


def _ask_all(question: Question, stop: Stop, book: _Book, leases: Leases | None) -> Generator[Round[Case]]:
    """Settle every install of the list: by what its token says about itself, or by HighLevel's answer."""

    def cases(api: HighLevel) -> Iterator[Case | None]:
        return _cases(question, stop, book, api.server_time)

    with closing(inquire(question, stop, _ask, _tells, cases, leases)) as rounds:
        for now in rounds:
            for case, answer in now.replies:
                book.settle(Finding(case.row, verdict(answer), answer=answer))
            yield now


def _cases(question: Question, stop: Stop, book: _Book, now: Callable[[], float]) -> Iterator[Case | None]:
    """The installs that HighLevel is asked about, each once. The others are settled here. None lets the caller look up."""
    settled = 0
    for row in with_apps(question.manifest.rows(), question.apps):
        if stop.asked():
            return
        if isinstance(row, Row) and not question.left.take(_key(row)):
            continue
        found = _by_itself(row, now())
        if isinstance(found, Case):
            yield found
            continue
        book.settle(found)
        settled += 1
        if settled % _SEEN_AT_ONCE == 0:
            yield None


def _by_itself(row: Row | Broken, now: float) -> Finding | Case:
    """The finding that the list alone decides, or the case that HighLevel must be asked about."""
    if isinstance(row, Broken):
        return Finding(row, Check.UNKNOWN, row.why)
    if row.access_token is None:
        return Finding(row, Check.CORRUPTED, _NO_TOKEN)
    key = _key(row)
    if why := why_useless(row.access_token, key, now):
        return Finding(row, Check.EXPIRED if why == EXPIRED else Check.CORRUPTED, why)
    return Case(row, key, row.access_token, _scopes(row.access_token, row.scope))


def _scopes(token: Secret, listed: str) -> Collection[str] | None:
    """The scopes that the token itself names, otherwise those `listed`, or None if neither says."""
    claims = read_claims(token)
    if claims is not None and claims.scopes is not None:
        return claims.scopes
    return _SCOPE.findall(listed) or None


def _ask(api: HighLevel, case: Case) -> None:
    api.prove(case.key, case.token, case.scopes)


def _tells(answer: Answer) -> bool:
    return verdict(answer) is not Check.UNKNOWN


def _end(question: Question, output: Path | None, stop: Stop, book: _Book, terminal: Terminal) -> Exit:
    """Show the closing block. Returns the exit code."""
    standing, listed = book.standing, question.listed
    code = end_of(stop.because, stop.code, Left.SOME if standing.left else Left.NOTHING, failed=standing.bad > 0)
    stopped = bool(stop.because) and code not in {Exit.OK, Exit.SOME_FAILED}
    affected = book.affected
    if affected is not None and affected.starred:
        terminal.warn(f"what looks like a token or a secret is starred in {output}: {', '.join(affected.starred)}")
    counts = Counts(listed.lines, listed.total, listed.repeated)
    run = Run("", question.manifest.path_in_reports, question.base_url, "", utc_now(), int(code), counts=counts)
    run = replace(run, stopped_because=stop.because, met=stop.met) if stopped else run
    is_there = output if affected is not None and stop.because != FileError.because else None
    terminal.check_ended(run, standing, closing_block(standing, is_there))
    return code
