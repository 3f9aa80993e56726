"""One message when a run has ended: to a command on its standard input, to an address as a POST of JSON.

It tells counts, causes, owners and paths; never an install's id, a server's words, or a secret. Whatever goes wrong
with it is a warning, and never another exit code.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jobs.errors import EXIT_WORDS, Exit, UserError
from jobs.secret import Secret, plain, scrub_own

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from jobs.model import Run
    from jobs.settings import NotifySettings

_MOST_ANSWER_BYTES = 65_536
# What a pipe holds: a command that does not read its input keeps nobody waiting.
_MOST_TEXT_BYTES = 60_000
_MOST_WORDS = 200
_FILES = ("results.csv", "failures.csv", "failures.html", "summary.json")
# Ids of locations, companies and clients, where they are no part of a path.
_ID = re.compile(r"(?<![\w/.\-])[A-Za-z0-9]{18,24}(?:-[A-Za-z0-9]+)?(?![\w/])")
# Where an app's credentials may stand; a notification has no use for them.
_PRIVATE = ("HIGHLEVEL_", "RECOVERY_")


@dataclass(frozen=True, slots=True)
class News:
    """How a run ended. `run` is None where it could not start, and `problems` say why; `lines` are the closing block.

    `changed` is whether other installs are failed now than at the end of the run before, None where nobody looked.
    """

    code: Exit
    input: str
    run: Run | None = None
    folder: Path | None = None
    lines: Sequence[str] = ()
    problems: Sequence[str] = ()
    changed: bool | None = None


def wanted(level: str, news: News) -> bool:
    """Whether `notify.level` asks for a message. A run that could not do its work is always a change."""
    if level == "problems":
        return news.code is not Exit.OK
    if level == "changes":
        return bool(news.changed) or news.code in {Exit.CANNOT_START, Exit.BUG}
    return True


def notify(settings: NotifySettings, news: News, project: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Send the message where it is wanted. Yields what went wrong, in a line each."""
    if not wanted(settings.level, news):
        return
    url = settings.url.reveal()
    try:
        if settings.command:
            wrong = _to_command(settings.command, text(news), project, settings.timeout_seconds)
            yield from [f"notify.command ({settings.command[0]}): {wrong}"] if wrong else []
        if url:
            wrong = _to_url(url, body(news), environment, settings.timeout_seconds)
            yield from [f"notify.url ({urlsplit(url).hostname}): {wrong}"] if wrong else []
    except KeyboardInterrupt:
        yield "the notification was cut short"


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
    """The message as a plain text, readable as a mail."""
    lines = [headline(news), "", *news.lines, *(f"error: {problem}" for problem in _without_ids(news.problems))]
    return "\n".join([*lines, f"exit {int(news.code)}: {EXIT_WORDS[news.code]}", ""])


def body(news: News) -> dict[str, Any]:
    """The message as an object; `text` is what chat services show."""
    run, told = news.run, {"text": headline(news), "exit_code": int(news.code), "words": EXIT_WORDS[news.code]}
    told |= {"input": news.input, "problems": _without_ids(news.problems)}
    if run is None or news.folder is None:
        return told
    names = ("started_at", "finished_at", "stopped_because", "counts", "this_run", "retryable")
    values = asdict(run)
    told |= {name: values[name] for name in (*names, "failures_by_cause", "failures_by_owner")}
    return told | {"files": {name: str(news.folder.absolute() / name) for name in _FILES}}


def _without_ids(problems: Sequence[str]) -> list[str]:
    return [_ID.sub("…", problem) for problem in problems]


def _to_command(command: Sequence[str], message: str, project: Path, seconds: float) -> str:
    """Run the command, without a shell and without the environment's credentials. Returns what went wrong, or ''."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_PRIVATE)}
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(  # noqa: S603 - the user's own command, split into words by the settings
            command,
            cwd=project,
            env=environment,
            stdin=pipe,
            stdout=subprocess.DEVNULL,
            stderr=pipe,
            start_new_session=True,
        )
    except OSError as error:
        return f"cannot be run ({error.strerror})"
    assert process.stdin is not None
    assert process.stderr is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as standard_input:
        standard_input.write(message.encode()[:_MOST_TEXT_BYTES])
    with process.stderr as complaints:
        try:
            code = process.wait(seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, KeyboardInterrupt):
                raise
            return f"did not end within {seconds:g} s"
        return f"ended with {code}: {_first_words(complaints, command)}" if code else ""


def _first_words(complaints: Any, command: Sequence[str]) -> str:
    """What the command complained of, as far as it is there: a child of its own may still hold the pipe.

    Its arguments may be secrets, such as an address with a token in it.
    """
    os.set_blocking(complaints.fileno(), False)
    said = (complaints.read1(_MOST_ANSWER_BYTES) or b"").decode(errors="replace")
    return plain(scrub_own(said, map(Secret, command[1:])), _MOST_WORDS) or "it said nothing"


def _to_url(url: str, told: Mapping[str, Any], environment: Mapping[str, str], seconds: float) -> str:
    """Post the message. Redirects are not followed; proxies and certificates are the job's. Returns what went wrong."""
    import requests

    from jobs.transport import Limits, Transport

    try:
        transport = Transport(url, Limits(seconds, seconds, seconds, _MOST_ANSWER_BYTES), environment)
        headers = {"User-Agent": "highlevel-recovery", "Accept-Encoding": "identity"}
        try:
            answer = transport.send(requests.Request("POST", url, headers=headers, json=told).prepare())
        finally:
            transport.close()
    except UserError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the run has ended as it has; its words may hold the address
        return f"no answer ({type(error).__name__})"
    return "" if answer.status in range(200, 300) else f"answered {answer.status}; redirects are not followed"
