"""The nouns of the job; values only.

A row of the manifest is an `Install` or a `Broken` line; a call's end is an `Answer` or `Tokens`;
a try ends in an `Outcome`; what the ledger knows of an install is a `Record`, of a run a `Run`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jobs.core.secret import Secret


class Level(StrEnum):
    """What an install belongs to; the values are those of `user_type` in the token call."""

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
    """The call that failed; `manifest` where none was made."""

    MANIFEST = "manifest"
    RECONNECT = "reconnect"
    EXCHANGE = "exchange"
    INSTALLED_LOCATIONS = "installed_locations"
    LOCATION_TOKEN = "location_token"  # noqa: S105 - the name of a call
    REFRESH = "refresh"


class Route(StrEnum):
    """A way back, in the order in which they are tried."""

    RECONNECT = "reconnect"
    AGENCY = "agency"
    REFRESH = "refresh"


class RefreshState(StrEnum):
    """What became of the old refresh token that was to be spent for an install."""

    UNTOUCHED = "untouched"
    SPENT = "spent"
    UNKNOWN = "unknown"


class Status(StrEnum):
    """Where an install stands."""

    RECOVERED = "recovered"
    FAILED = "failed"
    PENDING = "pending"


class InstallKey(NamedTuple):
    """What an install is known by, within one base URL."""

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

    `old` is the refresh token it has, where the routes of the run may spend it; `doubtful`: it may be spent already.
    """

    key: InstallKey
    company_id: str
    old: Secret | None = None
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A usable line of the manifest, with its old pair. `client_id` may be empty; `cells` are the user's, in order."""

    line: int
    client_id: str
    level: Level
    account_id: str
    company_id: str
    cells: tuple[str, ...]
    access_token: Secret | None = None
    refresh_token: Secret | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """A line of the manifest that cannot be used: its cells as found, and why, in words for a person."""

    line: int
    location_id: str
    company_id: str
    client_id: str
    cells: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer without what was asked for, or no answer at all (`status` 0), scrubbed.

    `says` is all that the server said, for recognition; `message` its own words for a person.
    `exception` is the class that the HTTP library raised; `retry_after` are seconds; `never_left`: no server saw it.
    `status` is what it stands for: where a good answer holds an error, that of the error, with HTTP's in `http_status`
    (0: the same). `foreign`: other software answered in HighLevel's place. `stray` is a good pair that came with it, of
    the agency of the sub-account that was asked for.
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


class RouteResult(NamedTuple):
    """What an install met on a route; `asked` is whether a call was made for it, or the route was closed before."""

    route: Route
    answer: Answer
    asked: bool = True


@dataclass(frozen=True, slots=True)
class Tokens:
    """A token pair and what the answer says of it. `expires_at` is UTC ISO 8601, or empty; so may the refresh token be."""

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


@dataclass(frozen=True, slots=True)
class Recovered:
    """The install is back; `attempts` are the tries of this run, `met` what came before, `message` for a person.

    `stray`: it came in answer to another install. `renews`: a pair of this install that was recorded before. `undoes`: the
    failure that this run had counted for it.
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
    """The install is not back after its tries of this run; `met` is what each route answered."""

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
    """The run was stopped between the tries of this install, which stays as it was."""

    attempts: int
    refresh_state: RefreshState = RefreshState.UNTOUCHED


Outcome = Recovered | Failed | Unfinished


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one install, or of one broken line (`line` > 0 and no `level`).

    Times are UTC, ISO 8601, or empty. `cells` are (column, cell) pairs of the user's, in the user's order;
    two columns may bear one name. `listed` is whether the newest manifest lists it.
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


@dataclass(frozen=True, slots=True)
class Counts:
    """Of INPUT: its lines, the installs on them (broken lines included), and how these stand."""

    rows: int = 0
    installs: int = 0
    duplicates: int = 0
    recovered: int = 0
    failed: int = 0
    pending: int = 0


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
    """One run, as `summary.json` tells it. Times are UTC, ISO 8601; `finished_at` is empty while it runs.

    What was recovered before `recovered_before` was to be recovered again, if that is not empty; `kept` are installs of
    these that were tried since without success, and keep the pair they had.
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
