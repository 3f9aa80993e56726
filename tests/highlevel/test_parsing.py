"""What answers say: errors in good answers, answers of other software, numbers and dates from outside."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.core.causes import Closes, closes, diagnose
from jobs.core.model import Cause, InstallKey, Level, Stage
from jobs.core.secret import Secret
from jobs.highlevel.jwt_claims import read_claims, why_useless
from jobs.highlevel.parsing import CallFailed, Heard, read_body, read_code, read_page, read_tokens
from jobs.highlevel.transport import Raw
from jobs.recovery.attempt import by_reconnect
from tests.helpers.api import APP, DATE, GOOD, LOCATION, Gate, over
from tests.helpers.bad_server import KEEP, Bad, http, serving

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
A_YEAR = 31_536_000
PAIR = {"access_token": "a.b.c", "refresh_token": "r.b.c", "userType": "Location", "locationId": "LocA"}
READ = {
    Stage.RECONNECT: ({"authorizationCode": "the-code"}, read_code),
    Stage.EXCHANGE: (PAIR, lambda heard, body: read_tokens(heard, body, LOCATION)),
    Stage.REFRESH: (PAIR, lambda heard, body: read_tokens(heard, body, LOCATION)),
    Stage.LOCATION_TOKEN: (PAIR, lambda heard, body: read_tokens(heard, body, LOCATION, agency="CoA")),
    Stage.INSTALLED_LOCATIONS: ({"items": []}, read_page),
}
AT_ANY_CALL = pytest.mark.parametrize("stage", READ)


def heard(body, status=200, stage=Stage.RECONNECT, headers=None):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Heard(Raw(status, headers or {}, content, whole=True), stage, (), NOW, lambda: None)


def refused(body, status=200, stage=Stage.RECONNECT, headers=None):
    one = heard(body, status, stage, headers)
    with pytest.raises(CallFailed) as failed:
        READ[stage][1](one, read_body(one))
    return failed.value.answer


# -- an error in the body of a good answer -------------------------------------------------------------------------


@AT_ANY_CALL
@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ({"statusCode": 400, "message": "Location is not active", "traceId": "tr-1"}, Cause.LOCATION_INACTIVE),
        ({"statusCode": "400", "message": "Location is not active"}, Cause.LOCATION_INACTIVE),
        ({"message": "Location is not active"}, Cause.LOCATION_INACTIVE),
        ({"error": {"code": 400, "message": "Location is not active"}}, Cause.LOCATION_INACTIVE),
        ({"errors": ["Location is not active"]}, Cause.LOCATION_INACTIVE),
        ({"error": "invalid_request", "error_description": "No installation found"}, Cause.NOT_INSTALLED),
        ({"success": False, "message": "We will not"}, Cause.REQUEST_REFUSED),
        ({"statusCode": 500, "message": "Oops"}, Cause.SERVER_ERROR),
        ({"statusCode": 429, "message": "Too many requests"}, Cause.RATE_LIMITED),
    ],
)
def test_an_error_in_the_body_of_a_200_is_an_error_with_its_words_and_its_cause(stage, body, cause):
    answer = refused(body, stage=stage)
    assert diagnose(answer) is cause
    assert answer.message in json.dumps(body)
    assert answer.http_status == 200


@AT_ANY_CALL
@pytest.mark.parametrize("more", [
    {"error": None}, {"error": ""}, {"errors": []}, {"error": {}}, {"message": ""}, {"message": "OK"}, {"statusCode": 201},
    {"success": True}, {"status": "ok"},
])  # fmt: skip
def test_a_good_answer_that_carries_an_error_field_without_an_error_stays_good(stage, more):
    good, read = READ[stage]
    one = heard(good | more, stage=stage)
    read(one, read_body(one))


def test_a_pair_is_never_thrown_away_for_what_is_said_beside_it():
    one = heard(PAIR | {"error": "a warning", "statusCode": 400}, stage=Stage.EXCHANGE)
    assert read_tokens(one, read_body(one), LOCATION).access_token == Secret("a.b.c")


@AT_ANY_CALL
@pytest.mark.parametrize("body", [{}, {"message": "OK"}, {"traceId": "t"}, {"statusCode": 200}, {"statusCode": 10**30}])
def test_a_good_answer_without_what_was_asked_for_and_without_an_error_is_malformed(stage, body):
    assert diagnose(refused(body, stage=stage)) is Cause.MALFORMED_ANSWER


def test_a_429_in_a_good_answer_holds_everybody_back_as_any_other(net):
    gate = Gate()
    net.answer("/oauth/reconnect", {"statusCode": 429}, headers={"Retry-After": "7"})
    with pytest.raises(CallFailed):
        over(net, gate=gate).reconnect(APP, LOCATION)
    assert gate.observed == [(429, 7.0)]


# -- answers that are not HighLevel's own --------------------------------------------------------------------------


PAGES = [
    (403, b"error code: 1010", "a firewall", "code: 1010"),
    (403, b"error code: 1015", "a firewall", "code: 1015"),
    (403, b"<html><title>Attention Required! | Cloudflare</title><h1>Sorry, you have been blocked</h1></html>", "a firewall", "you have been blocked"),
    (403, b"<h1>Access Denied</h1>You don't have permission. Reference #18.2", "a firewall", "Reference #18.2"),
    (407, b"<html><body>Squid: Access Denied by the proxy</body></html>", "a proxy's page", "Denied by the proxy"),
    (403, b"<title>Zscaler</title>Not allowed to browse this category", "a proxy's page", "this category"),
    (200, b"<html><body>Welcome to Hotel Wi-Fi. Accept the terms to go on</body></html>", "a captive portal", "terms to go on"),
    (511, b"<html>You need to log in to this network</html>", "a captive portal", "this network"),
    (502, b"<html><h1>502 Bad Gateway</h1><hr>nginx/1.18.0</html>", "a web server or a gateway", "502 Bad Gateway nginx/1.18.0"),
    (404, b"<html><h1>404 Not Found</h1><hr>nginx/1.18.0</html>", "a web server or a gateway", "404 Not Found nginx/1.18.0"),
    (403, b"<html><style>p{}</style><script>var a='<p>firewall'</script><p>Go away</p></html>", "other software", "Go away"),
]  # fmt: skip


@AT_ANY_CALL
@pytest.mark.parametrize(("status", "page", "look", "words"), PAGES)
def test_an_answer_of_other_software_says_that_something_in_between_answered_and_what_it_looks_like(
    stage, status, page, look, words
):
    answer = refused(page, status, stage)
    assert answer.message.startswith("something else answered in place of HighLevel (")
    assert look in answer.message.partition(")")[0]
    assert words in answer.message.partition("): ")[2]
    assert "var a" not in answer.message
    assert len(answer.message) <= 300


@pytest.mark.parametrize(
    ("stage", "status", "page", "cause"),
    [
        # A firewall's page says nothing about credentials, tokens or installs, whatever its status and its words.
        (Stage.RECONNECT, 401, b"<html>Access denied by the firewall</html>", Cause.REQUEST_REFUSED),
        (
            Stage.RECONNECT,
            403,
            b"<html>Company policy: location not found, access denied</html>",
            Cause.REQUEST_REFUSED,
        ),
        (Stage.REFRESH, 401, b"<html>Access denied</html>", Cause.REQUEST_REFUSED),
        (Stage.LOCATION_TOKEN, 403, b"error code: 1010", Cause.REQUEST_REFUSED),
        (Stage.RECONNECT, 404, b"<html><h1>404 Not Found</h1><hr>nginx/1.18.0</html>", Cause.RECONNECT_REMOVED),
        (Stage.RECONNECT, 521, b"error code: 521", Cause.SERVER_ERROR),
        (Stage.RECONNECT, 200, b"<html>Please log in</html>", Cause.MALFORMED_ANSWER),
    ],
)
def test_what_other_software_answers_has_the_cause_of_its_status_alone(stage, status, page, cause):
    assert diagnose(refused(page, status, stage)) is cause


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<pre>Cannot POST /oauth/reconnect</pre>"),
        (401, b'{"message":"UnAuthorized!"}'),
        (401, b'"Unauthorized"'),
    ],
)
def test_an_answer_in_highlevels_own_form_is_its_own(status, body):
    assert "in between" not in refused(body, status).message


def test_plain_words_are_told_as_such():
    assert refused(b"Too busy", 503).message == "the answer is not in HighLevel's form: Too busy"


def test_a_good_answer_that_is_cut_off_shows_nothing_of_its_pair():
    answer = refused(b'{"access_token": "short-token", ', stage=Stage.EXCHANGE)
    assert "short-token" not in answer.message + answer.says


# -- closed routes ---------------------------------------------------------------------------------------------------

IAM = {"message": "This route is not yet supported by the IAM Service. Please update your IAM config."}


@pytest.mark.parametrize("status", [401, 403])
def test_a_route_that_the_iam_service_does_not_support_is_a_closed_one(status):
    assert diagnose(refused(IAM, status, Stage.RECONNECT)) is Cause.RECONNECT_REMOVED
    for stage, cause in ((Stage.LOCATION_TOKEN, Cause.AGENCY_REFUSED), (Stage.REFRESH, Cause.REQUEST_REFUSED)):
        answer = refused(IAM, status, stage)
        assert (diagnose(answer), closes(answer)) == (cause, Closes.RUN)
    assert diagnose(refused(IAM, status, Stage.INSTALLED_LOCATIONS)) is Cause.AGENCY_REFUSED


@pytest.mark.parametrize(
    ("status", "body", "cause"),
    [
        (400, {"error": "invalid_request", "error_description": "Invalid request: `redirect_uri` is invalid"}, Cause.REQUEST_REFUSED),
        (400, {"message": "`redirect_uri` is invalid"}, Cause.REQUEST_REFUSED),
        (400, {"message": "Invalid client: client is invalid"}, Cause.REQUEST_REFUSED),
        (422, {"message": ["property userType should not exist"]}, Cause.REQUEST_REFUSED),
        (401, {"message": "Invalid client credentials!"}, Cause.CREDENTIALS_REJECTED),
        (401, {"message": "UnAuthorized!"}, Cause.CREDENTIALS_REJECTED),
    ],
)  # fmt: skip
def test_a_refusal_that_everybody_gets_has_its_cause(status, body, cause):
    assert diagnose(refused(body, status, Stage.EXCHANGE)) is cause


# -- numbers and dates from outside ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["99999999999999999", "9" * 400, "Fri, 31 Dec 9999 23:59:59 -2359"])
def test_a_retry_after_beyond_all_is_a_year(text):
    assert heard({}, 429, headers={"retry-after": text}).retry_after == A_YEAR


odd_text = st.one_of(st.text(max_size=60), st.from_regex(r"[0-9+\-.:eE, ]{0,40}"), st.integers().map(str))
dates = st.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    *(st.sampled_from(["Tue", "x"]), st.integers(-1, 40), st.sampled_from(["Jan", "Dec", "x"]), st.integers(-1, 10**9)),
    *(st.integers(-1, 99) for _ in range(3)),
    st.sampled_from(["GMT", "-9999", "+2400", "+9999999999", ""]),
)
numbers = st.one_of(st.integers(), st.floats(), st.integers(-(10**400), 10**400), st.booleans(), st.none(), odd_text)
moments = st.one_of(
    odd_text, st.datetimes().map(datetime.isoformat), st.datetimes().map(lambda at: f"{at.isoformat()}-23:59")
)


@given(st.one_of(odd_text, dates), st.one_of(odd_text, dates))
def test_any_retry_after_and_any_date_is_read_or_left(after, date):
    found = heard({}, 429, headers={"retry-after": after, "date": date}).retry_after
    assert found is None or 0 <= found <= A_YEAR
    timedelta(seconds=found or 0.0)


@given(numbers, st.one_of(odd_text, dates))
def test_any_lifetime_is_read_or_left(lifetime, date):
    one = heard({}, stage=Stage.EXCHANGE, headers={"date": date})
    tokens = read_tokens(one, PAIR | {"expires_in": lifetime}, LOCATION)
    assert tokens.expires_at == "" or datetime.fromisoformat(tokens.expires_at)


@given(st.one_of(moments, numbers), st.one_of(odd_text, dates))
def test_any_expiry_of_a_code_is_read_or_left(expires, date):
    one = heard({}, headers={"date": date})
    _, until, _ = read_code(one, {"authorizationCode": "c", "expiresAt": expires})
    if until is not None and one.server_time is not None:
        assert isinstance((until - one.server_time).total_seconds(), float)


@given(numbers, st.one_of(st.text(max_size=20), st.none(), st.integers()))
def test_any_claims_of_a_token_are_read_or_left(expires, other):
    try:
        payload = json.dumps({"exp": expires, "authClass": other, "authClassId": other, "sourceId": other}).encode()
    except ValueError:  # A number of more digits than Python writes.
        return
    token = Secret(f"e30.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.{'s' * 43}")
    claims = read_claims(token)
    assert claims is None or claims.expires is None or datetime.fromtimestamp(claims.expires, UTC)
    assert isinstance(why_useless(token, InstallKey("c", Level.AGENCY, "CoA"), 0.0), str)


# -- what a good answer says beside its pair ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "read"),
    [("a b", "a b"), (["a.readonly", "b.write"], "a.readonly b.write"), ([], ""), (["a", 5], "a"), (7, "")],
)
def test_a_scope_that_comes_as_a_list_is_joined_by_spaces(scope, read):
    one = heard({}, stage=Stage.EXCHANGE)
    assert read_tokens(one, PAIR | {"scope": scope}, LOCATION).scope == read


@pytest.mark.parametrize(("token_trace", "kept"), [({"traceId": "of-token"}, "of-token"), ({}, "of-reconnect")])
def test_the_trace_id_of_a_recovered_install_is_the_token_answers_or_else_the_one_before_it(net, token_trace, kept):
    net.answer("/oauth/reconnect", {"authorizationCode": "c", "traceId": "of-reconnect"}, headers=DATE)
    net.answer("/oauth/token", GOOD | token_trace)
    assert by_reconnect(over(net), APP, LOCATION).trace_id == kept


def test_a_failed_exchange_without_a_trace_id_has_the_one_before_it(net):
    net.answer("/oauth/reconnect", {"authorizationCode": "c", "traceId": "of-reconnect"}, headers=DATE)
    net.answer("/oauth/token", {"message": "Location is not active"}, status=400)
    with pytest.raises(CallFailed) as failed:
        by_reconnect(over(net), APP, LOCATION)
    assert failed.value.answer.trace_id == "of-reconnect"


@pytest.mark.parametrize("after", ["99999999999999999", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_wait_beyond_all_ends_the_run_in_words_and_not_in_a_traceback(play, after):
    job = play()
    busy = Bad(lambda _: [http(b"{}", "429 Too Many Requests", f"Retry-After: {after}\r\n")], None, KEEP)
    with serving(lambda *_: (busy, b"")) as server:
        job.environment["HIGHLEVEL_BASE_URL"] = server.url
        done = job.run(job.manifest("location_id\nLocA\nLocB\n"), "--log-format", "json")
        assert len(server.requests) == 1
    assert "Traceback" not in done.stderr
    assert (done.returncode, job.summary()["stopped_because"]) == (3, "outage")
    assert "longer than pace.patience_seconds" in done.stdout
