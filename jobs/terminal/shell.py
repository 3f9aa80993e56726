"""Names and commands in a form that can be copied into a shell."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Options that narrowed one run, or only changed its output, are left out of the next command.
_NOT_AGAIN = {"--force", "--recovered-before", "--limit", "--cause", "--quiet", "--log-format", "--output"}


def shown(path: object) -> str:
    """A name for a person. It is quoted for a shell if it holds characters that must not reach a terminal."""
    text = str(path)
    return text if text.isprintable() else quoted(text)


def quoted(word: str) -> str:
    """A word quoted for a shell (bash, zsh, ksh), without unprintable characters."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = "".join(_escaped(sign) for sign in word)
    return f"$'{escaped}'"


def _escaped(sign: str) -> str:
    if sign.isprintable():
        return f"\\{sign}" if sign in "\\'" else sign
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(sign))


def next_command(
    manifest: Path, folder: Path, options: Iterable[tuple[str, str]], before: str = "", *, sealed: bool = False
) -> str:
    """The command that continues a run, from any folder. `options` are those that the run was given, as (name, value);
    the value of a flag is empty. Installs recovered `before` that moment are recovered again. After `--force` that is
    the moment when the run began, so the next run leaves alone what this one recovered. `sealed`: it has use for sealed
    pairs, so FILE must open them if the run was given no identity.
    """
    words = ["run", str(manifest.absolute()), "--output", str(folder.absolute())]
    for name, given in options:
        value = identity_word(given) if name == "--identity" else given
        if name not in _NOT_AGAIN:
            words += [name, value] if value else [name]
    words += ["--recovered-before", before] if before else []
    words += ["--identity", "FILE"] if sealed and "--identity" not in words else []
    return _command(*words)


def identity_word(given: object) -> str:
    """The file of an identity, from any folder. FILE is for the reader to fill in: none was `given`, or it came by a
    descriptor and must be given again.
    """
    path = Path(str(given or "/dev")).absolute()
    return "FILE" if any(map(path.is_relative_to, ("/dev", "/proc"))) else str(path)


def run_command(manifest: Path) -> str:
    """The command that recovers what `manifest` lists, from wherever it is typed."""
    return _command("run", str(manifest.absolute()))


def deliver_command(folder: Path, identity: str = "") -> str:
    """The command that hands over what waits in `folder`, from wherever it is typed. An `identity` opens sealed pairs."""
    return _command("deliver", str(folder.absolute()), *(("--identity", identity) if identity else ()))


def open_command(folder: Path, identity: str) -> str:
    """The command that opens the sealed pairs of `folder`."""
    return _command("open", str(folder.absolute()), "--identity", identity)


def _command(*words: str) -> str:
    program = Path(sys.argv[0])
    begins = [str(program.absolute())] if program.stem == "recover" else [sys.executable, "-m", "jobs"]
    return " ".join(quoted(word) for word in [*begins, *words])
