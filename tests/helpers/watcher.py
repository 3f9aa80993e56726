"""A watcher over runs, in the form of Healthchecks: checks that are pinged, each up, down, or started and not ended."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from jobs.sandbox.connections import serving


class Ping(NamedTuple):
    what: str
    rid: str
    body: str = ""


@dataclass
class Check:
    """One check. `answers` are given to its next pings, one each: a status, headers, and a body. `pings` are all that came.

    With `hangs`, an answer comes only when the test ends. `hear` is called with each ping.
    """

    url: str
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    hangs: bool = False
    pings: list[Ping] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    hear: object = None

    @property
    def status(self):
        """As Healthchecks counts: a failure ends any run, and a success only the one with its id."""
        status, running = "new", None
        for what, rid, _ in self.pings:
            if what == "start":
                running = rid
                continue
            status = "up" if what == "0" else "down"
            running = running if what == "0" and rid not in {running, ""} else None
        return "started" if running is not None else status

    def take(self, what, query, body):
        self.queries.append(query)
        self.pings.append(Ping(what, parse_qs(query).get("rid", [""])[0], body.decode()))
        if self.hear:
            self.hear(self.pings[-1])
        if self.hangs:
            self.over.wait()
        return self.answers.pop(0) if self.answers else (200, {}, b"OK")


class Healthchecks:
    """`check()` makes a check of its own."""

    def __init__(self, port, scheme="http"):
        self._begin = f"{scheme}://127.0.0.1:{port}"
        self.checks: dict[str, Check] = {}

    def check(self, **more):
        path = f"/ping-canary/check-{len(self.checks)}"
        made = self.checks[path] = Check(f"{self._begin}{path}", **more)
        return made


@contextmanager
def healthchecks(context=None):
    """A server of checks; with `context` over TLS."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            parts = urlsplit(self.path)
            path, _, what = parts.path.rpartition("/")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            check = watcher.checks.get(path)
            status, headers, answer = check.take(what, parts.query, body) if check else (200, {}, b"OK (not found)")
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(answer))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    server.handle_error = lambda *_: None  # A client that hangs up is not a bug.
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    watcher = Healthchecks(server.server_port, "https" if context else "http")
    with serving(server):
        yield watcher
    for check in watcher.checks.values():
        check.over.set()
