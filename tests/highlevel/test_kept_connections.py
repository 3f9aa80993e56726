"""A connection is made first, then a request takes its turn, then it is sent; one that turns out closed is nobody's try."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from contextlib import closing
from urllib.parse import parse_qs

import pytest

from jobs.core.causes import diagnose
from jobs.core.model import Cause
from jobs.core.secret import Secret
from jobs.highlevel.api import Code, Window
from jobs.highlevel.transport import Limits, Transport
from jobs.pace.gate import Stopped
from jobs.recovery.attempt import by_reconnect
from tests.helpers.api import Gate, client, refused
from tests.helpers.bad_server import CLOSE, FINE, RESET, Bad, serving
from tests.helpers.calls import APP, CALLS, INSTALL
from tests.helpers.lists import listing_of_pairs, of
from tests.helpers.sockets import free_port
from tests.helpers.waiting import wait_until

GOODS = {"/oauth/reconnect": "reconnect", "/oauth/token": "exchange"}
SWALLOWED = {
    "closed": Bad(lambda _: [], None, CLOSE),
    "reset": Bad(lambda _: [], None, RESET),
}


def good_for(request):
    path = re.search(rb"POST (\S+)", request)[1].decode()
    grant = b"refresh_token=" in request
    return json.dumps(CALLS["refresh" if grant else GOODS[path]].good).encode()


def codes_sent(server):
    forms = [parse_qs(request.partition(b"\r\n\r\n")[2].decode()) for request in server.requests]
    return [form["code"][0] for form in forms if "code" in form]


def numbered(number, request):
    """A good answer, whose code nobody else gets."""
    return good_for(request).replace(b"the-code-1", b"code-%d" % number)


def test_a_request_takes_its_turn_only_when_its_connection_stands():
    with serving(lambda _, request: (FINE, good_for(request))) as server:
        stood = []
        api = client(server.url, Gate(lambda: stood.append(wait_until(lambda: server.connections == 1))))
        api.reconnect(APP, INSTALL)
        api.close()
        assert len(stood) == 1


def test_a_request_that_finds_no_connection_takes_no_turn_and_is_known_to_have_never_left():
    gate = Gate()
    answer = refused(client(f"http://127.0.0.1:{free_port()}", gate).reconnect, APP, INSTALL)
    assert (gate.did, answer.never_left) == ([], True)


def test_requests_that_never_left_are_not_counted(play):
    job = play()
    job.environment["HIGHLEVEL_BASE_URL"] = f"http://127.0.0.1:{free_port()}"
    job.run(job.manifest("location_id\nLocA\n"))
    assert job.summary()["this_run"]["requests"] == 0


@pytest.mark.parametrize("how", SWALLOWED)
def test_a_kept_connection_that_dies_without_a_byte_of_the_answer_costs_a_request_and_no_try(how):
    with serving(lambda number, request: (SWALLOWED[how] if number == 2 else FINE, good_for(request))) as server:
        gate = Gate()
        api = client(server.url, gate)
        for _ in range(2):
            api.reconnect(APP, INSTALL)
        api.close()
        assert len(server.requests) == 3
        assert gate.did == ["turn", 200, "turn", 0, "turn", 200]


@pytest.mark.parametrize("how", SWALLOWED)
def test_a_fresh_connection_that_does_the_same_is_a_failure(how):
    with serving(lambda *_: (SWALLOWED[how], b"")) as server:
        answer = refused(client(server.url).reconnect, APP, INSTALL)
        assert (diagnose(answer), answer.never_left) == (Cause.NETWORK_ERROR, False)
        assert len(server.requests) == 1


@pytest.mark.parametrize("how", SWALLOWED)
def test_a_code_that_a_dying_connection_swallowed_is_never_sent_again_and_costs_no_try(how):
    def answer(number, request):
        return SWALLOWED[how] if number == 2 else FINE, numbered(number, request)

    with serving(answer) as server:
        api = client(server.url)
        assert by_reconnect(api, APP, INSTALL).access_token.reveal() == "access.jwt"
        api.close()
        assert codes_sent(server) == ["code-1", "code-3"]


def test_two_codes_that_are_swallowed_are_a_failure_and_neither_is_sent_again():
    def answer(number, request):
        return FINE if b"/oauth/reconnect" in request else SWALLOWED["closed"], numbered(number, request)

    with serving(answer) as server:
        assert diagnose(refused(by_reconnect, client(server.url), APP, INSTALL)) is Cause.NETWORK_ERROR
        assert codes_sent(server) == ["code-1", "code-3"]


def test_a_try_is_not_used_up_by_a_kept_connection_that_was_closed(stage):
    job = stage.job
    job.environment["RECOVERY_RETRY__ATTEMPTS"] = "1"
    swallowed = {2, 7}  # An exchange; and a reconnect, since the two that follow the first cost one more.

    def answer(number, request):
        return SWALLOWED["closed"] if number in swallowed else FINE, _for(number, request)

    with serving(answer) as server:
        job.environment["HIGHLEVEL_BASE_URL"] = server.url
        manifest = job.manifest("location_id\nLocA\nLocB\nLocC\n")
        assert stage.run(manifest, job.output, "--workers", "1")["code"] == 0
        assert len(server.requests) == 9
        assert len(set(codes_sent(server))) == len(codes_sent(server)) == 4
    assert {row["attempts"] for row in job.results().values()} == {"1"}


def _for(number, request):
    """A good answer for the very location that is asked for; its code says which."""
    asked = re.search(rb'"locationId": "(\w+)"|code=\d+\.(\w+)', request)
    location = next(filter(None, asked.groups())).decode()
    good = CALLS[GOODS[re.search(rb"POST (\S+)", request)[1].decode()]].good
    change = {"authorizationCode": f"{number}.{location}"} if "authorizationCode" in good else {"locationId": location}
    return json.dumps(good | change | {"companyId": ""}).encode()


def test_a_token_is_never_spent_on_a_connection_that_was_kept():
    """A firewall may have forgotten it: what is sent there is lost, and nobody says so."""
    with serving(lambda _, request: (FINE, good_for(request))) as server:
        api = client(server.url)
        made = []
        for _ in range(2):
            api.reconnect(APP, INSTALL)
            api.refresh(APP, INSTALL, Secret("the-code-1"), Window(), lambda _: True)
            made.append(server.connections)
        api.close()
        assert made == [2, 3]


def test_that_a_token_will_be_spent_is_written_when_it_is_about_to_leave_and_not_before():
    with serving(lambda _, request: (FINE, good_for(request))) as server:
        gate = Gate()

        def intend(install):
            gate.did.append("intended")
            assert server.requests == []
            return True

        client(server.url, gate).refresh(APP, INSTALL, Secret("old"), Window(), intend)
        assert gate.did == ["turn", "intended", 200]


def test_a_token_whose_turn_never_comes_is_not_intended():
    def stop():
        raise Stopped

    with serving(lambda _, request: (FINE, good_for(request))) as server, pytest.raises(Stopped):
        client(server.url, Gate(stop)).refresh(APP, INSTALL, Secret("old"), Window(), pytest.fail)


def test_a_token_is_not_sent_where_the_disk_will_not_have_that_it_will_be():
    with serving(lambda _, request: (FINE, good_for(request))) as server:
        gate = Gate()
        with pytest.raises(Stopped):
            client(server.url, gate).refresh(APP, INSTALL, Secret("old"), Window(), lambda _: False)
        assert (gate.did, server.requests) == (["turn", "withdrawn"], [])


def test_a_code_past_its_time_takes_a_turn_back():
    with serving(lambda _, request: (FINE, good_for(request))) as server:
        gate = Gate()
        answer = refused(client(server.url, gate).exchange, APP, INSTALL, Code(Secret("old"), lambda: True))
        assert (diagnose(answer), gate.did) == (Cause.CODE_REJECTED, ["turn", "withdrawn"])


def test_a_kill_leaves_only_what_was_in_flight_in_doubt(play):
    locations = [f"Loc{n}" for n in range(12)]
    job = play(of(*locations), reconnect_removed=True, latency_seconds=0.3)
    job.environment |= {"RECOVERY_PACE__REQUESTS_PER_SECOND": "2"}
    rows = [(location, "", "", job.sandbox.old_pair(location)["refresh_token"]) for location in locations]
    process = job.start(
        "run", job.manifest(listing_of_pairs(*rows)), "--output", job.output, "--routes", "refresh", "--workers", "8"
    )
    wait_until(lambda: len(job.sandbox.refreshes.sent) >= 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with closing(sqlite3.connect(job.output / "ledger.sqlite3")) as ledger:
        (asked,) = ledger.execute("select count(*) from spends").fetchone()
    seen = len({one.token for one in job.sandbox.refreshes.sent})
    assert 3 <= asked <= seen + 1  # One may have been written whose bytes had not left.


def test_a_request_whose_process_slept_after_its_turn_is_not_sent_and_takes_another_turn():
    may = iter([False, True])
    with serving(lambda _, request: (FINE, good_for(request))) as server:
        gate = Gate()
        transport = Transport(server.url, Limits(5, 5, 5, 100_000), {}, may_leave=lambda: next(may, True))
        api = client(server.url, gate, transport=transport)
        api.reconnect(APP, INSTALL)
        api.close()
        assert gate.did == ["turn", "withdrawn", "turn", 200]
        assert len(server.requests) == 1
