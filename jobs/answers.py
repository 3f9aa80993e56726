"""Reading answers: what one must hold before it is believed. Whatever does not hold it is an `Answer`."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from jobs.model import Answer, Cause, Install, Level, Stage, Tokens
from jobs.secret import STARS, Secret, plain, scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jobs.transport import Raw

_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_LONGEST_CODE = 4_096
_LONGEST_TOKEN = 16_384
_TRACE_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,64}")
_TAG = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_SECRET_FIELDS = (
    *("access_token", "accessToken", "refresh_token", "refreshToken"),
    *("authorizationCode", "authorization_code", "code"),
)
LONGEST_MESSAGE = 300  # Characters of a report's `message`.
_SAYS = 2_000
_TEN_YEARS = 315_360_000
_TRANSIENT_SECONDS = re.compile(r"\d+(?:\.\d+)?")


class CallFailed(Exception):  # noqa: N818 - what failed is the call; the answer says why
    """The call did not give what was asked for."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Heard:
    """A raw answer in the light of its call: what its stage is, which secrets it must not show, and when it came.

    `hang_up` closes its connection.
    """

    raw: Raw
    stage: Stage
    secrets: tuple[Secret, ...]
    now: datetime
    hang_up: Callable[[], None]

    @property
    def server_time(self) -> datetime | None:
        """The server's clock, by its Date header."""
        return _date(_header(self.raw.headers, "date"))

    def hides(self, body: object) -> tuple[Secret, ...]:
        """What must not be shown of this answer: what was sent, and what `body` brings, wherever else it says it too."""
        brought = [body.get(name) for name in _SECRET_FIELDS] if isinstance(body, dict) else []
        return (*self.secrets, *(Secret(value) for value in brought if isinstance(value, str)))

    def failed(self, body: object, cause: Cause | None = None, why: str = "") -> CallFailed:
        """The failure that this answer is: the server's own words where it has some, ours where it has not.

        Its connection is used no more where it is not an error that says something: its rest may still come.
        """
        hidden = self.hides(body)
        says, message = _words(body if body is not None else self.raw.body, hidden)
        status = self.raw.status
        if cause is not None or not says:
            self.hang_up()
        return CallFailed(
            Answer(
                self.stage,
                status,
                says,
                why or message or f"HighLevel answered with status {status} and no words",
                _trace_id(body, self.raw.headers, hidden),
                self.retry_after,
                self.raw.fault,
                cause,
            )
        )

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks to wait, a date by the server's own clock."""
        text = _header(self.raw.headers, "retry-after").strip()
        if _TRANSIENT_SECONDS.fullmatch(text):
            return float(text) if len(text) < 300 else math.inf  # noqa: PLR2004 - longer ones are no float
        until = _date(text)
        return max(0.0, (until - (self.server_time or self.now)).total_seconds()) if until else None


def read_body(heard: Heard) -> dict[str, Any]:
    """The JSON object of a good answer. Raises CallFailed for any other."""
    status = heard.raw.status
    body = _json(heard.raw.body) if heard.raw.whole else None
    good = status in range(200, 300)
    if good and isinstance(body, dict):
        return body
    if status >= 400:  # noqa: PLR2004 - the client errors begin here
        raise heard.failed(body if isinstance(body, dict) else None)
    why = "HighLevel's answer was cut off or too large" if not heard.raw.whole else ""
    why = why or (f"HighLevel answered with status {status}" if not good else "")
    raise heard.failed({}, Cause.MALFORMED_ANSWER, why or "HighLevel's answer was not a JSON object")


def read_code(heard: Heard, body: dict[str, Any]) -> tuple[Secret, datetime | None]:
    """The authorization code of a reconnect answer, and when it expires by the server's clock (None: not said)."""
    code = _field(body, "authorizationCode", "authorization_code")
    if not _is_opaque(code, _LONGEST_CODE):
        raise heard.failed(body, Cause.MALFORMED_ANSWER, "HighLevel's answer held no usable code")
    return Secret(code), _iso(_field(body, "expiresAt", "expires_at"))


def read_tokens(heard: Heard, body: dict[str, Any], install: Install, *, of_agency: bool = False) -> Tokens:
    """The pair of a token answer, for this very install. Raises CallFailed for any other.

    An answer to an agency's token (`of_agency`) may lack the refresh token and the user type: its schema promises neither.
    Source of the fields: HighLevel's OpenAPI description, in snake_case and (v3) camelCase.
    """

    def malformed(what: str) -> CallFailed:
        return heard.failed(body, Cause.MALFORMED_ANSWER, f"HighLevel's answer held no usable {what}")

    access = _field(body, "access_token", "accessToken")
    refresh = _field(body, "refresh_token", "refreshToken")
    if not _is_opaque(access, _LONGEST_TOKEN):
        raise malformed("access token")
    if of_agency and not refresh:
        refresh = ""
    elif not _is_opaque(refresh, _LONGEST_TOKEN):
        raise malformed("refresh token")
    user_type = _field(body, "userType", "user_type") or (install.key.level.value if of_agency else "")
    if not isinstance(user_type, str) or not user_type:
        raise malformed("user type")
    location, company = _text(body, "locationId", "location_id"), _text(body, "companyId", "company_id")
    _check_account(heard, body, install, user_type, location, company)
    return Tokens(
        Secret(access),
        Secret(refresh),
        _text(body, "token_type", "tokenType"),
        _expires_at(_field(body, "expires_in", "expiresIn"), heard.server_time or heard.now),
        _text(body, "scope"),
        user_type,
        _text(body, "userId", "user_id"),
        company,
        location,
        _trace_id(body, heard.raw.headers, heard.hides(body)),
    )


def read_page(heard: Heard, body: dict[str, Any]) -> tuple[dict[str, str], str]:
    """A page of installed locations: the names of those that have the app by id, and the token of the next page, or ''.

    Raises CallFailed for an answer that is no such page. Source of the fields: OpenAPI description, v3.
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


def _check_account(
    heard: Heard, body: dict[str, Any], install: Install, user_type: str, location: str, company: str
) -> None:
    """Raise CallFailed where the answer is for another install than the one that was asked for."""
    level = install.key.level
    if user_type != level.value:
        shown = plain(scrub(user_type, heard.hides(body)), 40)
        raise heard.failed(body, Cause.WRONG_USER_TYPE, f"the answer is for {shown}, not for {level.value}")
    account = location if level is Level.SUB_ACCOUNT else company
    if not account:
        raise heard.failed(body, Cause.MALFORMED_ANSWER, "HighLevel's answer held no usable account id")
    if account != install.key.account_id:
        raise heard.failed(body, Cause.WRONG_ACCOUNT, "the answer names another account; it was thrown away")
    if install.company_id and company and company != install.company_id:
        raise heard.failed(body, Cause.WRONG_ACCOUNT, "the answer names another company; it was thrown away")


def _json(body: bytes) -> object:
    def no_number(_: str) -> object:
        raise ValueError

    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=no_number)
    except (ValueError, RecursionError):
        return None


def _field(body: Mapping[str, Any], *names: str) -> Any:
    return next((body[name] for name in names if body.get(name) is not None), None)


def _text(body: Mapping[str, Any], *names: str) -> str:
    value = _field(body, *names)
    return plain(value, _LONGEST_TOKEN) if isinstance(value, str) else ""


def _is_opaque(value: object, longest: int) -> bool:
    return isinstance(value, str) and len(value) <= longest and bool(_PRINTABLE.fullmatch(value))


def _header(headers: Mapping[str, str], name: str) -> str:
    return str(headers.get(name) or "")


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _iso(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _expires_at(value: object, since: datetime) -> str:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:  # noqa: PLR2004
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _TEN_YEARS:
        return ""
    return (since + timedelta(seconds=value)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _words(body: object, secrets: Sequence[Secret]) -> tuple[str, str]:
    """All that a server said, and its own words for a person; both scrubbed before they are shortened."""
    if isinstance(body, dict):
        error = body.get("error")
        nested = error if isinstance(error, dict) else {}
        message = _joined(body.get("message")) or _joined(body.get("error_description"))
        message = message or _joined(nested.get("message"))
        said = [message, _joined(body.get("error_description")), _joined(error)]
        said += [_joined(nested.get(name)) for name in ("code", "message", "details")]
        says = " | ".join(dict.fromkeys(text for text in said if text))
        message = message or _joined(error) or _joined(nested.get("code"))
    elif isinstance(body, bytes):
        says = message = " ".join(_TAG.sub(" ", body[: 20 * _SAYS].decode(errors="replace")).split())
    else:
        says = message = ""
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
