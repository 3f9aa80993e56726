"""Names and commands as a person can copy them into a shell."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# An option that narrowed one run, or that only said how it speaks, is left out of what to run next.
_NOT_AGAIN = {"--force", "--recovered-before", "--limit", "--cause", "--quiet", "--log-format", "--output"}


def shown(path: object) -> str:
    """A name for a person: as it is, or in the shell's own quotes where it holds what no terminal may be sent."""
    text = str(path)
    return text if text.isprintable() else quoted(text)


def quoted(word: str) -> str:
    """A word for a shell (bash, zsh, ksh), in which nothing unprintable is left."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = "".join(_escaped(sign) for sign in word)
    return f"$'{escaped}'"


def _escaped(sign: str) -> str:
    if sign.isprintable():
        return f"\\{sign}" if sign in "\\'" else sign
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(sign))


def next_command(manifest: Path, folder: Path, options: Iterable[tuple[str, str]], before: str = "") -> str:
    """The command that goes on with this run's work, from wherever it is typed.

    `options` are those that were given, as (name, value); a flag's value is empty. What was recovered `before` is to be
    recovered again: after `--force` that is the run's own beginning, so that the next one leaves alone what it recovered.
    """
    program = Path(sys.argv[0])
    words = [str(program.absolute())] if program.stem == "recover" else [sys.executable, "-m", "jobs"]
    words += ["run", str(manifest.absolute()), "--output", str(folder.absolute())]
    for name, value in options:
        if name not in _NOT_AGAIN:
            words += [name, value] if value else [name]
    words += ["--recovered-before", before] if before else []
    return " ".join(quoted(word) for word in words)
