"""What the options of the commands accept: durations, moments, routes, columns, and the options that several commands share."""

from __future__ import annotations

import getpass
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from jobs.core.clock import past_moment, utc
from jobs.core.errors import refuse
from jobs.core.model import Route

if TYPE_CHECKING:
    from collections.abc import Sequence

_DURATION = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
_LONGEST_HOURS = 8_760
_MOST_SHOWN = 40
_SECRET_KEYS = ("AGE-SECRET-KEY-", "-----BEGIN")


class Duration(click.ParamType[float]):
    """`2h`, `1h30m`, `90m` or `30s`, as seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = _DURATION.fullmatch(str(value))
        if not value or found is None:
            self.fail(f"{value} is not a duration; write it like 2h, 1h30m, 90m or 30s", param, ctx)
        hours, minutes, seconds = (int(part or 0) for part in found.groups())
        duration = hours * 3600 + minutes * 60 + seconds
        if duration > _LONGEST_HOURS * 3600:
            self.fail(f"{value} is too long; give a duration from 0s to {_LONGEST_HOURS}h", param, ctx)
        return float(duration)


class SomePath(click.Path):
    """A path. An empty one is refused: it comes from a shell variable that is not set, and would be the working directory.

    A secret key is refused too, and never shown: others can see the arguments of a process.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("it is empty; give a path", param, ctx)
        if any(sign in str(value).upper() for sign in _SECRET_KEYS):
            self.fail("it is a secret key, which others can see in an argument; give a path", param, ctx)
        return super().convert(value, param, ctx)


class Moment(click.ParamType[str]):
    """A moment in the past with its offset, in the form that the ledger writes."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return past_moment(str(value), utc())
        except ValueError as error:
            self.fail(f"{str(value)[:_MOST_SHOWN]!r}: {error}", param, ctx)


class Routes(click.ParamType[tuple[Route, ...]]):
    """Routes by their names, in the order in which they are tried."""

    name = "routes"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Route, ...]:
        named = {name.strip() for name in str(value).split(",")}
        if unknown := sorted(named - set(Route)):
            self.fail(f"{unknown[0]!r} is not a route; the routes are {', '.join(Route)}", param, ctx)
        return tuple(route for route in Route if route in named)


class Column(click.ParamType[str]):
    """`ID=NAME`: which of the list's columns is an id or a token."""

    name = "id=name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from jobs.manifest.layout import ROLES, role_of

        role, sign, name = str(value).partition("=")
        if not sign or role_of(role) not in ROLES:
            self.fail(f"{value!r} must be ID=NAME, where ID is one of {', '.join(ROLES)}", param, ctx)
        return f"{role_of(role)}={name}"


def chosen_columns(columns: Sequence[str]) -> dict[str, str]:
    """The name of each chosen column, by the role it has."""
    pairs = [column.partition("=")[::2] for column in columns]
    chosen = dict(pairs)
    if len(chosen) < len(pairs):
        raise click.UsageError("--column names two columns for one id or token: give only one of them")
    return chosen


def sure(why: str, *, yes: bool) -> None:
    """Return where the user is sure, although `why`: `--yes` says so, else a person at a terminal is asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{why}; say --yes if you are sure")
    click.confirm(f"{why}. Go on?", abort=True, err=True)


def ask_passphrase(what: str) -> str:
    """What a person types on the terminal, hidden. Raises UserError if there is no terminal.

    It is asked for on the terminal itself, so standard input may be the identity.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        todo = "run this on a terminal, or give an identity without a passphrase"
        raise refuse("cannot be asked for without a terminal", what, todo) from None
    try:
        return getpass.getpass(f"{what}: ")
    except EOFError:
        raise click.Abort from None
    except UnicodeDecodeError:
        raise refuse("holds bytes that are not UTF-8", what, "type it again") from None


def given_options() -> list[tuple[str, str]]:
    """The options that were given, each with its value. The value of a flag is empty."""
    context = click.get_current_context()
    given = []
    for option in context.command.params:
        name = option.name or ""
        if isinstance(option, click.Option) and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value = context.params[name]
            values = value if option.multiple else [value]
            given += [(option.opts[-1], "" if option.is_flag else _as_given(option, each)) for each in values]
    return given


def _as_given(option: click.Option, value: object) -> str:
    if isinstance(option.type, Duration):
        return f"{value:.0f}s"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


PATH = SomePath(path_type=Path)
INPUT = click.argument("manifest", metavar="INPUT", type=PATH)
OUTPUT = click.option("--output", type=PATH, help="Folder of the results.  [data/<stem of INPUT>]")
BEFORE = click.option(
    "--recovered-before",
    "before",
    type=Moment(),
    help="Try installs recovered before this time too, such as 2026-11-25T02:00Z.",
)
ROUTES = click.option(
    "--routes",
    type=Routes(),
    default="reconnect,agency",
    show_default=True,
    help="Ways to recover, tried in this order. refresh ends the pair in use.",
)
COLUMNS = click.option(
    "--column",
    "columns",
    multiple=True,
    type=Column(),
    metavar="ID=NAME",
    help="The column that holds location_id (or another id or token), whatever its header. `location_id=` means there is none.",
)
SHEET = click.option("--sheet", metavar="NAME", help="The sheet to read, if INPUT is a workbook with several lists.")
IDENTITY = click.option(
    "--identity",
    type=PATH,
    metavar="FILE",
    help="What opens sealed pairs: the file of an age identity or of an SSH private key.",
)
QUIET = click.option("--quiet", is_flag=True, help="Print nothing if all is well.")
LOG_FORMAT = click.option("--log-format", type=click.Choice(["console", "json"]), default="console", show_default=True)
