"""Finds what the READMEs say that is not true. `python -m tests.docs` prints a line for each and exits with 1.

A relative link and its anchor must lead somewhere. A target of make, a command of the job with its options, a module and
a file that are named in code must exist. Of a link to another site only the form is checked: nothing is fetched.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
from markdown_it import MarkdownIt

from jobs.cli import cli

PROJECT = Path(__file__).resolve().parent.parent
READMES = [PROJECT / "README.md", *sorted(PROJECT.glob("[a-z]*/**/README.md"))]
# Files that users and runs make.
MADE = re.compile(r"config/apps\.toml|data/recovery\.log|data/(installs|affected)(/.*)?")
PLACE = re.compile(r"(?:jobs|config|data|tests|\.github|\.ci)/[\w./-]+")
# The targets that pass ARGS to a command of the job.
TARGETS_WITH_ARGS = {"recover": "run", "plan": "plan"}
OTHERS_OPTIONS = {"--joblog", "--retries", "--resume"}  # GNU parallel's
OTHERS_OPTIONS |= {"--from-env-file", "--task-timeout", "--memory", "--add-volume", "--add-volume-mount"}  # of clouds


def blocks_of(text):
    """The blocks of text: the number of the first line, the kind of what opened it, and its token."""
    kind = ""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type in {"inline", "fence", "code_block"}:
            yield token.map[0] + 1, kind, token
        kind = token.type


def anchors_of(text):
    """The anchors that GitHub gives the headings."""
    found = []
    for _, kind, token in blocks_of(text):
        if kind == "heading_open":
            words = "".join(child.content for child in token.children)
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            before = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", one) is not None for one in found)
            found.append(f"{slug}-{before}" if before else slug)
    return found


def wrong_with_link(address, file):
    """What is wrong with a link in `file`, or None."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        good = (parts.scheme == "https" and "." in parts.netloc) or (parts.scheme == "mailto" and "@" in parts.path)
        return None if good else f"the link {address} is not https://... or mailto:..."
    there = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if not there.exists() or not there.is_relative_to(PROJECT):
        return f"the link {address} leads nowhere"
    page = there / "README.md" if there.is_dir() else there
    if parts.fragment and parts.fragment not in anchors_of(page.read_text(encoding="utf-8")):
        return f"the link {address} names a heading that is not there"
    return None


def python_under(readme, heading):
    """The one program in Python under a heading of the second level."""
    section = (PROJECT / readme).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    (program,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return program


def commands_of(group=cli, name=""):
    """The commands of the job by their names, such as `plan` or `ledger copy`."""
    for word, one in group.commands.items():
        if isinstance(one, click.Group):
            yield from commands_of(one, f"{name}{word} ")
        else:
            yield f"{name}{word}", one


def called_by(words, group=cli):
    """The name of the command that these words call, and the command itself, or None if there is none."""
    found, name = group, []
    for word in words.split():
        if not isinstance(found, click.Group):
            break
        name.append(word)
        found = found.commands.get(word)
    return " ".join(name), found


def wrong_with_options(command, words):
    """The options in `words` that this command of the job does not have, or that no command has."""
    mine = called_by(command)[1].params if command else [one for _, each in commands_of() for one in each.params]
    known = {option for param in (*mine, *cli.params) for option in param.opts} | {"--help", "--version"}
    known |= OTHERS_OPTIONS - known if not command else set()
    called = f"recover {command}" if command else "recover"
    return [
        f"{called} has no option {option}"
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", words)
        if option not in known
    ]


def wrong_with_command(first, words):
    """What is wrong with a use of the job's command line."""
    if first.startswith("-"):
        return [] if first in {"--version", "--help"} else [f"recover has no option {first}"]
    command, found = called_by(f"{first} {words}")
    return wrong_with_options(command, words) if found else [f"recover has no command {command}"]


def wrong_with_code(code):
    """Everything that is wrong with a line of code."""
    targets = re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for target, words in re.findall(r"(?:^|[\s;&|])make ([a-z][\w-]*)([^#;&|]*)", code):
        if target not in targets:
            yield f"make has no target {target}"
        if target in TARGETS_WITH_ARGS:
            yield from wrong_with_options(TARGETS_WITH_ARGS[target], words)
    for command, words in re.findall(r"(?<!make )\brecover (-*[a-z]+)([^#;&|']*)", code):
        yield from wrong_with_command(command, words)
    if code.startswith("--"):
        yield from wrong_with_options("", code.partition(" ")[0])
    for module in re.findall(r"python3? -m ((?:jobs|tests)[\w.]*)", code):
        if not any((PROJECT / module.replace(".", "/")).with_suffix(end).exists() for end in ("", ".py")):
            yield f"there is no module {module}"
    for place in re.findall(rf"(?<![\w/.-]){PLACE.pattern}", code):
        if not MADE.fullmatch(place) and not (PROJECT / place).exists():
            yield f"{place} is not there"


def findings(file, text):
    """Everything that is wrong with a README, each as `file:line: what`."""
    for number, _, token in blocks_of(text):
        wrong = []
        for child in token.children or []:
            address = child.attrs.get("href") or child.attrs.get("src")
            wrong += [wrong_with_link(address, file)] if address else []
            wrong += wrong_with_code(child.content) if child.type == "code_inline" else []
        if token.type != "inline" and token.info != "python":
            wrong += [what for line in token.content.splitlines() for what in wrong_with_code(line)]
        yield from (f"{file.relative_to(PROJECT)}:{number}: {what}" for what in wrong if what)


if __name__ == "__main__":
    sys.exit("\n".join(what for file in READMES for what in findings(file, file.read_text(encoding="utf-8"))) or None)
