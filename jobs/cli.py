"""The commands and their options. A user's error becomes one line and an exit code; no logic is here."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs import __version__
from jobs.errors import EXIT_WORDS, Exit, Problem, UserError, refuse
from jobs.model import Cause

if TYPE_CHECKING:
    from jobs.logs import Net
    from jobs.start import Start

_DURATION = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
_PR_SET_DUMPABLE = 4


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = _DURATION.fullmatch(str(value))
        if not value or found is None:
            self.fail(f"{value} is no duration; write it like 2h, 1h30m, 90m or 30s", param, ctx)
        hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return float(hours * 3600 + minutes * 60 + seconds)


_INPUT = click.argument("manifest", metavar="INPUT", type=click.Path(path_type=Path))
_OUTPUT = click.option(
    "--output", type=click.Path(path_type=Path), help="Folder of the results.  [data/<stem of INPUT>]"
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="recover")
def cli() -> None:
    """Bring the OAuth connections of a HighLevel app back."""


@cli.command()
@_INPUT
@_OUTPUT
@click.option("--rate", type=float, help="Requests a second.")
@click.option("--workers", type=int, help="Requests under way at once, at most.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after that many installs.")
@click.option("--max-duration", type=_Duration(), help="Stop after that time: 2h, 1h30m, 90m, 30s.")
@click.option(
    "--cause", "causes", multiple=True, type=click.Choice([c.value for c in Cause]), help="Only what failed so."
)
@click.option("--force", is_flag=True, help="Also what is recovered: a new pair may end the one in use.")
@click.option("--quiet", is_flag=True, help="Say nothing where all is well.")
@click.option("--log-format", type=click.Choice(["console", "json"]), default="console", show_default=True)
def run(
    manifest: Path,
    output: Path | None,
    rate: float | None,
    workers: int | None,
    limit: int | None,
    max_duration: float | None,
    causes: tuple[str, ...],
    force: bool,
    quiet: bool,
    log_format: str,
) -> int:
    """Recover the installs that INPUT lists."""
    from jobs.logs import Net, set_up_logs
    from jobs.recover import recover
    from jobs.start import PROJECT, output_for
    from jobs.terminal import Terminal
    from jobs.wishes import Wishes

    start = _start(manifest, rate, workers)
    assert isinstance(sys.stdout, Net)
    assert isinstance(sys.stderr, Net)
    as_json = log_format == "json"
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    logger = set_up_logs(sys.stderr, level=start.settings.log.level, as_json=as_json, colors=colors)
    terminal = Terminal(sys.stdout, sys.stderr, logger, quiet=quiet, as_json=as_json)
    wishes = Wishes(limit, max_duration, tuple(Cause(cause) for cause in causes), force)
    return recover(start, output_for(PROJECT, manifest, output), wishes, terminal)


def _start(manifest: Path, rate: float | None, workers: int | None) -> Start:
    from jobs.start import PROJECT, make_start

    given = {option: str(value) for option, value in (("--rate", rate), ("--workers", workers)) if value is not None}
    return make_start(PROJECT, os.environ, manifest, given)


@cli.command()
@_INPUT
@_OUTPUT
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def plan(manifest: Path, output: Path | None, as_json: bool) -> int:
    """Say what a run would do. Nothing is sent, nothing is written."""
    from jobs.plan import tell
    from jobs.preview import preview
    from jobs.start import PROJECT, output_for

    start = _start(manifest, None, None)
    made = preview(start, output_for(PROJECT, manifest, output))
    lines = [json.dumps(asdict(made))] if as_json else tell(made, start.settings.pace.requests_per_second)
    for line in lines:
        click.echo(line)
    if getattr(sys.stdout, "failed", False):
        raise refuse("cannot be written", "the answer", "give plan a standard output that works")
    return Exit.OK


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def report(folder: Path) -> int:
    """Render the reports of DIR again, also while a run is under way."""
    from jobs.preview import report_again
    from jobs.start import PROJECT

    report_again(folder, PROJECT, os.environ)
    click.echo(f"the reports in {folder} are rendered again")
    return Exit.OK


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True)
@click.option("--world", type=click.Path(path_type=Path), help="How clients and installs behave.")
def sandbox(port: int, world: Path | None) -> int:
    """A local HighLevel to rehearse with."""
    from jobs.sandbox.command import run as serve
    from jobs.start import PROJECT

    try:
        serve(world or PROJECT / "data" / "sandbox.example.json", port, sys.stdout)
    except ValueError as error:
        raise UserError(Problem(str(error), "", "mend it and start again")) from None
    return Exit.OK


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code."""
    from jobs.logs import nets

    _no_core_dumps()
    _, err = nets()
    try:
        code = cli.main(arguments, prog_name="recover", standalone_mode=False)
    except UserError as error:
        for problem in error.problems:
            err.write(f"error: {problem}\n")
        code = _said(err, error.code)
    except click.exceptions.NoArgsIsHelpError as error:
        err.write(f"{error.format_message()}\n")
        code = _said(err, Exit.CANNOT_START)
    except click.ClickException as error:
        err.write(f"error: {error.format_message()} (see recover --help)\n")
        code = _said(err, Exit.CANNOT_START)
    except OSError as error:
        err.write(f"error: {error.filename or 'the disk'}: {error.strerror or error}: make room or mend its rights\n")
        code = _said(err, Exit.STOPPED_EARLY)
    except (click.Abort, KeyboardInterrupt):
        code = _said(err, Exit.SIGINT)
    except Exception:  # noqa: BLE001 - a bug keeps its traceback, scrubbed by the net
        err.write(traceback.format_exc())
        code = _said(err, Exit.BUG)
    sys.exit(int(code or 0))


def _said(err: Net, code: Exit) -> Exit:
    """The code, whose words are the last line."""
    err.write(f"exit {int(code)}: {EXIT_WORDS[code]}\n")
    return code


def _no_core_dumps() -> None:
    """Keep secrets out of a core dump, also where the system pipes it to a program."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
