"""A stand-in for HighLevel's two calls, cheap enough not to be what is measured: `python -m tests.bench.stand_in JSON`.

It answers after a latency, plays faults from a seed, and remembers every request and every pair: `GET /seen` tells.
The sandbox is the thorough one; this one only has to be fast, and to stand in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import deque
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import parse_qs

ACCESS_CHARACTERS, REFRESH_CHARACTERS = 1_400, 700
_REASONS = {200: "OK", 400: "Bad Request", 429: "Too Many Requests", 500: "Internal Server Error"}


@dataclass(frozen=True)
class Play:
    """What it plays: seconds of latency; shares of 500, of answers dropped once the code is spent, of 429; a limit."""

    latency: float = 0.02
    errors: float = 0.0
    drops: float = 0.0
    refusals: float = 0.0
    limit: int = 0
    window: float = 1.0
    seed: int = 1


@dataclass
class Memory:
    """What it was asked: when each request came (seconds of one clock), how many it refused, the pairs of each account."""

    at: list[float] = field(default_factory=list)
    refused: int = 0
    pairs: dict[str, list[str]] = field(default_factory=dict)


class Api:
    """The two calls, on one thread."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.memory = Memory()
        self._chance = random.Random(play.seed)
        self._codes: dict[str, str] = {}
        self._recent: deque[float] = deque()

    def answer(self, path: str, body: bytes, now: float) -> tuple[int, object] | None:
        """Status and body for a request, or None to drop the connection."""
        if path == "/seen":
            return 200, vars(self.memory)
        self.memory.at.append(now)
        play, dice = self.play, self._chance.random()
        if self._over_limit(now) or dice < play.refusals:
            self.memory.refused += 1
            return 429, {"statusCode": 429, "message": "Too many requests"}
        if dice < play.refusals + play.errors:
            return 500, {"statusCode": 500, "message": "Internal server error"}
        if path == "/oauth/reconnect":
            return 200, self._reconnect(json.loads(body))
        return self._token({name: values[0] for name, values in parse_qs(body.decode()).items()})

    def _over_limit(self, now: float) -> bool:
        if not self.play.limit:
            return False
        while self._recent and self._recent[0] <= now - self.play.window:
            self._recent.popleft()
        if len(self._recent) >= self.play.limit:
            return True
        self._recent.append(now)
        return False

    def _reconnect(self, sent: dict[str, str]) -> dict[str, str]:
        code = f"{self._chance.getrandbits(160):040x}"
        self._codes[code] = sent["locationId"]
        return {"authorizationCode": code, "expiresAt": "2099-01-01T00:00:00.000Z", "traceId": f"trace-{code[:8]}"}

    def _token(self, sent: dict[str, str]) -> tuple[int, object] | None:
        account = self._codes.pop(sent["code"], None)
        if account is None:
            return 400, {"error": "invalid_grant", "error_description": "Invalid grant: authorization code is invalid"}
        if self._chance.random() < self.play.drops:
            return None
        mark = f"{self._chance.getrandbits(64):016x}"
        self.memory.pairs.setdefault(account, []).append(mark)
        pair = {
            "access_token": mark + "a" * (ACCESS_CHARACTERS - len(mark)),
            "refresh_token": mark + "r" * (REFRESH_CHARACTERS - len(mark)),
            "token_type": "Bearer",
            "expires_in": 86_399,
            "scope": "contacts.readonly locations.readonly",
            "userType": "Location",
            "companyId": "BenchCompany00000001",
            "locationId": account,
            "userId": "BenchUser00000000001",
            "traceId": f"trace-{mark[:8]}",
        }
        return 200, pair


class Connection(asyncio.Protocol):
    """One connection: whole requests in, whole answers out, after the latency."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._in = b""

    def connection_made(self, transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._in += data
        head, there, rest = self._in.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
        if not there or len(rest) < length:
            return
        self._in = b""
        loop = asyncio.get_running_loop()
        answer = self._api.answer(head.split(b" ", 2)[1].decode(), rest, loop.time())
        loop.call_later(self._api.play.latency, self._send, answer)

    def _send(self, answer: tuple[int, object] | None) -> None:
        if answer is None:
            self._transport.abort()
            return
        status, told = answer
        body = json.dumps(told).encode()
        more = "Retry-After: 1\r\n" if status == 429 else ""
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nDate: {formatdate(usegmt=True)}\r\n{more}"
            f"Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + body)


async def serve(play: Play) -> None:
    """Serve until killed; the port is the one line of standard output."""
    api = Api(play)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(api), "127.0.0.1", 0, backlog=512)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Play(**json.loads(sys.argv[1]))))
