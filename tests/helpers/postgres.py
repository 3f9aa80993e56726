"""A PostgreSQL server of the tests' own, in a folder that goes away, run by an ordinary user."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from psycopg import OperationalError, connect
from sqlalchemy.engine import URL

from tests.helpers.waiting import wait_until

# Where Debian's package lays them; none is on the path.
INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
PASSWORD = "pass-word/with+signs"


@dataclass
class Postgres:
    """A server that can be stopped and started again; `url` is that of its one database."""

    bin: Path
    folder: Path
    user: str
    settings: tuple[str, ...] = ()
    url: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self):
        command = [self.bin / "postgres", "-D", self.folder / "data", "-k", self.folder, "-c", "listen_addresses="]
        self.process = subprocess.Popen(
            [*command, *(word for one in self.settings for word in ("-c", one))],
            user=self.user,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers)

    def stop(self):
        """End it at once, as a failover does: every connection is lost."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()

    def copy(self):
        """Keep what it holds now, as a copy elsewhere would. It is restarted for that."""
        self.execute("checkpoint")
        self.stop()
        self._copied(self.folder / "data", self.folder / "copy")
        self.start()

    def fail_over(self):
        """The copy serves from now on. Nothing that was written since is there."""
        self.stop()
        shutil.rmtree(self.folder / "data")
        self._copied(self.folder / "copy", self.folder / "data")
        self.start()

    def _copied(self, source, target):
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "-a", source, target], check=True)

    def execute(self, *statements):
        """Run statements, each in a transaction of its own; gives the rows of the last."""
        with connect(self.url.replace("+psycopg", ""), autocommit=True) as connection:
            cursors = [connection.execute(statement) for statement in statements]
            return cursors[-1].fetchall() if cursors[-1].description else []

    def session(self):
        """A connection of somebody else, in a transaction from its first statement on."""
        return connect(self.url.replace("+psycopg", ""))

    def freeze(self, pid):
        """Stop one of its processes."""
        os.kill(pid, signal.SIGSTOP)

    @contextmanager
    def frozen(self):
        """During the block it keeps all connections open and says nothing."""
        pids = [
            row[0] for row in self.execute("select pid from pg_stat_activity where backend_type = 'client backend'")
        ]
        # A stopped parent starts no process for a new connection either, though the system accepts it.
        stopped = [self.process.pid, *pids]
        try:
            self._send(signal.SIGSTOP, stopped)
            yield
        finally:
            self._send(signal.SIGCONT, stopped[::-1])

    def _send(self, number, pids):
        """Send a signal to those that are still there: who asked for the processes had one too."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _answers(self):
        assert self.process.poll() is None, "it did not start"
        try:
            self.execute("select 1")
        except OperationalError:
            return False
        return True


@contextmanager
def postgres_server(*settings):
    """A server for the block. It does not sync, and nothing comes by itself, unless it gets other `settings`; the test is skipped where Debian's package `postgresql` is not installed."""
    if not INSTALLED:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    # Its own path: a socket's may have 107 characters. PostgreSQL refuses to be run by root.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    server = Postgres(INSTALLED[-1], folder, user, settings or ("fsync=off", "autovacuum=off"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, user)
        (folder / "password").write_text(PASSWORD)
        initdb = [server.bin / "initdb", "-D", folder / "data", "-U", "app", "-A", "scram-sha-256", "-N"]
        subprocess.run(
            [*initdb, "--pwfile", folder / "password", "--locale", "C.UTF-8", "--locale-provider", "icu", "--icu-locale", "en-US", "-E", "UTF8"],
            user=user, cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
        address = URL.create("postgresql+psycopg", "app", PASSWORD, database="postgres", query={"host": str(folder)})
        server.url = address.render_as_string(hide_password=False)
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
