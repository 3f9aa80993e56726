"""The sandbox keeps a connection for the next request, and ends it where a real server would."""

from __future__ import annotations

import http.client
import json
from contextlib import ExitStack, closing

import pytest

from jobs.sandbox.server import running
from jobs.sandbox.world import Place, World
from tests.helpers.job import CLIENT_ID, SECRET


@pytest.fixture
def sandbox():
    """A sandbox in which each account behaves as its id says."""
    installs = {name: Place(name) for name in ("drop_before", "malformed_cut", "not_installed")}
    with running(World({CLIENT_ID: SECRET}, installs, "recovered")) as started:
        yield started


def connect(sandbox):
    return closing(http.client.HTTPConnection("127.0.0.1", int(sandbox.url.rpartition(":")[2]), timeout=10))


def reconnect(connection, account):
    sent = {"clientKey": CLIENT_ID, "clientSecret": SECRET, "locationId": account}
    connection.request("POST", "/oauth/reconnect", json.dumps(sent), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def exchange(connection, code):
    form = f"client_id={CLIENT_ID}&client_secret={SECRET.replace('+', '%2B')}&grant_type=authorization_code"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/oauth/token", f"{form}&user_type=Location&code={code}", headers)
    return connection.getresponse()


def test_requests_follow_each_other_over_one_connection_good_ones_and_bad_ones(sandbox):
    with connect(sandbox) as connection:
        statuses = [reconnect(connection, account)[0] for account in ("LocA", "not_installed", "LocB")]
        connection.request("POST", "/somewhere/else", b"what nobody reads" * 10_000)
        answer = connection.getresponse()
        statuses += [answer.status, len(answer.read()) and reconnect(connection, "LocC")[0]]
        assert (statuses, len(sandbox.connections)) == ([200, 400, 200, 404, 200], 1)


def test_a_body_in_chunks_is_read_to_its_end(sandbox):
    with connect(sandbox) as connection:
        for account in (b"LocA", b"LocB"):
            body = (b'{"clientKey": "%s", ' % CLIENT_ID.encode(), b'"locationId": "%s"}' % account)
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/oauth/reconnect", iter(body), headers, encode_chunked=True)
            assert (connection.getresponse().read()[:20], len(sandbox.connections)) == (b'{"statusCode": 401, ', 1)


def test_a_dropped_answer_closes_the_connection_without_a_byte(sandbox):
    with connect(sandbox) as connection:
        reconnect(connection, "LocA")
        with pytest.raises(http.client.RemoteDisconnected):
            reconnect(connection, "drop_before")
        assert [(seen.account_id, seen.status) for seen in sandbox.seen] == [("LocA", 200), ("drop_before", 0)]


def test_a_cut_answer_says_that_it_closes_and_does(sandbox):
    with connect(sandbox) as connection:
        answer = exchange(connection, reconnect(connection, "malformed_cut")[1]["authorizationCode"])
        assert answer.headers["Connection"] == "close"
        with pytest.raises(http.client.IncompleteRead):
            answer.read()


def test_a_connection_without_a_request_is_closed_in_time():
    with running(World({CLIENT_ID: SECRET}, keep_alive_seconds=0.05)) as sandbox, connect(sandbox) as connection:
        connection.connect()
        assert connection.sock.recv(1) == b""


def test_what_is_kept_ends_with_the_sandbox():
    with ExitStack() as stack:
        with running(World({CLIENT_ID: SECRET})) as sandbox:
            connection = stack.enter_context(connect(sandbox))
            reconnect(connection, "LocA")
        assert connection.sock.recv(1) == b""
