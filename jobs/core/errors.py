"""How a run ends, and errors that a user can fix.

An error for a person always has three parts: what is wrong, where, and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Exit(IntEnum):
    """The exit codes that cron and scripts rely on."""

    OK = 0
    SOME_FAILED = 1
    CANNOT_START = 2
    STOPPED_EARLY = 3
    STOPPED_AS_ASKED = 4
    HELD = 11
    BUG = 70
    SIGHUP = 129
    SIGINT = 130
    SIGTERM = 143


EXIT_WORDS: dict[Exit, str] = {
    Exit.OK: "every install that INPUT lists is recovered, or it lists none",
    Exit.SOME_FAILED: "finished; some installs failed",
    Exit.CANNOT_START: "could not start; nothing was sent",
    Exit.STOPPED_EARLY: "stopped early because going on made no sense; the rest is pending",
    Exit.STOPPED_AS_ASKED: "stopped where it was asked to; the rest is pending",
    Exit.HELD: "another run is under way",
    Exit.BUG: "a bug in the job; what was in flight is recorded",
    Exit.SIGHUP: "stopped by SIGHUP; what was in flight is recorded, the rest is pending",
    Exit.SIGINT: "stopped by SIGINT (Ctrl-C); what was in flight is recorded, the rest is pending",
    Exit.SIGTERM: "stopped by SIGTERM; what was in flight is recorded, the rest is pending",
}


@dataclass(frozen=True)
class Problem:
    """One thing that keeps the job from starting, for a person to fix."""

    what: str
    where: str
    todo: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: {self.todo}" if self.where else f"{self.what}: {self.todo}"


class UserError(Exception):
    """An error that the user can fix. It is shown as one line for each problem, without a traceback."""

    def __init__(self, *problems: Problem, code: Exit = Exit.CANNOT_START) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
        self.code = code


def refuse(what: str, where: str, todo: str, code: Exit = Exit.CANNOT_START) -> UserError:
    """The error for a single problem."""
    return UserError(Problem(what, where, todo), code=code)


class Gathered:
    """Problems of several readings, so that a person fixes them in one go."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def take(self, read: Callable[[], Any]) -> Any:
        """What `read` returns, or None if it raises UserError. The problems of that are kept."""
        try:
            return read()
        except UserError as error:
            self._problems.extend(error.problems)
            return None

    def raise_all(self) -> None:
        """Raise UserError with every problem, if there are any."""
        if self._problems:
            raise UserError(*self._problems)
