"""How a command ends after an error: the only place that maps an error to an exit code and its words."""

from __future__ import annotations

import traceback
from typing import NamedTuple

import click

from jobs.core.errors import Exit, UserError
from jobs.core.file_errors import FileError, problem_of


class Ending(NamedTuple):
    """The exit code, the problems for a person to fix (one line each), and a text to show as it is (a bug's traceback)."""

    code: Exit
    problems: tuple[str, ...] = ()
    text: str = ""


def ending_of(error: BaseException) -> Ending:
    """How a command ends that raised `error`. A bug keeps its traceback."""
    match error:
        case UserError():
            return Ending(error.code, tuple(str(problem) for problem in error.problems))
        case click.exceptions.NoArgsIsHelpError():
            return Ending(Exit.CANNOT_START, text=error.format_message())
        case click.ClickException():
            return Ending(Exit.CANNOT_START, (f"{error.format_message()} (see recover --help)",))
        case OSError() if (refused := problem_of(error)) is not None:
            code = error.code if isinstance(error, FileError) else Exit.CANNOT_START
            return Ending(code, (str(refused),))  # A run that has begun handles its own.
        case click.Abort() | KeyboardInterrupt():
            return Ending(Exit.SIGINT)
        case _:
            return Ending(Exit.BUG, text="".join(traceback.format_exception(error)))
