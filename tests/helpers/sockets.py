"""Servers on raw sockets."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager


@contextmanager
def accepting(serve):
    """The port of a server that plays `serve(connection)` to each connection, each in a thread of its own."""

    def contained(connection):
        with connection:
            try:
                serve(connection)
            except OSError:
                return

    def accept():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=contained, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)  # else `accept` would wait on


def free_port():
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
