"""Reads answers with suspicion: what each must hold to be believed. Any other is raised as `CallFailed`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jobs.core.causes import diagnose
from jobs.core.clock import A_YEAR
from jobs.core.ids import is_id
from jobs.core.model import Answer, Cause, Install, Level, Stage, Tokens
from jobs.core.secret import STARS, Secret, plain, scrub
from jobs.highlevel.middleboxes import Looks, looks, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jobs.highlevel.transport import Raw

_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_LONGEST_CODE = 4_096
_LONGEST_TOKEN = 16_384
_TRACE_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,64}")
_SECRET_FIELDS = (
    *("access_token", "accessToken", "refresh_token", "refreshToken"),
    *("authorizationCode", "authorization_code", "code"),
)
# What the good answer to each call holds. An answer without it that tells of an error is an error, whatever its status.
_ASKED_FOR = {
    Stage.RECONNECT: ("authorizationCode", "authorization_code"),
    Stage.EXCHANGE: ("access_token", "accessToken"),
    Stage.REFRESH: ("access_token", "accessToken"),
    Stage.LOCATION_TOKEN: ("access_token", "accessToken"),
    Stage.INSTALLED_LOCATIONS: ("items",),
    Stage.PROOF: ("location", "locations", "company"),
}
LONGEST_MESSAGE = 300  # Characters of a report's `message`.
_SAYS = 2_000
_TEN_YEARS = 315_360_000
# The years that are believed of a server's clock and a code's expiry. Calculating with others may overflow.
_FIRST_YEAR, _LAST_YEAR = 1970, 2200
_LONGEST_DATE = 100  # Characters.
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_LONGEST_SECONDS = 300  # Characters. A longer number does not fit into a float.
_ERRORS = range(400, 600)
_REDIRECTS = (301, 302, 303, 307, 308)


class CallFailed(Exception):  # noqa: N818 - what failed is the call; the answer says why
    """A call did not give what it was asked for."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.answer = answer


@dataclass(frozen=True)
class Heard:
    """A raw answer together with its call: the stage, the secrets that must not be shown, and when it came. `hang_up`
    closes its connection.
    """

    raw: Raw
    stage: Stage
    secrets: tuple[Secret, ...]
    now: datetime
    hang_up: Callable[[], None]

    @cached_property
    def body(self) -> object:
        """What the body says as JSON, or None."""
        return _json(self.raw.body) if self.raw.whole else None

    @cached_property
    def status(self) -> int:
        """The status that the answer stands for: HTTP's, or the one in its body if a good answer tells an error
        there.
        """
        if self.raw.status not in range(200, 300) or not isinstance(self.body, dict):
            return self.raw.status
        return _status_in(self.body, self.stage) or self.raw.status

    @cached_property
    def server_time(self) -> datetime | None:
        """The server's clock, by its Date header."""
        return _date(_header(self.raw.headers, "date"))

    def hides(self, body: object) -> tuple[Secret, ...]:
        """The secrets that must not be shown anywhere in this answer: those that were sent, and those that `body`
        brings.
        """
        brought = [body.get(name) for name in _SECRET_FIELDS] if isinstance(body, dict) else []
        return (*self.secrets, *(Secret(value) for value in brought if isinstance(value, str)))

    @property
    def _page(self) -> str:
        """The body as a page to read. A good answer counts as a page only if it is marked up: otherwise it may hold a pair."""
        page = self.raw.body.decode(errors="replace")
        return page if self.status not in range(200, 300) or page.lstrip().startswith("<") else ""

    def failed(
        self, body: object, cause: Cause | None = None, why: str = "", stray: Tokens | None = None
    ) -> CallFailed:
        """The failure that this answer is, in the server's own words, or in ours if it has none.

        `body` is None if it is not a JSON object. The connection is closed unless the answer is an error with words,
        since the rest of it may still come.
        """
        hidden = self.hides(body)
        page = scrub(self._page, hidden) if body is None else ""
        says, message = _words(body if body is not None else text_of(page), hidden)
        look = looks(page, says) if body is None and self.body is None else Looks("", foreign=False)
        if look.words:
            why = plain(f"{look.words}: {message}", LONGEST_MESSAGE)
        if cause is not None or not says:
            self.hang_up()
        return CallFailed(
            Answer(
                self.stage,
                self.status,
                says,
                why or message or f"HighLevel answered with status {self.raw.status} and without a message",
                _trace_id(body, self.raw.headers, hidden),
                self.retry_after,
                self.raw.fault,
                cause,
                http_status=self.raw.status,
                foreign=look.foreign,
                stray=stray,
            )
        )

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks to wait, at most a year. A date is taken by the server's own clock."""
        return retry_after_of(self.raw.headers, self.now)


def retry_after_of(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a server asks to wait, at most a year. A date is taken by its own clock, or by `now` if it tells none."""
    text = _header(headers, "retry-after").strip()
    if not text:
        return None
    if _SECONDS.fullmatch(text):
        return min(float(text), A_YEAR) if len(text) < _LONGEST_SECONDS else A_YEAR
    until = _as_date(text)
    clock = _date(_header(headers, "date")) or now
    return min(max(0.0, (until - clock).total_seconds()), A_YEAR) if until else None


def read_body(heard: Heard) -> dict[str, Any]:
    """The JSON object of a good answer. Raises CallFailed for any other, also for a good status with an error in its
    body.
    """
    status, body = heard.status, heard.body
    good = status in range(200, 300)
    if good and isinstance(body, dict):
        return body
    if status >= 400:  # noqa: PLR2004 - the client errors begin here
        raise heard.failed(body if isinstance(body, dict) else None)
    if not heard.raw.whole:
        raise heard.failed({}, Cause.MALFORMED_ANSWER, "HighLevel's answer was cut off or too large")
    why = "HighLevel's answer was not a JSON object" if good else f"HighLevel answered with status {status}"
    if status in _REDIRECTS:
        why += ": a redirect, as a proxy or a captive portal sends it; it was not followed"
    raise heard.failed(None if body is None else {}, Cause.MALFORMED_ANSWER, why)


def read_code(heard: Heard, body: dict[str, Any]) -> tuple[Secret, datetime | None, str]:
    """The authorization code of a reconnect answer, when it expires by the server's clock (None: unknown), and its
    trace id.
    """
    code = _field(body, "authorizationCode", "authorization_code")
    if not _is_opaque(code, _LONGEST_CODE):
        raise heard.failed(body, Cause.MALFORMED_ANSWER, "HighLevel's answer held no usable code")
    trace_id = _trace_id(body, heard.raw.headers, heard.hides(body))
    return Secret(code), _iso(_field(body, "expiresAt", "expires_at")), trace_id


def read_tokens(heard: Heard, body: dict[str, Any], install: Install, *, agency: str = "") -> Tokens:
    """The pair of a token answer for this install. Raises CallFailed if the answer is for another, or not whole.

    An answer to the token of an `agency` (its company id) may lack the refresh token and the user type, since its
    schema promises neither. Source of the fields: HighLevel's OpenAPI description, in snake_case and (v3) camelCase.
    """

    def malformed(what: str) -> CallFailed:
        return heard.failed(body, Cause.MALFORMED_ANSWER, f"HighLevel's answer held no usable {what}")

    access = _field(body, "access_token", "accessToken")
    refresh = _field(body, "refresh_token", "refreshToken")
    if not _is_opaque(access, _LONGEST_TOKEN):
        raise malformed("access token")
    if agency and not refresh:
        refresh = ""
    elif not _is_opaque(refresh, _LONGEST_TOKEN):
        raise malformed("refresh token")
    hidden = heard.hides(body)
    user_type = _field(body, "userType", "user_type") or (install.key.level.value if agency else "")
    if not isinstance(user_type, str) or not user_type:
        raise malformed("user type")
    tokens = Tokens(
        Secret(access),
        Secret(refresh),
        _text(body, "token_type", "tokenType"),
        _expires_at(_field(body, "expires_in", "expiresIn"), heard.server_time or heard.now),
        _scope(_field(body, "scope")),
        user_type,
        _text(body, "userId", "user_id"),
        _shown(_text(body, "companyId", "company_id"), hidden),
        _text(body, "locationId", "location_id"),
        _trace_id(body, heard.raw.headers, hidden),
    )
    _check_account(heard, body, install, tokens, agency)
    return tokens


def read_page(heard: Heard, body: dict[str, Any]) -> tuple[dict[str, str], str]:
    """A page of installed locations: the names of those that have the app by id, and the token of the next page, or
    ''. Raises CallFailed for any other answer. Source of the fields: OpenAPI description, v3.
    """
    items, pagination = body.get("items"), _field(body, "pagination") or {}
    if not isinstance(items, list) or not isinstance(pagination, dict) or not all(isinstance(i, dict) for i in items):
        raise heard.failed(body, Cause.MALFORMED_ANSWER, "HighLevel's answer held no usable list of locations")
    found: dict[str, str] = {}
    for item in items:
        location = _field(item, "_id", "id", "locationId")
        if isinstance(location, str) and item.get("isInstalled") is not False:
            found[location] = _text(item, "name")
    return found, _text(pagination, "nextPageToken")


def _check_account(heard: Heard, body: dict[str, Any], install: Install, tokens: Tokens, agency: str) -> None:
    """Raise CallFailed if the answer is for another install than the one asked for.

    HighLevel decides the company of a sub-account. If it moved, the list is wrong and the pair is good.
    """
    level = install.key.level
    if tokens.user_type != level.value:
        raise _of_another_type(heard, body, level, tokens)
    account = tokens.location_id if level is Level.SUB_ACCOUNT else tokens.company_id
    if not account:
        raise heard.failed(body, Cause.MALFORMED_ANSWER, "HighLevel's answer held no usable account id")
    if account != install.key.account_id:
        raise heard.failed(body, Cause.WRONG_ACCOUNT, "the answer names another account; it was thrown away")
    if agency and tokens.company_id and tokens.company_id != agency:
        raise heard.failed(body, Cause.WRONG_ACCOUNT, "the answer names another company; it was thrown away")


def _of_another_type(heard: Heard, body: dict[str, Any], level: Level, tokens: Tokens) -> CallFailed:
    """The failure of a pair of the wrong kind. An agency's pair that came for a sub-account goes with it, since that
    agency can use it.
    """
    if level is Level.SUB_ACCOUNT and tokens.user_type == Level.AGENCY.value and is_id(tokens.company_id):
        why = (
            f"HighLevel answered with the connection of the agency {plain(tokens.company_id, 64)}; "
            "add that agency to the list as a row of its own, with only its company_id"
        )
        return heard.failed(body, Cause.WRONG_USER_TYPE, why, tokens if tokens.refresh_token.reveal() else None)
    shown = plain(scrub(tokens.user_type, heard.hides(body)), 40)
    return heard.failed(body, Cause.WRONG_USER_TYPE, f"the answer is for {shown}, not for {level.value}")


def _no_number(_: str) -> object:
    raise ValueError


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def _json(body: bytes) -> object:
    try:
        return _DECODER.decode(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _field(body: Mapping[str, Any], *names: str) -> Any:
    return next((body[name] for name in names if body.get(name) is not None), None)


def _text(body: Mapping[str, Any], *names: str) -> str:
    value = _field(body, *names)
    return plain(value, _LONGEST_TOKEN) if isinstance(value, str) else ""


def _shown(text: str, secrets: Sequence[Secret]) -> str:
    """`text` if it may be shown, or an empty text if it holds a secret."""
    return text if scrub(text, secrets) == text else ""


def _is_opaque(value: object, longest: int) -> bool:
    return isinstance(value, str) and len(value) <= longest and bool(_PRINTABLE.fullmatch(value))


def _header(headers: Mapping[str, str], name: str) -> str:
    return str(headers.get(name) or "")


def _as_date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text[:_LONGEST_DATE])
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _date(text: str) -> datetime | None:
    """The date in a header, or None if it is not a date that a clock can show."""
    found = _as_date(text)
    return _within_reason(found) if found else None


def _iso(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        return _within_reason(datetime.fromisoformat(value))
    except (ValueError, OverflowError):
        return None


def _within_reason(moment: datetime) -> datetime | None:
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC) if _FIRST_YEAR < moment.year < _LAST_YEAR else None


def _expires_at(value: object, since: datetime) -> str:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:  # noqa: PLR2004
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _TEN_YEARS:
        return ""
    return (since + timedelta(seconds=value)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _scope(value: object) -> str:
    """The scopes of an answer separated by spaces, whether they came so or as a list."""
    text = " ".join(one for one in value if isinstance(one, str)) if isinstance(value, list) else value
    return plain(text, _LONGEST_TOKEN) if isinstance(text, str) else ""


def _status_in(body: Mapping[str, Any], stage: Stage) -> int | None:
    """The status of an error in the body of a good answer. None if the answer holds what was asked for."""
    if any(body.get(name) for name in _ASKED_FOR.get(stage, ())):
        return None
    nested = body.get("error")
    told = [body.get(name) for name in ("statusCode", "status_code", "status", "code")]
    told += [nested.get(name) for name in ("statusCode", "status", "code")] if isinstance(nested, dict) else []
    for one in told:
        status = int(one) if isinstance(one, str) and one.isascii() and one.isdigit() and len(one) == 3 else one  # noqa: PLR2004
        if isinstance(status, int) and status in _ERRORS:
            return status
    if any(body.get(name) for name in ("error", "errors", "error_description")) or body.get("success") is False:
        return 400
    # Words without any other sign of an error are an error if they name a specific cause.
    says, _ = _words(body, ())
    named = diagnose(Answer(stage, 400, says)) is not Cause.REQUEST_REFUSED
    return 400 if named else None


def _words(body: object, secrets: Sequence[Secret]) -> tuple[str, str]:
    """Everything that a server said, and its own words for a person. Both are scrubbed before they are shortened."""
    if isinstance(body, dict):
        error = body.get("error")
        nested = error if isinstance(error, dict) else {}
        message = _joined(body.get("message")) or _joined(body.get("error_description"))
        message = message or _joined(nested.get("message"))
        said = [message, _joined(body.get("error_description")), _joined(error), _joined(body.get("errors"))]
        said += [_joined(nested.get(name)) for name in ("code", "message", "details")]
        says = " | ".join(dict.fromkeys(text for text in said if text))
        message = message or _joined(error) or _joined(nested.get("code")) or _joined(body.get("errors"))
    else:
        says = message = body if isinstance(body, str) else ""
    return plain(scrub(says, secrets), _SAYS), plain(scrub(message, secrets), LONGEST_MESSAGE)


def _joined(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(part for part in value if isinstance(part, str))
    return ""


def _trace_id(body: object, headers: Mapping[str, str], secrets: Sequence[Secret]) -> str:
    found: object = None
    if isinstance(body, dict):
        error = body.get("error")
        found = _field(body, "traceId", "trace_id") or (_field(error, "traceId") if isinstance(error, dict) else None)
    found = found or _header(headers, "x-trace-id")
    if not isinstance(found, str) or not _TRACE_ID.fullmatch(found):
        return ""
    return "" if STARS in scrub(found, secrets) else found
