"""The messages that support staff send. Their words are in config/messages/, and the user may change them.

A template runs in a sandbox and sees only the plain values it is given, so it cannot reach a secret. The start of a run
finds mistakes in templates and warns of them. A mistake never stops a run or a report: it only leaves out that message.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from jobs.core.causes import ADVICE
from jobs.core.errors import Problem
from jobs.core.model import Cause, Owner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from jinja2 import Template
    from jinja2.sandbox import SandboxedEnvironment

TO_HIGHLEVEL = "highlevel"
HAS_MESSAGE: tuple[Cause, ...] = tuple(
    cause for cause, advice in ADVICE.items() if advice.owner in (Owner.CUSTOMER, Owner.AGENCY)
)
_SUBJECT = "Subject:"
_FOR_A_COMPANY = ("app", "company", "accounts", "more", "count", "link")
_FOR_HIGHLEVEL = ("client_ids", "kinds", "count")


@dataclass(frozen=True, slots=True)
class Message:
    """A message ready to send: its subject (one line) and its body."""

    subject: str
    body: str


@dataclass(frozen=True, slots=True)
class Messages:
    """The templates by name (a cause, or `TO_HIGHLEVEL`). `warnings` name those that are left out, one line each."""

    templates: Mapping[str, Template]
    warnings: tuple[str, ...] = ()

    def write(self, name: str, values: Mapping[str, Any]) -> Message | None:
        """The message `name` with these values. None if its template is left out or fails on these values."""
        if name not in self.templates:
            return None
        try:
            return _message(self.templates[name].render(values))
        except Exception:  # noqa: BLE001 - a template is the user's own program and must never stop a report
            return None

    def why_missing(self, name: str) -> str:
        """What a report says if `write` gave no message."""
        fault = "fails on these installs" if name in self.templates else "has a mistake that the run warned of"
        return f"The message is missing: config/messages/{name}.txt {fault}."


def load_messages(folder: Path) -> Messages:
    """The templates of `folder` that work, and warnings about those that do not. Each is tried with made-up values."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(  # plain text: the page escapes what it shows
        undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    templates: dict[str, Template] = {}
    problems: list[Problem] = []
    for name in (*HAS_MESSAGE, TO_HIGHLEVEL):
        file = folder / f"{name}.txt"
        try:
            templates[str(name)] = _compiled(environment, file.read_text(encoding="utf-8"), str(name))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            problems.append(Problem(f"cannot be read ({reason}), so this message is left out", str(file), "restore it"))
        except Exception as error:  # noqa: BLE001 - as above, and here the user is told
            line = getattr(error, "lineno", None)
            what = " ".join(str(error).split()) or type(error).__name__
            where = f"{file}, line {line}" if line else str(file)
            todo = "correct it (its first lines say what it may use)"
            problems.append(Problem(f"has a mistake ({what}), so this message is left out", where, todo))
    return Messages(templates, tuple(map(str, problems)))


def _compiled(environment: SandboxedEnvironment, source: str, name: str) -> Template:
    """The template. Raises an error that says what is wrong with it."""
    from jinja2.meta import find_undeclared_variables

    known = _FOR_HIGHLEVEL if name == TO_HIGHLEVEL else _FOR_A_COMPANY
    parsed = environment.parse(source)
    unknown = find_undeclared_variables(parsed) - {*known, *environment.globals}
    if unknown:
        raise ValueError(f"unknown name: {', '.join(sorted(unknown))}")
    template = environment.from_string(parsed)
    for values in _made_up(name):
        _message(template.render(values))
    return template


def _message(text: str) -> Message:
    first, _, body = text.strip().partition("\n")
    subject = first.removeprefix(_SUBJECT).strip()
    if not first.startswith(_SUBJECT) or not subject or not body.strip():
        raise ValueError(f"the first line must be '{_SUBJECT} ...', with the text below it")
    return Message(subject, body.strip())


def _made_up(name: str) -> Iterator[dict[str, Any]]:
    if name == TO_HIGHLEVEL:
        kind = {"what": "an answer", "endpoint": "POST /", "status": 200, "words": "words", "count": 2}
        for trace_ids in ([], ["trace"]):
            kinds = [kind | {"first": "2024-10-08", "last": "2024-10-08", "trace_ids": trace_ids}]
            yield {"client_ids": ["an app"], "kinds": kinds, "count": 2}
        return
    several = ["an account", "another account"]
    for company, accounts, more, link in product(("", "a company"), (several[:1], several), (0, 3), ("", "https://x")):
        count = len(accounts) + more
        yield {"app": "an app", "company": company, "accounts": accounts, "more": more, "count": count, "link": link}
