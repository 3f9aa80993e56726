"""Typed settings: config/recovery.toml, overridden by the environment."""

from __future__ import annotations

import shlex
import tomllib
from base64 import b64decode
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import DecodeError, Meta, Struct, ValidationError, convert, json
from msgspec.structs import fields

from jobs.config.apps import is_loopback, port_of
from jobs.config.recipients import public_key
from jobs.core.errors import Problem, UserError
from jobs.core.file_errors import what_to_do
from jobs.core.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

OPTIONS = {"--rate": ("pace", "requests_per_second"), "--workers": ("pace", "workers")}
_PREFIX = "RECOVERY_"
_SHORTEST = 0.001
_KEY_BYTES = range(24, 65)
# In a file that is committed they would be seen by everybody.
_NEVER_IN_FILE = {
    ("ping", "url"), ("deliver", "url"), ("deliver", "secret"), ("deliver", "database_url"), ("ledger", "url")
}  # fmt: skip
_Seconds = Annotated[float, Meta(ge=_SHORTEST, le=86_400)]
_Wait = Annotated[float, Meta(ge=0, le=86_400)]


class _Section(Struct, frozen=True, forbid_unknown_fields=True):
    pass


AnySection = TypeVar("AnySection", bound=_Section)


class PaceSettings(_Section, frozen=True):
    """How fast the job works: requests a second, workers (0: as many as needed), seconds of patience with 429."""

    requests_per_second: Annotated[float, Meta(ge=0.001, le=100_000)] = 10
    workers: Annotated[int, Meta(ge=0, le=256)] = 0
    patience_seconds: _Seconds = 600


class RetrySettings(_Section, frozen=True):
    """How often a run tries an install, and the seconds between two tries."""

    attempts: Annotated[int, Meta(ge=1, le=100)] = 5
    min_wait_seconds: _Wait = 1
    max_wait_seconds: _Wait = 60


class HttpSettings(_Section, frozen=True):
    """Limits of one request, in seconds and bytes."""

    connect_timeout_seconds: _Seconds = 10
    read_timeout_seconds: _Seconds = 30
    total_timeout_seconds: _Seconds = 60
    max_answer_bytes: Annotated[int, Meta(ge=1024, le=64 * 1024 * 1024)] = 1_048_576


class StopSettings(_Section, frozen=True):
    """How many failures in a row are an outage, and how many seconds to wait for a network that is down."""

    transient_installs: Annotated[int, Meta(ge=1, le=1_000_000)] = 10
    network_patience_seconds: _Seconds = 600


class LogSettings(_Section, frozen=True):
    """How much the log says."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Words(tuple[str, ...]):
    """A command with its arguments. It may be written as a list, or as a text with a JSON list or shell words."""

    __slots__ = ()


class NotifySettings(_Section, frozen=True):
    """Who hears when a run ends (a command, an address, or both), and which ends they hear of."""

    level: Literal["problems", "changes", "always"] = "problems"
    command: Words = Words()
    url: Secret = Secret("")
    timeout_seconds: _Seconds = 10

    @property
    def anybody(self) -> bool:
        """Whether anybody wants to hear."""
        return bool(self.command or self.url.reveal())


class PingSettings(_Section, frozen=True):
    """Who watches over the runs: an address in the form of Healthchecks."""

    url: Secret = Secret("")

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What is never shown. A ping extends the address before its query."""
        begins, _, _ = self.url.reveal().partition("?")
        return (self.url, Secret(begins.rstrip("/")))


class Textfile(str):
    """The path of a file that node_exporter reads."""

    __slots__ = ()


class MetricsSettings(_Section, frozen=True):
    """The file that a run's metrics are written to, for Prometheus. Empty: none is written."""

    textfile: Textfile = Textfile("")


class Statements(tuple[str, ...]):
    """One SQL statement, or a list of them."""

    __slots__ = ()


class SigningSecrets(tuple[Secret, ...]):
    """`whsec_` and base64 of 24 to 64 bytes; several, separated by spaces, while one is rotated."""

    __slots__ = ()


class DatabaseUrl(Secret):
    """An SQLAlchemy URL, which may hold a password."""

    __slots__ = ()

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What is never shown: the address, and each password in it."""
        try:
            parts = urlsplit(self.reveal())
            passwords = [unquote(parts.password or "")]
            passwords += [value for name, value in parse_qsl(parts.query) if "pass" in name]
        except ValueError:
            passwords = []
        return (self, *map(Secret, filter(None, passwords)))


class DeliverSettings(_Section, frozen=True):
    """Where new pairs are handed over: to an address, a command, or a database; all empty: nowhere.

    `timeout_seconds` are those of one try, `attempts` the tries of an install in a run; after `give_up_after` installs in
    a row that the target could not take, delivery rests for the run.
    """

    url: Secret = Secret("")
    secret: SigningSecrets = SigningSecrets()
    command: Words = Words()
    database_url: DatabaseUrl = DatabaseUrl("")
    sql: Statements = Statements()
    workers: Annotated[int, Meta(ge=1, le=64)] = 4
    timeout_seconds: _Seconds = 30
    attempts: Annotated[int, Meta(ge=1, le=100)] = 5
    give_up_after: Annotated[int, Meta(ge=1, le=1_000_000)] = 10

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What is never shown."""
        return (self.url, *self.secret, self.database_url)

    @property
    def target(self) -> str | None:
        """The kind of target, or None if pairs are handed over nowhere."""
        if self.url.reveal():
            return "url"
        if self.command:
            return "command"
        return "sql" if self.database_url.reveal() or self.sql else None


class LedgerSettings(_Section, frozen=True):
    """Where the ledger is: in the output folder, or with `url` in PostgreSQL, in `schema`, under `name` (else the folder's).

    A lease lasts `lease_seconds` and is renewed at a third. A run waits `patience_seconds` for a database that is away.
    """

    url: DatabaseUrl = DatabaseUrl("")
    name: Annotated[str, Meta(max_length=200)] = ""
    schema: Annotated[str, Meta(pattern="^[a-z_][a-z0-9_]{0,62}$")] = "highlevel_recovery"
    lease_seconds: Annotated[float, Meta(ge=3, le=3_600)] = 30
    patience_seconds: _Seconds = 60

    @property
    def in_database(self) -> bool:
        """Whether the ledger is in PostgreSQL."""
        return bool(self.url.reveal())


class Recipients(tuple[str, ...]):
    """Public keys, each once."""

    __slots__ = ()


class SealSettings(_Section, frozen=True):
    """For whom new pairs are sealed before they are written. Empty: pairs are open."""

    recipients: Recipients = Recipients()


class ReportsSettings(_Section, frozen=True):
    """Which reports a run leaves: `workbook` is failures.xlsx."""

    workbook: bool = True


class Settings(_Section, frozen=True):
    """Every setting of the job."""

    pace: PaceSettings = PaceSettings()
    retry: RetrySettings = RetrySettings()
    http: HttpSettings = HttpSettings()
    stop: StopSettings = StopSettings()
    log: LogSettings = LogSettings()
    notify: NotifySettings = NotifySettings()
    ping: PingSettings = PingSettings()
    metrics: MetricsSettings = MetricsSettings()
    deliver: DeliverSettings = DeliverSettings()
    ledger: LedgerSettings = LedgerSettings()
    seal: SealSettings = SealSettings()
    reports: ReportsSettings = ReportsSettings()


def load_settings(file: Path, environment: Mapping[str, str], options: Mapping[str, str]) -> Settings:
    """The settings of `file`. The environment overrides them, and the command line (`OPTIONS`) overrides both.

    Raises UserError with every problem found.
    """
    problems: list[Problem] = []
    in_file = _read(file, problems)
    problems += _problems(in_file, file.name, {}, strict=True)
    over, names = _laid_over(environment, options, problems)
    problems += _problems(over, "", names, strict=False)
    if problems:
        raise UserError(*problems)
    values = {section: in_file.get(section, {}) | over.get(section, {}) for section in in_file | over}
    settings = convert(values, Settings, strict=False, dec_hook=_own)
    if wrong := _wrong_target(settings.deliver):
        raise UserError(wrong)
    return settings


def _wrong_target(deliver: DeliverSettings) -> Problem | None:
    """What keeps the settings of a delivery from naming one whole target."""
    address, database = deliver.url.reveal(), deliver.database_url.reveal() or deliver.sql
    if sum(map(bool, (address, deliver.command, database))) > 1:
        return Problem("names more than one target", "deliver", "keep one of deliver.url, deliver.command, deliver.sql")
    if address and not deliver.secret:
        return Problem("has no secret to sign with", "deliver.url", "set RECOVERY_DELIVER__SECRET (whsec_...) in .env")
    if database and not (deliver.database_url.reveal() and deliver.sql):
        return Problem("lacks its other half", "deliver.sql", "set both RECOVERY_DELIVER__DATABASE_URL and deliver.sql")
    return None


def load_section(kind: type[AnySection], file: Path, environment: Mapping[str, str]) -> AnySection:
    """The section of this kind alone, even if others are wrong. Raises UserError if it is wrong itself."""
    section = next(field.name for field in fields(Settings) if field.type is kind)
    ignored: list[Problem] = []
    in_file = {name: held for name, held in _read(file, ignored).items() if name == section}
    over, names = _laid_over(environment, {}, ignored)
    mine = {section: over.get(section, {})}
    problems = [*_problems(in_file, file.name, {}, strict=True), *_problems(mine, "", names, strict=False)]
    if problems:
        raise UserError(*problems)
    return convert(in_file.get(section, {}) | mine[section], kind, strict=False, dec_hook=_own)


def load_section_or_defaults(kind: type[AnySection], file: Path, environment: Mapping[str, str]) -> AnySection:
    """The same, or its defaults if it is wrong itself."""
    try:
        return load_section(kind, file, environment)
    except UserError:
        return kind()


def _own(kind: type, value: object) -> object:
    """A value of one of our own types. Raises ValueError with words that are shown and never hold the value."""
    if kind in _KINDS:
        return _KINDS[kind](value)
    if kind is SigningSecrets and isinstance(value, str):
        return SigningSecrets(_signing_secret(word) for word in value.split())
    if kind is DatabaseUrl and isinstance(value, str):
        return DatabaseUrl(value)
    if kind is Secret and isinstance(value, str):
        return _address(value)
    raise ValueError("it is not a text")


def _address(value: str) -> Secret:
    """An address that something is posted to; '' is nobody's. Raises ValueError."""
    try:
        parts = urlsplit(value)
        port_of(parts)
    except ValueError:  # Its words may hold a password.
        parts = urlsplit("")
    if value and (parts.scheme not in {"http", "https"} or not parts.hostname):
        raise ValueError("it is not a valid address that begins with https://")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("it is not encrypted: use https:// (http:// is only for this machine)")
    return Secret(value)


def _words(value: object) -> Words:
    words = value
    if isinstance(value, str):
        # A text that begins like a list is meant as one, so no part of it becomes the name of a program.
        words = _json_list(value) if value.lstrip().startswith("[") else shlex.split(value)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError("it is neither a text nor a list of texts")
    if (words and not words[0]) or any("\0" in word for word in words):
        raise ValueError("it does not begin with the name of a program, or holds a NUL character")
    return Words(words)


def _statements(value: object) -> Statements:
    """A JSON list in a text is statements, and any other text is one."""
    found = value
    if isinstance(value, str):
        found = _json_list(value) if value.lstrip().startswith("[") else [value]
    if not isinstance(found, list) or not all(isinstance(statement, str) for statement in found):
        raise ValueError("it is neither a statement nor a list of statements")
    return Statements(statement.strip() for statement in found if statement.strip())


def _recipients(value: object) -> Recipients:
    """Public keys, of a list or of a text, which is a JSON list or has one key a line. Raises ValueError.

    An empty text is refused, since somebody meant to seal.
    """
    found = value
    if isinstance(value, str):
        lines = [line for line in value.splitlines() if line.strip()] or [""]
        found = _json_list(value) if value.lstrip().startswith("[") else lines
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError("it is neither a public key nor a list of public keys")
    keys: dict[str, None] = {}
    for number, one in enumerate(found, 1):
        try:
            keys[public_key(one.strip())] = None
        except ValueError as error:
            raise ValueError(f"key {number}: {error}" if len(found) > 1 else str(error)) from None
    return Recipients(keys)


def _textfile(value: object) -> Textfile:
    """Only such a name, so that no list, ledger or `.env` is ever overwritten."""
    if not isinstance(value, str) or "\0" in value or (value and not value.endswith(".prom")):
        raise ValueError("it is not the name of a file that ends with .prom, and node_exporter reads no other")
    return Textfile(value)


_KINDS: Mapping[type, Callable[[object], object]] = {
    Words: _words,
    Statements: _statements,
    Recipients: _recipients,
    Textfile: _textfile,
}


def _signing_secret(word: str) -> Secret:
    prefix, _, encoded = word.partition("_")
    try:
        key = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        key = b""
    if prefix != "whsec" or len(key) not in _KEY_BYTES:
        raise ValueError("it is not `whsec_` and the base64 of 24 to 64 bytes")
    return Secret(word)


def _json_list(text: str) -> list[str]:
    try:
        return json.decode(text, type=list[str])
    except DecodeError:
        raise ValueError("it begins like a JSON list of texts, but it is not one") from None


def _read(file: Path, problems: list[Problem]) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:  # ValueError: a huge number. RecursionError: deep nesting.
        problems.append(Problem(f"cannot be read ({error})", str(file), what_to_do(error, "correct the file")))
        return {}


def _laid_over(
    environment: Mapping[str, str], options: Mapping[str, str], problems: list[Problem]
) -> tuple[dict[str, dict[str, str]], dict[tuple[str, ...], str]]:
    """The settings from outside the file, by section and key, and the name of the variable or option of each.

    A variable without `__` belongs to somebody else: Kubernetes sets RECOVERY_PORT for a service named `recovery`.
    """
    over: dict[str, dict[str, str]] = {}
    names: dict[tuple[str, ...], str] = {}
    for name, text in environment.items():
        if not name.startswith(_PREFIX) or "__" not in name:
            continue
        section, _, key = name.removeprefix(_PREFIX).lower().partition("__")
        if section and key:
            over.setdefault(section, {})[key] = text
            names[section, key] = name
        else:
            problems.append(Problem("is not a setting", name, "the form is RECOVERY_<SECTION>__<KEY>"))
    for option, text in options.items():
        section, key = OPTIONS[option]
        over.setdefault(section, {})[key] = text
        names[section, key] = option
    return over, names


def _problems(
    values: dict[str, Any], file: str, names: Mapping[tuple[str, ...], str], *, strict: bool
) -> list[Problem]:
    """What is wrong with `values`. A file has types (`strict`), and the environment has only texts."""
    problems = []
    sections = {field.name: field.type for field in fields(Settings)}
    for section, held in values.items():
        if section not in sections or not isinstance(held, dict):
            problems.append(Problem("is not a section of the settings", *_unknown((section,), file, names)))
            continue
        types = {field.name: field.type for field in fields(sections[section])}
        for key, value in held.items():
            place = (section, key)
            if key not in types:
                problems.append(Problem("is an unknown setting", *_unknown(place, file, names)))
                continue
            if strict and place in _NEVER_IN_FILE and value:
                name = f"{_PREFIX}{section}__{key}".upper()
                problems.append(Problem("is a secret", _where(place, file, names), f"set {name} in .env instead"))
                continue
            try:
                convert(value, types[key], strict=strict, dec_hook=_own)
            except ValidationError as error:
                problems.append(_not_valid(types[key], error, _where(place, file, names)))
    return problems


def _not_valid(kind: object, error: ValidationError, where: str) -> Problem:
    """The problem with a value, and which values are allowed."""
    from msgspec.inspect import BoolType, FloatType, IntType, LiteralType, type_info

    allowed = type_info(kind)
    if isinstance(allowed, IntType | FloatType):
        whole = "whole " if isinstance(allowed, IntType) else ""
        todo = f"give a {whole}number from {allowed.ge:,} to {allowed.le:,}"
    elif isinstance(allowed, LiteralType):
        todo = f"give one of {', '.join(map(str, allowed.values))}"
    elif isinstance(allowed, BoolType):
        todo = "give true or false"
    else:
        return Problem(f"has an invalid value ({error})", where, "correct the value")
    return Problem("has an invalid value", where, todo)


def _unknown(place: tuple[str, ...], file: str, names: Mapping[tuple[str, ...], str]) -> tuple[str, str]:
    return _where(place, file, names), "correct its name or remove it"


def _where(place: tuple[str, ...], file: str, names: Mapping[tuple[str, ...], str]) -> str:
    """The variables or options that set it, or its place in the file."""
    given_as = ", ".join(name for key, name in names.items() if key[: len(place)] == place)
    return given_as or f"{file}, {'.'.join(place)}"
