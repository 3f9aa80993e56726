"""The commands and their options. A user's mistake becomes one line and an exit code. There is no logic here."""

from __future__ import annotations

import itertools
import json
import os
import sys
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import click

from jobs import __version__
from jobs.core.clock import utc_now
from jobs.core.errors import Exit, Problem, UserError, refuse
from jobs.core.file_errors import FileError
from jobs.core.model import Cause, Route
from jobs.options import (
    BEFORE,
    COLUMNS,
    IDENTITY,
    INPUT,
    LOG_FORMAT,
    OUTPUT,
    PATH,
    QUIET,
    ROUTES,
    SHEET,
    Duration,
    ask_passphrase,
    chosen_columns,
    given_options,
    sure,
)
from jobs.system.process import fill_streams, no_core_dumps, too_little_memory
from jobs.system.signals import Interrupted, Signals

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jobs.start import Start
    from jobs.terminal.live import LiveScreen
    from jobs.terminal.streams import Stream
    from jobs.terminal.terminal import Terminal

_MOST_INSTALLS = 1_000_000_000


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="recover")
def cli() -> None:
    """Bring back the OAuth connections of a HighLevel app."""


@cli.command()
@INPUT
@OUTPUT
@click.option("--rate", type=float, help="Requests a second.")
@click.option("--workers", type=int, help="How many requests may be under way at once.")
@click.option("--limit", type=click.IntRange(1, _MOST_INSTALLS), help="Stop after this many installs.")
@click.option("--max-duration", type=Duration(), help="Stop after this time: 2h, 1h30m, 90m, 30s.")
@click.option(
    "--cause",
    "causes",
    multiple=True,
    type=click.Choice([c.value for c in Cause]),
    help="Only installs that failed with this cause.",
)
@ROUTES
@COLUMNS
@SHEET
@click.option("--force", is_flag=True, help="Try recovered installs too. A new pair may end the one in use.")
@BEFORE
@IDENTITY
@QUIET
@LOG_FORMAT
@click.pass_obj
def run(
    terminal: Terminal,
    manifest: Path,
    output: Path | None,
    rate: float | None,
    workers: int | None,
    limit: int | None,
    max_duration: float | None,
    causes: tuple[str, ...],
    routes: tuple[Route, ...],
    columns: tuple[str, ...],
    sheet: str | None,
    force: bool,
    before: str | None,
    identity: Path | None,
    quiet: bool,
    log_format: str,
) -> int:
    """Recover the installs that INPUT lists."""
    from jobs.monitor import noting_refusals
    from jobs.recover import recover
    from jobs.start import PROJECT, RunOptions, opener_of

    del quiet, log_format  # `_terminal` has read them.
    if force and before:
        raise click.UsageError("--force means now, and --recovered-before means another moment: give only one of them")
    terminal.begins(manifest, given_options())
    with noting_refusals(manifest, output, PROJECT, os.environ, terminal.waits):
        start = _start(manifest, rate, workers, columns, sheet)
        secrets = [app.client_secret for app in start.apps.known.values()]
        secrets += [start.settings.notify.url, *start.settings.ping.secrets]
        secrets += [*start.settings.deliver.secrets, *start.settings.ledger.url.secrets]
        terminal.configured(start.settings.log.level, secrets, start.warnings)
        opener = opener_of(identity, start.base_url, ask_passphrase, terminal.warn)
        moment = utc_now() if force else before or ""
        run_options = RunOptions(
            limit, max_duration, tuple(Cause(cause) for cause in causes), force, routes, moment, opener
        )
        return recover(start, _output(start, output), run_options, terminal)


def _start(manifest: Path, rate: float | None, workers: int | None, columns: Sequence[str], sheet: str | None) -> Start:
    from jobs.start import PROJECT, make_start

    given = {option: str(value) for option, value in (("--rate", rate), ("--workers", workers)) if value is not None}
    return make_start(PROJECT, os.environ, manifest, given, chosen_columns(columns), sheet)


def _output(start: Start, output: Path | None) -> Path:
    from jobs.start import PROJECT, output_for

    return output_for(PROJECT, start.manifest.path, output, in_database=start.settings.ledger.in_database)


@cli.command()
@INPUT
@OUTPUT
@ROUTES
@BEFORE
@COLUMNS
@SHEET
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def plan(
    manifest: Path,
    output: Path | None,
    routes: tuple[Route, ...],
    before: str | None,
    columns: tuple[str, ...],
    sheet: str | None,
    as_json: bool,
) -> int:
    """Show what a run would do. Nothing is sent, nothing is written."""
    from jobs.plan import preview, tell

    start = _start(manifest, None, None, columns, sheet)
    made = preview(start, _output(start, output), routes, before or "")
    lines = [json.dumps(asdict(made))] if as_json else tell(made, start.settings.pace.requests_per_second)
    for line in lines:
        click.echo(line)
    if getattr(sys.stdout, "failed", False):
        raise refuse("cannot be written", "the answer", "give plan a standard output that can be written")
    return Exit.OK


@cli.command()
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--cut-short", "code", type=int, hidden=True)
@click.option("--run-id", default="", hidden=True)
@click.option("--requests", type=int, default=0, hidden=True)
@click.option("--rate-limited", type=int, default=0, hidden=True)
@click.option("--then", "command", default="", hidden=True)
@click.option("--lease", default="", hidden=True)
@click.pass_obj
def report(
    terminal: Terminal,
    folder: Path,
    code: int | None,
    run_id: str,
    requests: int,
    rate_limited: int,
    command: str,
    lease: str,
) -> int:
    """Write the reports in DIR again from its ledger, even while a run is under way."""
    from jobs.monitor import end_with, note
    from jobs.report import CutShort, report_again
    from jobs.start import PROJECT

    cut_short = None if code is None else CutShort(code, requests, rate_limited, lease)
    try:
        run, changed = report_again(folder, PROJECT, os.environ, terminal.waits, cut_short)
    except (UserError, FileError) as error:
        if code is None:
            raise
        terminal.broke([str(error)])
        note(end_with(Exit(code)) | {"running": 0.0}, folder, PROJECT, os.environ, terminal.warn)
    else:
        terminal.knows(run, folder, command, changed=changed)
    if code is not None:
        _notify(terminal, code, run_id)
        raise SystemExit(code)  # The run has already said its last line.
    click.echo(f"the reports in {folder} are rendered again")
    return Exit.OK


@cli.command()
@click.argument("folder", metavar="DIR", type=PATH)
@click.option(
    "--id", "ids", multiple=True, help="Only this install, even if its pair was taken. Repeat it for more installs."
)
@click.option("--all", "everything", is_flag=True, help="Every pair, even if it was taken.")
@click.option("--test", is_flag=True, help="Hand over one made-up pair, which leaves nothing behind.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@IDENTITY
@click.pass_obj
def deliver(
    terminal: Terminal,
    folder: Path,
    ids: tuple[str, ...],
    everything: bool,
    test: bool,
    yes: bool,
    identity: Path | None,
) -> int:
    """Hand over to your app the pairs that wait in DIR. HighLevel is not asked for anything."""
    from jobs.deliver import deliver as hand_over
    from jobs.deliver import test as try_out
    from jobs.start import PROJECT

    if test:
        return try_out(folder, PROJECT, os.environ, click.echo)
    if ids and everything:
        raise click.UsageError("--all means every install, and --id means some of them: give only one of them")
    if everything:
        sure("a pair that your app has refreshed since would break that connection again", yes=yes)
    again = None if everything else ids
    return hand_over(folder, PROJECT, os.environ, again, terminal, identity, ask_passphrase)


@cli.command("open")
@click.argument("folder", metavar="DIR", type=PATH)
@IDENTITY
@click.option("--output", type=PATH, help="File for the table, or - for standard output.  [DIR/opened.csv]")
@click.pass_obj
def open_(terminal: Terminal, folder: Path, identity: Path | None, output: Path | None) -> int:
    """Write the table of results.csv with the tokens of the sealed pairs in DIR."""
    from jobs.open_pairs import STANDARD_OUTPUT, open_pairs
    from jobs.start import PROJECT

    if identity is None:
        raise click.UsageError("sealed pairs need what opens them; give its file with --identity")
    terminal.opening_pairs(folder, identity, *([output] if output else []), beside=output == STANDARD_OUTPUT)
    tell = partial(click.echo, err=output == STANDARD_OUTPUT)
    return open_pairs(folder, PROJECT, os.environ, identity, output, ask_passphrase, terminal.waits, tell)


@cli.command()
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--all", "everything", is_flag=True, help="Also pairs that were not delivered.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge(terminal: Terminal, folder: Path, everything: bool, yes: bool) -> int:
    """Forget the token pairs in DIR that were delivered."""
    from jobs.purge import purge as forget
    from jobs.start import PROJECT

    is_sure = partial(sure, yes=yes)
    for line in forget(folder, PROJECT, os.environ, everything=everything, sure=is_sure, say=terminal.waits):
        click.echo(line)
    return Exit.OK


@cli.command()
@click.argument("folder", metavar="DIR", type=PATH)
@IDENTITY
@click.pass_obj
def seal(terminal: Terminal, folder: Path, identity: Path | None) -> int:
    """Seal the open pairs in DIR for seal.recipients. With --identity, also those that are sealed for others."""
    from jobs.seal import seal as seal_pairs
    from jobs.start import PROJECT

    terminal.sealing_pairs(folder, *([identity] if identity else []))
    return seal_pairs(folder, PROJECT, os.environ, identity, ask_passphrase, terminal.waits, click.echo)


@cli.command()
@INPUT
@click.option("--output", type=PATH, help="A list for `recover run` of what is not known to work.")
@click.option("--with-tokens", is_flag=True, help="Keep the tokens in that list, for the routes that need them.")
@click.option("--rate", type=float, help="Requests a second.")
@COLUMNS
@SHEET
@QUIET
@LOG_FORMAT
@click.pass_obj
def check(
    terminal: Terminal,
    manifest: Path,
    output: Path | None,
    with_tokens: bool,
    rate: float | None,
    columns: tuple[str, ...],
    sheet: str | None,
    quiet: bool,
    log_format: str,
) -> int:
    """Say which installs that INPUT lists have an access token that works.

    One GET an install. It proves only the access token, and spends nothing: no refresh token is sent, and no pair is changed.
    With - in place of INPUT it reads the list from a pipe.
    """
    from jobs.check import check as look
    from jobs.check import prepare
    from jobs.start import PROJECT

    del quiet, log_format  # `_terminal` has read them.
    if with_tokens and output is None:
        raise click.UsageError("--with-tokens keeps tokens in the list of --output; give that too")
    terminal.begins(manifest, given_options())
    options = {} if rate is None else {"--rate": str(rate)}
    question = prepare(PROJECT, os.environ, manifest, options, chosen_columns(columns), sheet)
    secrets = [app.client_secret for app in question.apps.known.values()]
    secrets += question.settings.ledger.url.secrets
    terminal.configured(question.settings.log.level, secrets, question.warnings)
    return look(question, output, terminal, with_tokens=with_tokens)


@cli.command()
@click.option(
    "--company", "companies", multiple=True, required=True, help="Id of an agency. Repeat it for more agencies."
)
@click.option("--from", "source", type=PATH, help="Output folder of the run that recovered the agency.")
@click.option(
    "--output",
    type=PATH,
    default="installs.csv",
    show_default=True,
    help="The list to add to. Its lines are kept.",
)
@IDENTITY
def discover(companies: tuple[str, ...], source: Path | None, output: Path, identity: Path | None) -> int:
    """Make a list of installs from what agencies say about their locations."""
    from jobs.discover import discover as ask
    from jobs.discover import prepare
    from jobs.start import PROJECT, opener_of

    if identity is not None and source is None:
        raise click.UsageError("--identity opens the pairs in the folder of --from; give that too")
    complain = partial(click.echo, err=True)
    opener_for = partial(opener_of, identity, ask=ask_passphrase, warn=complain)
    return ask(prepare(PROJECT, os.environ, companies, source, output, opener_for), output, click.echo, complain)


@cli.group()
def ledger() -> None:
    """What the ledger in PostgreSQL needs."""


@ledger.command()
@click.argument("source", metavar="FROM", type=PATH)
@click.argument("target", metavar="TO", type=PATH)
@click.pass_obj
def copy(terminal: Terminal, source: Path, target: Path) -> int:
    """Copy a ledger to where it is used from now on. The old one is marked as moved.

    One of FROM and TO is an output folder. The other is the word `database`: the ledger in PostgreSQL with the folder's
    name, or ledger.name.
    """
    from jobs.ledger_copy import copy as move
    from jobs.start import PROJECT

    is_database = [str(path) == "database" for path in (source, target)]
    if sum(is_database) != 1:
        raise click.UsageError("one of FROM and TO must be the word `database`, and the other an output folder")
    folder = source if is_database[1] else target
    for line in move(folder, PROJECT, os.environ, terminal.waits, into_database=is_database[1]):
        click.echo(line)
    return Exit.OK


@ledger.command()
def who() -> int:
    """Show who holds which lease in the database, since when and until when."""
    from jobs.leases import who as show
    from jobs.start import PROJECT

    for line in show(PROJECT, os.environ):
        click.echo(line)
    return Exit.OK


@ledger.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def release(yes: bool) -> int:
    """Break the leases of the configured apps and of the ledger, if you know that their holder is gone.

    A lease of a run that was killed runs out by itself, so this is for a long ledger.lease_seconds.
    """
    from jobs.leases import release as free
    from jobs.start import PROJECT

    for line in free(PROJECT, os.environ, partial(sure, yes=yes)):
        click.echo(line)
    return Exit.OK


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True)
@click.option("--world", type=PATH, help="File that says how apps and installs behave.")
@click.option("--receiver", is_flag=True, help="Also run a store that new pairs can be handed over to.")
def sandbox(port: int, world: Path | None, receiver: bool) -> int:
    """Run a local HighLevel to rehearse with."""
    from jobs.sandbox.command import run as serve
    from jobs.start import PROJECT

    try:
        serve(world or PROJECT / "data" / "sandbox.example.json", port, sys.stdout, receiver=receiver)
    except ValueError as error:
        what, _, todo = str(error).rpartition(": ")
        raise UserError(Problem(what, "", todo)) from None
    return Exit.OK


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code."""
    signals = Signals()
    from jobs.system.descriptors import one_descriptor_kept
    from jobs.terminal.streams import open_streams

    fill_streams()
    no_core_dumps()
    given = sys.argv[1:] if arguments is None else arguments
    terminal = _terminal(given, *open_streams())
    if problem := too_little_memory():
        terminal.broke([str(problem)])
        terminal.exits(Exit.CANNOT_START)
        sys.exit(Exit.CANNOT_START)  # What would notify of this end cannot be loaded, either.
    if address := os.environ.get("RECOVERY_LEDGER__URL"):
        from jobs.config.settings import DatabaseUrl

        terminal.hides(DatabaseUrl(address).secrets)  # Before anything can go wrong.
    pings = True
    try:
        # The code that says how the command ended may be loaded only then, which needs a file descriptor.
        with signals.raised(earlier=True), one_descriptor_kept():
            code = cli.main(given, prog_name="recover", standalone_mode=False, obj=terminal) or 0
    except Interrupted as interrupted:
        code = interrupted.code
    except Exception as error:  # noqa: BLE001 - each has its row in `ending_of`
        from jobs.core.endings import ending_of

        code, problems, text = ending_of(error)
        # Somebody who mistypes an option must not fail the run that is watched. A crontab with a wrong one is missed by itself.
        pings = not isinstance(error, click.UsageError)
        terminal.broke(problems, text)
    if given[:1] == ["run"]:
        try:
            with signals.raised(earlier=False):
                _notify(terminal, int(code), pings=pings)
        except Interrupted:
            terminal.warn("a signal cut the notification short: it may not have arrived", asked=True)
    terminal.exits(int(code))
    sys.exit(int(code))


def _notify(terminal: Terminal, code: int, run_id: str = "", *, pings: bool = True) -> None:
    """Tell those who asked for it how the run ended, even if it could not start."""
    from jobs.config.settings import NotifySettings, PingSettings
    from jobs.start import PROJECT, readable_environment, section_of

    settings = section_of(NotifySettings, PROJECT, os.environ)
    ping = section_of(PingSettings, PROJECT, os.environ)
    terminal.hides((settings.url, *ping.secrets))  # A run that could not start has hidden nothing yet.
    news = terminal.news(code) if settings.anybody or ping.url.reveal() else None
    if news is None:
        return
    from jobs.outgoing.notify import notify
    from jobs.outgoing.ping import Watcher

    environment, news = readable_environment(PROJECT, os.environ), replace(news, run_id=run_id)
    watched = Watcher(ping.url, environment).ended(news) if pings else ()
    for warning in itertools.chain(watched, notify(settings, news, PROJECT, environment)):
        terminal.warn(warning, asked=bool(code))


def _terminal(arguments: list[str], out: Stream, err: Stream) -> Terminal:
    """The terminal that the command writes to. Parsing the arguments may fail, and that is told on it already."""
    from jobs.terminal.terminal import Terminal, draws

    def screen() -> LiveScreen:
        from jobs.terminal.live import LiveScreen, console

        return LiveScreen(console(err))

    options = arguments[1 : arguments.index("--") if "--" in arguments else None]
    for_run = arguments[:1] in (["run"], ["check"])
    as_json = for_run and ("--log-format=json" in options or ("--log-format", "json") in itertools.pairwise(options))
    quiet = for_run and "--quiet" in options
    drawn = for_run and not as_json and not quiet and draws(err, os.environ)
    return Terminal(out, err, for_run=for_run, quiet=quiet, as_json=as_json, screen=screen if drawn else None)
