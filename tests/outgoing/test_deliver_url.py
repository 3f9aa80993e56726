"""The target that is an address: signed POSTs over real sockets, checked with the package of the scheme."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from jobs.config.settings import DeliverSettings, SigningSecrets
from jobs.core.clock import utc
from jobs.core.secret import Secret
from jobs.outgoing.deliver import opening
from jobs.outgoing.deliver.courier import Policy
from jobs.outgoing.deliver.pool import PoolCourier
from jobs.outgoing.deliver.url import UrlTarget
from jobs.outgoing.deliver.verdict import Later, No, Over, Yes
from tests.helpers.deliveries import FAST, a_pair, played, waiting

OLD, NEW = "whsec_" + "b2xk" * 8, "whsec_" + "bmV3" * 8
PATH = "/hooks/very-secret-path?key=very-secret-key"


class Receiver:
    """A web address that keeps what is posted to it, and answers with `answers` (status, headers, body), then 204."""

    def __init__(self):
        self.posted = []
        self.answers = []
        self.connections = set()
        self.lock = threading.Lock()

    def answer_to(self, path, headers, body, peer):
        with self.lock:
            self.posted.append((path, headers, body))
            self.connections.add(peer)
            return self.answers.pop(0) if self.answers else (204, {}, b"")

    def ids(self):
        return [headers["webhook-id"] for _, headers, _ in self.posted]


@contextmanager
def receiving():
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told = receiver.answer_to(self.path, dict(self.headers), body, self.client_address)
            if told is None:  # No answer at all.
                self.close_connection = True
                return
            status, headers, answer = told
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self):  # A redirect that is followed would come here.
            receiver.answer_to(self.path, {}, b"", self.client_address)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}{PATH}"
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver():
    with receiving() as receiver:
        yield receiver


def target_of(receiver, *secrets, seconds=20):
    return UrlTarget(Secret(receiver.url), tuple(map(Secret, secrets or (NEW,))), seconds, {}, utc)


def test_a_pair_is_one_post_of_json_signed_over_its_exact_bytes(receiver):
    target = target_of(receiver)
    pair = a_pair(user_id="ünïcode 😀")
    assert target.hand_over(pair) == Yes()
    target.close()
    ((path, headers, body),) = receiver.posted
    assert path == PATH
    assert headers["Content-Type"] == "application/json"
    assert headers["webhook-id"] == pair.pair_id
    told = Webhook(NEW).verify(body, headers)
    assert told == {"type": "connection.recovered", "timestamp": pair.data["recovered_at"], "data": pair.data}
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(body + b" ", headers)


def test_each_secret_signs_while_they_are_rotated(receiver):
    target = target_of(receiver, OLD, NEW)
    target.hand_over(a_pair())
    target.close()
    ((_, headers, body),) = receiver.posted
    for secret in (OLD, NEW):
        assert Webhook(secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "b3RoZXI=" * 4).verify(body, headers)


def test_every_try_of_a_pair_has_the_same_id_and_a_signature_of_its_own(receiver, tmp_path):
    receiver.answers += [(503, {}, b""), None, (429, {}, b"")]
    with waiting(tmp_path, 1) as waits:
        courier = PoolCourier(waits.store, target_of(receiver), FAST)
        played(courier)
        assert waits.count("delivered") == 1
    assert len(receiver.posted) == 4
    assert len({*receiver.ids()}) == 1
    for _, headers, body in receiver.posted:
        assert Webhook(NEW).verify(body, headers)["data"]["pair_id"] == headers["webhook-id"]
    assert (courier.report.attempted, courier.report.delivered) == (1, 1)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Yes()), (201, Yes()), (204, Yes()),
        (400, No("the address answered 400")), (401, No("the address answered 401")), (404, No("the address answered 404")),
        (409, No("the address answered 409")), (422, No("the address answered 422")),
        (408, Later("the address answered 408")), (429, Later("the address answered 429")),
        (500, Later("the address answered 500")), (503, Later("the address answered 503")),
        (410, Over("the address answered 410: it wants no more of these")),
    ],
    ids=str,
)  # fmt: skip
def test_the_status_decides(receiver, status, verdict):
    receiver.answers.append((status, {}, b'{"anything": "at all"}' if status != 204 else b""))
    target = target_of(receiver)
    assert target.hand_over(a_pair()) == verdict
    target.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_is_a_no(receiver, status):
    with receiving() as elsewhere:
        receiver.answers.append((status, {"Location": elsewhere.url}, b""))
        target = target_of(receiver)
        assert target.hand_over(a_pair()) == No(f"the address answered {status}")
        target.close()
        assert not elsewhere.posted
    assert len(receiver.posted) == 1


def test_retry_after_is_a_hold(receiver):
    receiver.answers += [(429, {"Retry-After": "7"}, b""), (503, {"Retry-After": "9" * 400}, b"")]
    target = target_of(receiver)
    assert target.hand_over(a_pair()) == Later("the address answered 429", 7)
    assert target.hand_over(a_pair()).hold == 31_536_000
    target.close()


def test_a_pause_that_is_asked_for_uses_up_no_try(receiver, tmp_path):
    receiver.answers += [(429, {"Retry-After": "1"}, b"")]
    with waiting(tmp_path, 1) as waits:
        played(PoolCourier(waits.store, target_of(receiver), Policy(attempts=1)))
        assert waits.count("delivered") == 1
    assert len(receiver.posted) == 2


def test_gone_ends_delivery_for_this_run(receiver, tmp_path):
    receiver.answers += [(410, {}, b"")]
    with waiting(tmp_path, 20) as waits:
        courier = PoolCourier(waits.store, target_of(receiver), Policy(workers=1))
        played(courier)
        assert waits.count("waiting") == 20
    assert len(receiver.posted) == 1
    assert courier.report.rested_because == "the address answered 410: it wants no more of these"


def test_secrets_that_an_answer_echoes_are_shown_nowhere(receiver, tmp_path):
    pair = "access+0/0"
    echo = f"{pair} {receiver.url} {NEW}".encode()
    receiver.answers += [(400, {"X-Echo": pair, "Location": receiver.url}, echo)]
    with waiting(tmp_path, 1) as waits:
        (news,) = played(PoolCourier(waits.store, target_of(receiver), FAST))
        ((state, why, _),) = waits.states().values()
    assert (state, why, news.why) == ("refused", "the address answered 400", "the address answered 400")


def test_only_the_scheme_and_host_of_an_address_are_shown():
    class Nowhere:
        url = "http://user:very-secret@127.0.0.1:1" + PATH

    target = target_of(Nowhere)
    said = target.hand_over(a_pair())
    target.close()
    assert isinstance(said, Later)
    assert said.why.startswith("no answer from http://127.0.0.1 (")
    assert "very-secret" not in said.why
    assert opening.where(DeliverSettings(url=Secret(Nowhere.url))) == "http://127.0.0.1"


def test_an_answer_without_end_is_bounded(receiver):
    receiver.answers.append((200, {}, b"x" * 3_000_000))
    target = target_of(receiver)
    assert target.hand_over(a_pair()) == Yes()
    assert target.hand_over(a_pair()) == Yes()
    target.close()
    assert len(receiver.connections) == 2  # The rest would be read as the next answer.


def test_a_kept_connection_serves_many_pairs(receiver):
    receiver.answers += [(200, {}, b"{}")] * 2 + [(204, {}, b"")] * 3
    target = target_of(receiver)
    for _ in range(5):
        assert target.hand_over(a_pair()) == Yes()
    target.close()
    assert len(receiver.connections) == 1


def test_a_test_sends_one_made_up_pair_as_a_message_of_its_own(receiver):
    settings = DeliverSettings(url=Secret(receiver.url), secret=SigningSecrets([Secret(NEW)]))
    tested = opening.test_target(settings, ("plan",), {}, opening._PROJECT)
    ((_, headers, body),) = receiver.posted
    told = Webhook(NEW).verify(body, headers)
    assert told["type"] == "connection.test"
    assert headers["webhook-id"].startswith("test-")
    assert told["data"]["columns"] == {"plan": None}
    assert tested.works
    assert headers["webhook-id"] in tested.lines[0]
    for status in (401, 410, 503):
        receiver.answers.append((status, {}, json.dumps({"echo": NEW}).encode()))
        tested = opening.test_target(settings, (), {}, opening._PROJECT)
        assert not tested.works
        assert f"http://127.0.0.1 did not take it: the address answered {status}" in tested.lines[0]
        assert NEW not in tested.lines[0]
