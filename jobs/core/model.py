"""The nouns of the job. They are only values.

A line of the manifest is a `Row` or a `Broken` line, and an `Install` comes from a row. A call returns an `Answer` or
`Tokens`. A try ends in an `Outcome`. The ledger keeps a `Record` of each install and a `Run` of each run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jobs.core.secret import Secret


class Level(StrEnum):
    """What an install belongs to. The values are those of `user_type` in the token call."""

    AGENCY = "Company"
    SUB_ACCOUNT = "Location"


class Owner(StrEnum):
    """Who acts next."""

    CUSTOMER = "customer"
    AGENCY = "agency"
    DEVELOPER = "developer"
    HIGHLEVEL = "highlevel"
    NOBODY = "nobody"


class Cause(StrEnum):
    """Why an install was not recovered."""

    INVALID_ROW = "invalid_row"
    UNKNOWN_APP = "unknown_app"
    CREDENTIALS_REJECTED = "credentials_rejected"
    NOT_INSTALLED = "not_installed"
    LOCATION_INACTIVE = "location_inactive"
    RECONNECT_REMOVED = "reconnect_removed"
    REQUEST_REFUSED = "request_refused"
    CODE_REJECTED = "code_rejected"
    WRONG_ACCOUNT = "wrong_account"
    WRONG_USER_TYPE = "wrong_user_type"
    MALFORMED_ANSWER = "malformed_answer"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    NETWORK_ERROR = "network_error"
    REFRESH_INVALID = "refresh_invalid"
    REFRESH_UNKNOWN = "refresh_unknown"
    AGENCY_REFUSED = "agency_refused"


class Stage(StrEnum):
    """The call that failed. `manifest` means that no call was made. `proof` is the call of a check, and is in no report."""

    MANIFEST = "manifest"
    RECONNECT = "reconnect"
    EXCHANGE = "exchange"
    INSTALLED_LOCATIONS = "installed_locations"
    LOCATION_TOKEN = "location_token"  # noqa: S105 - the name of a call
    REFRESH = "refresh"
    PROOF = "proof"


class Route(StrEnum):
    """A way to recover an install. The order is the one in which they are tried."""

    RECONNECT = "reconnect"
    AGENCY = "agency"
    REFRESH = "refresh"


class RefreshState(StrEnum):
    """What happened to the old refresh token of an install."""

    UNTOUCHED = "untouched"
    SPENT = "spent"
    UNKNOWN = "unknown"


class Status(StrEnum):
    """The state of an install."""

    RECOVERED = "recovered"
    FAILED = "failed"
    PENDING = "pending"


class InstallKey(NamedTuple):
    """What identifies an install within one base URL."""

    client_id: str
    level: Level
    account_id: str


@dataclass(frozen=True, slots=True)
class App:
    """A HighLevel app with its credentials."""

    client_id: str
    client_secret: Secret
    name: str = ""
    redirect_uri: str = ""
    scopes: str = ""


@dataclass(frozen=True, slots=True)
class Install:
    """One connection of an app to a location or a company. `company_id` may be empty for a location.

    `old` is its refresh token, if the routes of the run may spend it. `doubtful` means that it may be spent already.
    `unread` says why it cannot be read.
    """

    key: InstallKey
    company_id: str
    old: Secret | None = None
    doubtful: bool = False
    unread: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A usable line of the manifest, with its old pair and its scope. `client_id` may be empty. `cells` are the user's own,
    in order.
    """

    line: int
    client_id: str
    level: Level
    account_id: str
    company_id: str
    cells: tuple[str, ...]
    access_token: Secret | None = None
    refresh_token: Secret | None = None
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Broken:
    """A line of the manifest that cannot be used: its cells as they were found, and the reason in words for a person."""

    line: int
    location_id: str
    company_id: str
    client_id: str
    cells: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that does not hold what was asked for, or no answer at all (`status` 0). Secrets are scrubbed.

    - `says` is everything that the server said, to recognise the cause. `message` is the part for a person.
    - `status` is the status that counts. If an answer of status 200 holds an error, it is the error's status, and
      `http_status` is the one of HTTP (0: the same).
    - `exception` is the class that the HTTP library raised. `retry_after` is in seconds.
    - `never_left` means that no server saw the request. `foreign` means that other software answered for HighLevel.
    - `stray` is a good pair that came with the answer. It belongs to the agency of the sub-account that was asked for.
    - `unread` means that nothing was asked, since the pair for that is sealed and cannot be read.
    """

    stage: Stage
    status: int = 0
    says: str = ""
    message: str = ""
    trace_id: str = ""
    retry_after: float | None = None
    exception: type[BaseException] | None = None
    cause: Cause | None = None
    never_left: bool = False
    http_status: int = 0
    foreign: bool = False
    stray: Tokens | None = None
    unread: bool = False


class RouteResult(NamedTuple):
    """What a route answered for an install. `asked` is False if the route was closed before a call was made."""

    route: Route
    answer: Answer
    asked: bool = True


ARMOR = "-----BEGIN AGE ENCRYPTED FILE-----"
"""How every armored text of age begins."""


class Sealed(NamedTuple):
    """A pair that only its `recipients` can open: the armored `text` of age, and the `fingerprint` of the pair in it.

    `recipients` are all of their fingerprints, in a fixed order.
    """

    text: str
    fingerprint: str
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tokens:
    """A token pair and what the answer says about it. `expires_at` is UTC ISO 8601. It and the refresh token may be empty.

    A pair with `sealed` is written in that form alone. If it was read, its two tokens are empty until it is opened.
    """

    access_token: Secret
    refresh_token: Secret
    token_type: str
    expires_at: str
    scope: str
    user_type: str
    user_id: str
    company_id: str
    location_id: str
    trace_id: str
    sealed: Sealed | None = None

    @property
    def is_open(self) -> bool:
        """Whether the pair can be read. If not, it is sealed, or it was purged."""
        return bool(self.access_token.reveal())

    @property
    def is_purged(self) -> bool:
        """Whether the pair was forgotten."""
        return not self.is_open and self.sealed is None


@dataclass(frozen=True, slots=True)
class Recovered:
    """The install is recovered. `attempts` are the tries of this run. `met` is what the routes before answered.

    `message` is for a person. `stray` means that the pair came in the answer for another install. `renews` means that the
    install already had a pair. `undoes` means that this run had counted the install as failed before.
    """

    tokens: Tokens
    route: Route
    attempts: int
    at: str
    message: str = ""
    met: tuple[RouteResult, ...] = ()
    refresh_state: RefreshState = RefreshState.UNTOUCHED
    stray: bool = False
    renews: bool = False
    undoes: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The install is not recovered after its tries of this run. `met` is what each route answered."""

    cause: Cause
    stage: Stage
    message: str
    http_status: int
    trace_id: str
    attempts: int
    at: str
    met: tuple[RouteResult, ...] = ()
    refresh_state: RefreshState = RefreshState.UNTOUCHED


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The run stopped between two tries of this install. The install stays as it was."""

    attempts: int
    refresh_state: RefreshState = RefreshState.UNTOUCHED


Outcome = Recovered | Failed | Unfinished


class Delivery(StrEnum):
    """How the kept pair of an install stands with the app's own store, where pairs are handed over."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    REFUSED = "refused"
    PURGED = "purged"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known about one install, or about one broken line (`line` > 0 and no `level`).

    Times are UTC, ISO 8601, or empty. `cells` are (column, cell) pairs of the user's own columns, in the user's order. Two
    columns may have the same name. `listed` is whether the newest manifest lists it.
    """

    status: Status
    location_id: str
    company_id: str
    client_id: str
    level: Level | None
    line: int
    listed: bool
    cells: tuple[tuple[str, str], ...] = ()
    tokens: Tokens | None = None
    route: str = ""
    cause: Cause | None = None
    stage: Stage | None = None
    message: str = ""
    http_status: int = 0
    trace_id: str = ""
    attempts: int = 0
    first_failed_at: str = ""
    last_tried_at: str = ""
    recovered_at: str = ""
    delivery: Delivery | None = None
    delivered_at: str = ""
    refused_why: str = ""

    @property
    def key(self) -> InstallKey:
        """What identifies the install. A broken line has no key."""
        assert self.level is not None
        return InstallKey(self.client_id, self.level, self.location_id or self.company_id)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many lines and installs INPUT has (broken lines included), and how many installs are in each state."""

    rows: int = 0
    installs: int = 0
    duplicates: int = 0
    recovered: int = 0
    failed: int = 0
    pending: int = 0
    delivered: int = 0
    undelivered: int = 0
    purged: int = 0


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What a command handed over: the kind of its target (None: no target), how many pairs, and why it rested if it did."""

    target: str | None = None
    attempted: int = 0
    delivered: int = 0
    failed: int = 0
    rested_because: str | None = None


@dataclass(frozen=True, slots=True)
class ThisRun:
    """What the run itself did."""

    attempted: int = 0
    recovered: int = 0
    failed: int = 0
    new_failures: int = 0
    already_recovered: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as `summary.json` tells it. Times are UTC, ISO 8601. `finished_at` is empty while it runs.

    If `recovered_before` is not empty, the run recovers again what was recovered before that moment. `kept` counts the
    installs among these that were tried without success and keep the pair they had. `sealed`: the ledger's pairs are sealed.
    `rate_limited` counts the requests that were answered with 429.
    """

    run_id: str
    input: str
    base_url: str
    started_at: str
    finished_at: str = ""
    exit_code: int | None = None
    stopped_because: str | None = None
    met: str = ""
    counts: Counts = field(default_factory=Counts)
    retryable: int = 0
    this_run: ThisRun = field(default_factory=ThisRun)
    failures_by_cause: dict[str, int] = field(default_factory=dict)
    failures_by_owner: dict[str, int] = field(default_factory=dict)
    recovered_before: str = ""
    kept: int = 0
    sealed: bool = False
    rate_limited: int = 0
    delivery: DeliveryReport = field(default_factory=DeliveryReport)
