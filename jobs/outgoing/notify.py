"""Sends one message when a run has ended: to a command on its standard input, or to an address as a POST of JSON.

The message has counts, causes, owners and paths. It never has an install's id, a server's words, or a secret. If it
cannot be sent, that is a warning and never changes the exit code.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jobs.core.errors import EXIT_WORDS, Exit
from jobs.core.secret import Secret, plain, scrub_own
from jobs.outgoing.post import post
from jobs.outgoing.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from jobs.config.settings import NotifySettings
    from jobs.core.model import Run

_MOST_TEXT_BYTES = 60_000
_LOOK_UP_SECONDS = 0.05
_MOST_WORDS = 200
_MOST_LINES = 100
_FILES = ("results.csv", "failures.csv", "failures.html", "failures.xlsx", "summary.json")
# Ids of locations, companies and clients, unless they are part of a path.
_ID = re.compile(r"(?<![\w/.\-])[A-Za-z0-9]{18,24}(?:-[A-Za-z0-9]+)?(?![\w/])")


@dataclass(frozen=True, slots=True)
class News:
    """How a run ended. If it could not start, `run` is None and `problems` say why. If it did, and no more is known than its
    `run_id`, they say why that is. `lines` are the closing block.

    `changed` is whether the set of failed installs is different from the one at the end of the run before. None: not known.
    """

    code: Exit
    input: str
    run: Run | None = None
    folder: Path | None = None
    lines: Sequence[str] = ()
    problems: Sequence[str] = ()
    changed: bool | None = None
    run_id: str = ""


def wanted(level: str, news: News) -> bool:
    """Whether `notify.level` asks for a message.

    A run that could not start always counts as a change, unless another run holds the folder and does the work.
    """
    if level == "problems":
        return news.code is not Exit.OK
    if level == "changes":
        never_began = news.changed is None and news.code is not Exit.HELD
        return bool(news.changed) or never_began or news.code is Exit.BUG
    return True


def notify(settings: NotifySettings, news: News, project: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Send the message if it is wanted. Yields what went wrong, one line each."""
    if not wanted(settings.level, news):
        return
    url = settings.url.reveal()
    if settings.command:
        wrong = _to_command(settings.command, as_bytes(news), project, settings.timeout_seconds)
        yield from [f"notify.command ({settings.command[0]}): {wrong}"] if wrong else []
    if url:
        told = json.dumps(body(news)).encode()
        wrong = post(url, told, "application/json", environment, settings.timeout_seconds).wrong
        yield from [f"notify.url ({urlsplit(url).hostname}): {wrong}"] if wrong else []


def headline(news: News) -> str:
    """The message in one line."""
    if news.run is None:
        what = "ended, and what it did is not known" if news.run_id else "could not start"
        return f"HighLevel recovery {what} (exit {int(news.code)})"
    counts = news.run.counts
    return (
        f"HighLevel recovery: {counts.recovered:,} of {counts.installs:,} installs are back, {counts.failed:,} failed, "
        f"{counts.pending:,} pending (exit {int(news.code)})"
    )


def text(news: News) -> str:
    """The message as plain text, for an email."""
    lines = [headline(news), "", *news.lines, *(f"error: {problem}" for problem in _without_ids(news.problems))]
    return "\n".join([*lines, f"exit {int(news.code)}: {EXIT_WORDS[news.code]}", ""])


def as_bytes(news: News) -> bytes:
    """The same in UTF-8, cut where it is too long. A name of a file may hold what UTF-8 cannot."""
    return text(news).encode(errors="backslashreplace")[:_MOST_TEXT_BYTES]


def body(news: News) -> dict[str, Any]:
    """The message as an object. Chat services show its `text`."""
    run, told = news.run, {"text": headline(news), "exit_code": int(news.code), "words": EXIT_WORDS[news.code]}
    told |= {"input": news.input, "problems": _without_ids(news.problems)}
    if run is None or news.folder is None:
        return told
    names = ("started_at", "finished_at", "stopped_because", "counts", "this_run", "retryable", "delivery")
    values = asdict(run)
    told |= {name: values[name] for name in (*names, "failures_by_cause", "failures_by_owner")}
    files = {name: news.folder.absolute() / name for name in _FILES}
    return told | {"files": {name: str(path) for name, path in files.items() if os.access(path, os.F_OK)}}


def _without_ids(problems: Sequence[str]) -> list[str]:
    return [_ID.sub("…", problem) for problem in problems]


def _to_command(command: Sequence[str], message: bytes, project: Path, seconds: float) -> str:
    """Run the command, without a shell and with few variables. Returns what went wrong, or ''."""
    try:
        program = Program(command, project)
    except OSError as error:
        return f"cannot run ({error.strerror})"
    said: list[bytes] = []
    until = time.monotonic() + seconds
    try:
        program.give([message])
        program.finish()
        while program.code is None and time.monotonic() <= until:
            heard = program.turn(_LOOK_UP_SECONDS)
            said = [*said, *heard.output, *heard.errors][:_MOST_LINES]
        code = program.code
    finally:
        program.close()
    if code is None:
        return f"did not end within {seconds:g} s"
    return f"ended with {code}: {_first_words(said, command)}" if code else ""


def _first_words(said: Sequence[bytes], command: Sequence[str]) -> str:
    """The command's first words. Its arguments are scrubbed: they may be secrets, such as an address with a token in it."""
    text = scrub_own(b"\n".join(said).decode(errors="replace"), map(Secret, command[1:]))
    return plain(text, _MOST_WORDS) or "it said nothing"
