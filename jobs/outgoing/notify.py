"""Sends one message when a run has ended: to a command on its standard input, or to an address as a POST of JSON.

The message has counts, causes, owners and paths. It never has an install's id, a server's words, or a secret. If it
cannot be sent, that is a warning and never changes the exit code.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jobs.core.errors import EXIT_WORDS, Exit, UserError
from jobs.core.secret import Secret, plain, scrub_own
from jobs.outgoing.programs import end_program, start_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from jobs.config.settings import NotifySettings
    from jobs.core.model import Run

_MOST_ANSWER_BYTES = 65_536
_MOST_TEXT_BYTES = 60_000
_LOOK_UP_SECONDS = 0.05
_MOST_WORDS = 200
_FILES = ("results.csv", "failures.csv", "failures.html", "summary.json")
# Ids of locations, companies and clients, unless they are part of a path.
_ID = re.compile(r"(?<![\w/.\-])[A-Za-z0-9]{18,24}(?:-[A-Za-z0-9]+)?(?![\w/])")


@dataclass(frozen=True, slots=True)
class News:
    """How a run ended. If it could not start, `run` is None and `problems` say why. `lines` are the closing block.

    `changed` is whether the set of failed installs is different from the one at the end of the run before. None: not known.
    """

    code: Exit
    input: str
    run: Run | None = None
    folder: Path | None = None
    lines: Sequence[str] = ()
    problems: Sequence[str] = ()
    changed: bool | None = None


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
        wrong = _to_command(settings.command, text(news), project, settings.timeout_seconds)
        yield from [f"notify.command ({settings.command[0]}): {wrong}"] if wrong else []
    if url:
        wrong = _to_url(url, body(news), environment, settings.timeout_seconds)
        yield from [f"notify.url ({urlsplit(url).hostname}): {wrong}"] if wrong else []


def headline(news: News) -> str:
    """The message in one line."""
    if news.run is None:
        return f"HighLevel recovery could not start (exit {int(news.code)})"
    counts = news.run.counts
    return (
        f"HighLevel recovery: {counts.recovered:,} of {counts.installs:,} installs are back, {counts.failed:,} failed, "
        f"{counts.pending:,} pending (exit {int(news.code)})"
    )


def text(news: News) -> str:
    """The message as plain text, for an email."""
    lines = [headline(news), "", *news.lines, *(f"error: {problem}" for problem in _without_ids(news.problems))]
    return "\n".join([*lines, f"exit {int(news.code)}: {EXIT_WORDS[news.code]}", ""])


def body(news: News) -> dict[str, Any]:
    """The message as an object. Chat services show its `text`."""
    run, told = news.run, {"text": headline(news), "exit_code": int(news.code), "words": EXIT_WORDS[news.code]}
    told |= {"input": news.input, "problems": _without_ids(news.problems)}
    if run is None or news.folder is None:
        return told
    names = ("started_at", "finished_at", "stopped_because", "counts", "this_run", "retryable", "delivery")
    values = asdict(run)
    told |= {name: values[name] for name in (*names, "failures_by_cause", "failures_by_owner")}
    return told | {"files": {name: str(news.folder.absolute() / name) for name in _FILES}}


def _without_ids(problems: Sequence[str]) -> list[str]:
    return [_ID.sub("…", problem) for problem in problems]


def _to_command(command: Sequence[str], message: str, project: Path, seconds: float) -> str:
    """Run the command, without a shell and with few variables. Returns what went wrong, or ''."""
    try:
        process = start_program(command, project, errors=subprocess.STDOUT)
    except OSError as error:
        return f"cannot run ({error.strerror})"
    try:
        said = _talk(process, message.encode()[:_MOST_TEXT_BYTES], time.monotonic() + seconds)
    except OSError as error:
        return f"cannot read the message ({error.strerror})"
    finally:
        end_program(process)
    if said is None:
        return f"did not end within {seconds:g} s"
    return f"ended with {process.returncode}: {_first_words(said, command)}" if process.returncode else ""


def _talk(process: subprocess.Popen[bytes], message: bytes, until: float) -> bytes | None:
    """The first bytes of the command's output, once it has ended. None if it did not end in time.

    This writes the input as fast as the command reads it, and reads all of its output, so that no pipe blocks the command.
    It does not wait for the pipes to close: a child of the command may keep them open.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    left, said = memoryview(message), bytearray()
    with selectors.DefaultSelector() as ready, process.stdin as ask, process.stdout as answer:
        for pipe, event in ((ask, selectors.EVENT_WRITE), (answer, selectors.EVENT_READ)):
            os.set_blocking(pipe.fileno(), False)
            ready.register(pipe, event)
        ended = False
        while not ended:
            ended = process.poll() is not None  # Before reading the pipes, so that its last words are already there.
            if not ended and time.monotonic() > until:
                return None
            for key, _ in ready.select(0 if ended else _LOOK_UP_SECONDS):
                pipe = ask if key.fileobj is ask else answer
                if pipe is ask:
                    left = _written(ask, left)
                if not (left if pipe is ask else _read(answer, said)):
                    ready.unregister(pipe)
                    pipe.close()
    return bytes(said)


def _written(pipe: IO[bytes], left: memoryview) -> memoryview:
    """The rest of a message after a part of it was written. Nothing is left if nobody reads it."""
    try:
        return left[pipe.write(left) or 0 :]
    except BrokenPipeError:
        return left[:0]


def _read(pipe: IO[bytes], said: bytearray) -> bool:
    """Whether more output may come. Adds what is there to `said`, up to a limit."""
    chunk = pipe.read(_MOST_ANSWER_BYTES)
    said += (chunk or b"")[: _MOST_ANSWER_BYTES - len(said)]
    return chunk != b""


def _first_words(said: bytes, command: Sequence[str]) -> str:
    """The command's first words. Its arguments are scrubbed: they may be secrets, such as an address with a token in it."""
    text = scrub_own(said.decode(errors="replace"), map(Secret, command[1:]))
    return plain(text, _MOST_WORDS) or "it said nothing"


def _to_url(url: str, told: Mapping[str, Any], environment: Mapping[str, str], seconds: float) -> str:
    """Post the message. Returns what went wrong. It follows no redirects, and uses the job's proxies and certificates."""
    import requests

    from jobs.highlevel.transport import Limits, Transport

    try:
        transport = Transport(url, Limits(seconds, seconds, seconds, _MOST_ANSWER_BYTES), environment)
        headers = {"User-Agent": "highlevel-recovery", "Accept-Encoding": "identity"}
        try:
            answer = transport.send(requests.Request("POST", url, headers=headers, json=told).prepare())
        finally:
            transport.close()
    except UserError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - no error here may change how the run ended; its words may hold the address
        return f"no answer ({type(error).__name__})"
    return "" if answer.status in range(200, 300) else f"answered {answer.status}; redirects are not followed"
