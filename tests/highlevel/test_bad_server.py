"""A server that misbehaves in every way there is, on every call: never a traceback, never a hang, always the cause."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.core.causes import diagnose
from jobs.core.model import Cause
from jobs.highlevel.api import CallFailed
from jobs.highlevel.network_errors import is_late
from tests.helpers.api import client
from tests.helpers.bad_server import BAD, CLOSE, FINE, KEEP, STALL, Bad, http, serving
from tests.helpers.calls import CALLS, SECRET
from tests.helpers.sockets import free_port
from tests.helpers.waiting import wait_until

SLOW_SECONDS = 1.5
ODD = [
    None, True, 5, -1, 1.5, 10**400, "", " ", "x" * 20_000, "with\x1b[2Jescape", "é", "\ud800", "\x00", "９", [], ["a"],
    {}, {"a": ["b"]},
]  # fmt: skip


def cause_of(call, api):
    """The cause of a call's failure, or None if it gave what was asked for."""
    try:
        call.make(api)
    except CallFailed as failed:
        answer = failed.answer
        shown = answer.message + answer.says + answer.trace_id + str(failed)
        assert SECRET not in shown
        assert "the-code-1" not in shown
        assert shown.isprintable()
        assert 0 < len(answer.message) <= 300
        return diagnose(answer)
    return None


SLOW = [name for name, bad in BAD.items() if bad.pause or bad.end == STALL or name == "a flood of continues"]


# A kept connection that is closed without a byte of the answer is nobody's fault.
WITHOUT_A_BYTE = (BAD["closed before an answer"], BAD["reset before an answer"])


def play(bad, call, *, slow, after):
    """A bad answer `after` so many good ones and, of the same worker, the next request: the one has its cause, the other does not suffer."""
    good = json.dumps(call.good).encode()
    passes = after > 0 and bad in WITHOUT_A_BYTE and not call.once
    with serving(lambda number, _: (bad if number == after + 1 else FINE, good)) as server:
        api = client(server.url, seconds=SLOW_SECONDS if slow else 10.0)
        for _ in range(after):
            assert cause_of(call, api) is None
        assert server.connections == min(after, 1)
        began = time.monotonic()
        assert cause_of(call, api) == (None if passes else bad.cause)
        assert time.monotonic() - began < 8 * SLOW_SECONDS
        assert len(server.requests) == after + 1 + passes
        assert cause_of(call, api) is None
        assert len(server.requests) == after + 2 + passes
        # What was not whole and expected may have a rest to come: its connection is used no more.
        used = after + 2 if call.fresh else 2
        assert server.connections == used or bad.cause is not Cause.MALFORMED_ANSWER
        api.close()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("after", [0, 1], ids=["on a new connection", "on an open one"])
@pytest.mark.parametrize("name", [name for name in BAD if name not in SLOW])
def test_every_bad_answer_has_its_cause_and_the_next_request_of_the_worker_does_not_suffer(name, call, after, capfd):
    play(BAD[name], call, slow=False, after=after)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_answer_that_drips_or_never_comes_is_ended_by_the_limit_on_the_whole_of_it(call):
    with ThreadPoolExecutor(2 * len(SLOW)) as executor:
        for name, played in [
            (name, executor.submit(play, BAD[name], call, slow=True, after=after)) for name in SLOW for after in (0, 1)
        ]:
            assert played.exception(60) is None, name


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"], ids=["nothing", "half a head"])
def test_an_answer_that_does_not_come_in_time_is_known_as_late(sent):
    """Fewer tries go out at once then."""
    with serving(lambda *_: (Bad(lambda _: [sent], None, STALL), b"")) as server:
        api = client(server.url, seconds=SLOW_SECONDS)
        with pytest.raises(CallFailed) as failed:
            CALLS["reconnect"].make(api)
        api.close()
    assert is_late(failed.value.answer)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_refused_connection_and_a_host_that_never_answers_are_network_errors(call):
    assert cause_of(call, client(f"http://127.0.0.1:{free_port()}")) is Cause.NETWORK_ERROR
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        assert (
            cause_of(call, client(f"http://127.0.0.1:{full.getsockname()[1]}", seconds=SLOW_SECONDS))
            is Cause.NETWORK_ERROR
        )
        for one in waiting:
            one.close()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_kept_connection_that_the_server_closed_meanwhile_costs_nothing(call):
    closing = Bad(FINE.send, None, CLOSE)
    with serving(lambda *_: (closing, json.dumps(call.good).encode())) as server:
        api = client(server.url)
        for calls in range(1, 4):
            assert cause_of(call, api) is None
            assert len(server.requests) == calls
            wait_until(lambda calls=calls: server.closed == calls)
        api.close()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_a_redirect_is_never_followed_to_wherever_it_points(call, status):
    good = json.dumps(call.good).encode()
    with serving(lambda *_: (FINE, good)) as trap:
        away = Bad(lambda _: [http(status=status, headers=f"Location: {trap.url}/oauth/token\r\n")], None, KEEP)
        with serving(lambda *_: (away, good)) as server:
            assert cause_of(call, client(server.url)) is Cause.MALFORMED_ANSWER
            assert len(server.requests) == 1
        assert trap.requests == []


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "404 Not Found", "500 No"])
def test_an_answer_with_another_behind_it_leaves_nothing_to_the_next_request(call, status):
    stale = http(json.dumps({"authorizationCode": "stale", "message": "stale"}).encode())
    good = json.dumps(call.good).encode()
    for body in (b"<html>x</html>", json.dumps({"message": "no words of note"}).encode(), good):
        all_sent = threading.Event()

        def send(_, body=body, all_sent=all_sent):
            yield http(body, status) + stale[:50]
            yield stale[50:] + stale
            all_sent.set()

        more = Bad(send, None, KEEP, pause=0.01)
        with serving(lambda number, _, more=more: (more if number == 1 else FINE, good)) as server:
            api = client(server.url)
            cause_of(call, api)
            all_sent.wait(1)
            assert cause_of(call, api) is None
            api.close()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_good_answer_with_any_field_gone_or_turned_into_anything_has_a_cause_or_is_used(call):
    changed = [(name, value) for name in call.good for value in ODD]
    bodies = [json.dumps(call.good | {name: value}).encode() for name, value in changed]
    with serving(lambda number, _: (FINE, bodies[number - 1])) as server:
        api = client(server.url)
        for name, value in changed:
            cause = cause_of(call, api)
            may_be = {None, Cause.WRONG_ACCOUNT} if name in call.optional else set(Cause)
            may_be |= {None} if name in call.may_be_empty and not value else set()
            assert cause in may_be, (name, value)
        api.close()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_error_with_any_field_turned_into_anything_has_a_cause(call):
    names = ["statusCode", "message", "error", "error_description", "traceId"]
    bodies = [{name: value} for name in names for value in ODD]
    bodies += [{"error": {name: value}} for name in ("code", "message", "details", "traceId") for value in ODD]
    sent = [json.dumps(body).encode() for body in bodies]
    error = Bad(lambda good: [http(good, "400 Bad Request")], None, KEEP)
    with serving(lambda number, _: (error, sent[number - 1])) as server:
        api = client(server.url)
        assert {cause_of(call, api) for _ in sent} == {Cause.REQUEST_REFUSED}
        api.close()


def test_a_server_that_floods_many_workers_costs_bounded_memory_and_time():
    flood = BAD["length of a terabyte"]
    with serving(lambda *_: (flood, b"")) as server:
        api = client(server.url)
        found = []
        workers = [threading.Thread(target=lambda: found.append(cause_of(CALLS["reconnect"], api))) for _ in range(16)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
        api.close()
    assert found == [Cause.MALFORMED_ANSWER] * 16
