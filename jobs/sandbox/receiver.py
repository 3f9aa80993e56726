"""An app's own store over real HTTP, to rehearse delivery with: it checks signatures, and keeps the newest pair of each install.

It can be told to refuse some installs, to answer like a store that is down, and to be slow.
"""

from __future__ import annotations

import base64
import secrets
import sqlite3
import threading
import time
from collections import deque
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from standardwebhooks import Webhook, WebhookVerificationError

from jobs.sandbox.connections import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TABLE = """
CREATE TABLE IF NOT EXISTS connections (
    resource_id TEXT PRIMARY KEY, access_token TEXT, refresh_token TEXT, expires_at TEXT, recovered_at TEXT
)"""
# An older pair that comes late changes nothing.
_NEWEST_WINS = """
INSERT INTO connections VALUES (:resource_id, :access_token, :refresh_token, :expires_at, :recovered_at)
ON CONFLICT (resource_id) DO UPDATE SET access_token = excluded.access_token, refresh_token = excluded.refresh_token,
expires_at = excluded.expires_at, recovered_at = excluded.recovered_at WHERE excluded.recovered_at > connections.recovered_at"""


Answer = int | tuple[int, dict[str, str]]


@dataclass
class Receiver:
    """How the store behaves, and what it has seen. `answers` are given to the next requests, one each, before any other.

    An answer is a status, or a status with headers. `seen` holds what came: the message's id, its type, the install.
    """

    secret: str
    url: str = ""
    refuses: frozenset[str] = frozenset()
    seconds: float = 0.0
    answers: deque[Answer] = field(default_factory=deque)
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    database: sqlite3.Connection | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def stored(self) -> dict[str, str]:
        """The access token of each install that is stored."""
        assert self.database is not None
        with self.lock:
            return dict(self.database.execute("SELECT resource_id, access_token FROM connections"))

    def take(self, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
        """The answer to a message. A good one is stored."""
        try:
            message = Webhook(self.secret).verify(body, headers)
        except WebhookVerificationError:
            return 401, {}
        data: dict[str, Any] = message["data"]
        assert self.database is not None
        with self.lock:
            self.seen.append((headers["webhook-id"], message["type"], data["resource_id"]))
            if self.answers:
                answer = self.answers.popleft()
                return answer if isinstance(answer, tuple) else (answer, {})
            if data["resource_id"] in self.refuses:
                return 422, {}
            if message["type"] == "connection.recovered":
                with self.database:
                    self.database.execute(_NEWEST_WINS, data)
        time.sleep(self.seconds)
        return 204, {}


def new_secret() -> str:
    """A secret to sign with, in the form of the Standard Webhooks scheme."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"


@contextmanager
def receiving(receiver: Receiver, store: Path | str = ":memory:", port: int = 0) -> Iterator[Receiver]:
    """Serve on this machine only, at `receiver.url`, until the block ends. The pairs go into the SQLite file `store`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Otherwise a body would wait until its head is acknowledged.
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers = receiver.take(body, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            for name, value in ({"Content-Length": "0"} | headers).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the name of the base class
            """The receiver says nothing of single requests."""

    receiver.database = sqlite3.connect(store, check_same_thread=False)
    receiver.database.execute(_TABLE)
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/connections"
    with closing(receiver.database), serving(server):
        yield receiver


def as_lines(receiver: Receiver) -> list[str]:
    """The two variables that point the job at it."""
    return [f"export RECOVERY_DELIVER__URL={receiver.url}", f"export RECOVERY_DELIVER__SECRET={receiver.secret}"]
