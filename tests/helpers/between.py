"""What stands between the job and its PostgreSQL, and breaks connections where asked."""

from __future__ import annotations

import select
import socket
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy.engine import make_url

_SOCKET = ".s.PGSQL.5432"


class Between:
    """Passes packets on, and counts them. `url` is the way through it.

    `cut_at`: the connection is broken at these packets, counted over all of them. `lost_commits`: these COMMITs get through,
    and their answers do not. `acts`: what happens when a packet of this number comes. `drops`: from now on nothing gets through, and nobody is told.
    """

    def __init__(self, server, folder):
        self.folder = Path(folder)
        self.url = make_url(server.url).set(query={"host": str(folder)}).render_as_string(hide_password=False)
        self.packets = self.commits = self.cuts = 0
        self.cut_at = set()
        self.lost_commits = set()
        self.acts = {}
        self.drops = False
        self._server = str(server.folder / _SOCKET)

    def heal(self):
        """Break nothing more."""
        self.cut_at, self.lost_commits, self.acts, self.drops = set(), set(), {}, False

    def serve(self, ours):
        while True:
            try:
                client, _ = ours.accept()
            except OSError:
                return
            threading.Thread(target=self._passed_on, args=(client,), daemon=True).start()

    def _passed_on(self, client):
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(self._server)
            loses = False
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(1 << 16)
                    if self.drops:
                        continue
                    self.packets += 1
                    if not data:
                        return
                    self.acts.pop(self.packets, lambda: None)()
                    if self.packets in self.cut_at or (loses and ready is server):
                        self.cuts += 1
                        return
                    if ready is client and b"COMMIT" in data:
                        self.commits += 1
                        loses = self.commits in self.lost_commits
                    (server if ready is client else client).sendall(data)


@contextmanager
def between(server):
    """One for the block."""
    with tempfile.TemporaryDirectory(prefix="pg") as folder, socket.socket(socket.AF_UNIX) as ours:
        ours.bind(f"{folder}/{_SOCKET}")
        ours.listen(64)
        made = Between(server, folder)
        threading.Thread(target=made.serve, args=(ours,), daemon=True).start()
        yield made
        with suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)
