"""Client ids with their secrets, and where the API is."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jobs.core.errors import Problem, UserError
from jobs.core.file_errors import what_to_do
from jobs.core.ids import as_seen, has_unseen, is_id
from jobs.core.model import App
from jobs.core.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from urllib.parse import SplitResult

DEFAULT_BASE_URL = "https://services.leadconnectorhq.com"
_KEYS = {"client_id", "client_secret", "client_secret_env", "client_secret_file", "name", "redirect_uri", "scopes"}
_SECRETS = ("client_secret", "client_secret_env", "client_secret_file")
_READABLE_BY_OTHERS = 0o077
_AT_LINE = re.compile(r"at (?:line \d+|end of document)")
_HOST = re.compile(r"[\w-]+(?:\.[\w-]+)*|[0-9a-f.]*:[0-9a-f:.]*")
_PATH = re.compile(r"[A-Za-z0-9/._~%-]*")


@dataclass(frozen=True)
class Apps:
    """The configured apps by client id. `missing` are the apps whose secret is named but cannot be found.

    `warnings` are for a person. `hints` say what may be wrong with a secret, in case HighLevel refuses it.
    """

    known: dict[str, App] = field(default_factory=dict)
    missing: dict[str, Problem] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    hints: dict[str, str] = field(default_factory=dict)

    @property
    def only(self) -> str:
        """The client id of the only app, which a row may leave out. '' if several apps are configured."""
        ids = [*self.known, *self.missing]
        return ids[0] if len(ids) == 1 else ""


def load_apps(project: Path, environment: Mapping[str, str]) -> Apps:
    """The apps of the environment and of config/apps.toml. Raises UserError with every problem found."""
    apps = Apps()
    problems: list[Problem] = []
    warnings: list[str] = []
    file = project / "config" / "apps.toml"
    for place, entry in _entries(file, problems):
        _add(apps, entry, place, project, environment, problems, warnings)
    client_id = as_seen(environment.get("HIGHLEVEL_CLIENT_ID", ""))
    secret = environment.get("HIGHLEVEL_CLIENT_SECRET", "").rstrip("\r\n")
    if client_id or secret:
        entry = {"client_id": client_id, "client_secret": secret}
        entry["redirect_uri"] = environment.get("HIGHLEVEL_REDIRECT_URI", "").strip()
        no_secret = Problem("is not set", "HIGHLEVEL_CLIENT_SECRET", "set it beside HIGHLEVEL_CLIENT_ID")
        if not client_id:
            problems.append(Problem("is not set", "HIGHLEVEL_CLIENT_ID", "set it beside HIGHLEVEL_CLIENT_SECRET"))
        elif client_id in apps.known or client_id in apps.missing:
            pass  # config/apps.toml says more about it.
        elif secret:
            _add(apps, entry, "HIGHLEVEL_CLIENT_ID", project, environment, problems, warnings)
        elif apps.known or apps.missing:
            apps.missing[client_id] = no_secret
        else:
            problems.append(no_secret)
    elif not apps.known and not apps.missing and not problems:
        todo = "set both in the environment or in .env (`make demo` needs none)"
        problems.append(Problem("are not set", "HIGHLEVEL_CLIENT_ID and HIGHLEVEL_CLIENT_SECRET", todo))
    warnings += [*too_open(file), *too_open(project / ".env")]
    if problems:
        raise UserError(*problems)
    return Apps(apps.known, apps.missing, (*warnings, *apps.hints.values()), apps.hints)


def too_open(file: Path) -> tuple[str, ...]:
    """The warning that other users can read a file of secrets. Empty if they cannot."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return ()
    warning = f"{file} holds secrets, and other users can read it: chmod 600 it"
    return (warning,) if mode & _READABLE_BY_OTHERS else ()


def _entries(file: Path, problems: list[Problem]) -> list[tuple[str, dict[str, Any]]]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:  # ValueError: a huge number. RecursionError: deep nesting.
        # The error's own words may hold a secret.
        line = _AT_LINE.search(str(error))
        why = line[0] if line else getattr(error, "strerror", None) or type(error).__name__
        todo = what_to_do(error, "correct the file or its rights")
        problems.append(Problem(f"cannot be read ({why})", str(file), todo))
        return []
    entries = values.get("apps")
    if set(values) - {"apps"} or not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        problems.append(Problem("may only hold [[apps]]", str(file), "see config/apps.example.toml"))
        return []
    return [(f"{file.name}, app {number}", entry) for number, entry in enumerate(entries, start=1)]


def _add(
    apps: Apps,
    entry: dict[str, Any],
    place: str,
    project: Path,
    environment: Mapping[str, str],
    problems: list[Problem],
    warnings: list[str],
) -> None:
    wrong = [f"{key} is unknown" for key in sorted(set(entry) - _KEYS)]
    wrong += [f"{key} is not a text" for key, value in entry.items() if key in _KEYS and not isinstance(value, str)]
    client_id = "" if wrong else as_seen(entry.get("client_id", ""))
    if not wrong and not is_id(client_id):
        unseen = " (it holds a space or an invisible character)" if has_unseen(client_id) else ""
        wrong.append(f"client_id does not look like a client id{unseen}")
    if not wrong and client_id in (apps.known | apps.missing):
        wrong.append("client_id is configured twice")
    if sum(key in entry for key in _SECRETS) != 1:
        wrong.append(f"exactly one of {', '.join(_SECRETS)} is needed")
    if wrong:
        problems.extend(Problem(what, place, "correct it; see config/apps.example.toml") for what in wrong)
        return
    secret, problem = _secret(entry, place, project, environment, warnings)
    if problem:
        apps.missing[client_id] = problem
        return
    more = {key: entry.get(key, "") for key in ("name", "redirect_uri", "scopes")}
    if hint := _hint(secret):
        apps.hints[client_id] = f"{_where(entry, place, project)} {hint}"
    apps.known[client_id] = App(client_id, Secret(secret), **more)


def _secret(
    entry: dict[str, Any], place: str, project: Path, environment: Mapping[str, str], warnings: list[str]
) -> tuple[str, Problem | None]:
    if "client_secret_env" in entry:
        name = entry["client_secret_env"]
        secret = environment.get(name, "").rstrip("\r\n")
        return secret, None if secret else Problem(f"the variable {name} is not set", place, "set it to the secret")
    if "client_secret_file" in entry:
        file = project / entry["client_secret_file"]
        try:
            secret = file.read_text(encoding="utf-8-sig").rstrip("\r\n")
        except (OSError, UnicodeError):
            return "", Problem(f"the file {file} cannot be read", place, "put the secret there")
        warnings += too_open(file)
        return secret, None if secret else Problem(f"the file {file} is empty", place, "put the secret there")
    secret = entry["client_secret"].rstrip("\r\n")
    return secret, None if secret else Problem("client_secret is empty", place, "put the secret there")


def _hint(secret: str) -> str:
    """What may be wrong with a secret that a person copied. '' if it looks right."""
    where = "ends with" if has_unseen(secret[-1]) else "begins with" if has_unseen(secret[0]) else "holds"
    what = "a space or an invisible character: is it part of the secret?"
    return f"{where} {what}" if has_unseen(secret) else ""


def _where(entry: Mapping[str, str], place: str, project: Path) -> str:
    """The place of this entry's secret, as a person calls it."""
    if "client_secret_env" in entry:
        return entry["client_secret_env"]
    if "client_secret_file" in entry:
        return str(project / entry["client_secret_file"])
    return "HIGHLEVEL_CLIENT_SECRET" if place == "HIGHLEVEL_CLIENT_ID" else f"client_secret ({place})"


def base_url(environment: Mapping[str, str]) -> str:
    """The address of the API, in one spelling. Raises UserError if it is not a valid address or not encrypted."""
    given = environment.get("HIGHLEVEL_BASE_URL", "").strip() or DEFAULT_BASE_URL
    try:
        parts = urlsplit(given)
        host, port = (parts.hostname or "").lower(), port_of(parts)
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    where = "HIGHLEVEL_BASE_URL"
    spelled = _HOST.fullmatch(host) and _PATH.fullmatch(parts.path) and "@" not in parts.netloc
    if parts.scheme not in {"http", "https"} or not spelled or parts.query or parts.fragment:
        raise UserError(Problem("is not a valid address of an API", where, f"write it like {DEFAULT_BASE_URL}"))
    if parts.scheme == "http" and not is_loopback(host):
        raise UserError(Problem("is not encrypted", where, "use https:// (http:// is only for this machine)"))
    shown = f"[{host}]" if ":" in host else host
    if port and port != {"http": 80, "https": 443}[parts.scheme]:
        shown += f":{port}"
    return f"{parts.scheme}://{shown}{parts.path.rstrip('/')}"


def port_of(parts: SplitResult) -> int | None:
    """The port of an address, or None if it names none. Raises ValueError if it is not a valid port."""
    if parts.port == 0 or parts.netloc.endswith(":"):
        raise ValueError
    return parts.port


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
