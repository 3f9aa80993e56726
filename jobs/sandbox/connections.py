"""HTTP/1.1 with kept connections. The next request uses the same connection, until it is idle or an answer ends it."""

from __future__ import annotations

import io
import socket
import threading
import time
from contextlib import contextmanager, redirect_stderr, suppress
from typing import TYPE_CHECKING, Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wrappers import Response
from werkzeug.wsgi import get_input_stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from socketserver import BaseServer

    from flask import Flask

    from jobs.sandbox.world import World

NO_ANSWER = 444  # As in nginx, this status closes the connection and sends nothing.


class _Handler(WSGIRequestHandler):
    """The requests of one connection. Werkzeug's own `run_wsgi` would close it after each answer."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.world.keep_alive_seconds)

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        # Read the whole body, even if the application does not. Otherwise its rest would become the next request.
        environ["wsgi.input"] = io.BytesIO(get_input_stream(environ).read())
        answer = Response.from_app(self.server.app, environ)
        if answer.status_code == NO_ANSWER:
            self.close_connection = True
            return
        self.send_response(answer.status_code)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.get_data())

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - as its base has it
        """Do nothing: `seen` records everything."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + self.server.world.clock_skew_seconds)


class Server(ThreadedWSGIServer):
    """Serves `app` on this machine's loopback address with a thread for each connection. `opened` collects their origins.

    Raises OSError, or SystemExit as Werkzeug does, if the port is taken.
    """

    block_on_close = False

    def __init__(self, world: World, port: int, app: Flask, opened: list[Any]) -> None:
        self.world = world
        self._opened = opened
        self._open: set[Any] = set()
        with redirect_stderr(io.StringIO()):  # Werkzeug prints a line of its own if the port is taken.
            super().__init__("127.0.0.1", port, app, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._opened.append(client_address)
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening and close the kept connections. Otherwise a server that has ended would still answer on them."""
        super().server_close()
        for connection in [*self._open]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(server: BaseServer) -> Iterator[None]:
    """Serve in a thread of its own during the block."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
