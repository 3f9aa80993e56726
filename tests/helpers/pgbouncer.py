"""A pgbouncer in transaction mode before a PostgreSQL server of the tests: each transaction may have another session."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from psycopg import OperationalError, connect
from sqlalchemy import make_url

from tests.helpers.postgres import PASSWORD
from tests.helpers.waiting import wait_until

if TYPE_CHECKING:
    from tests.helpers.postgres import Postgres

_PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
_SETTINGS = """
[databases]
* = host={server}

[pgbouncer]
unix_socket_dir = {folder}
listen_port = 6432
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 3
server_round_robin = 1
"""


@contextmanager
def pgbouncer(server: Postgres):
    """Its URL for the block; the test is skipped where Debian's package `pgbouncer` is not installed."""
    if _PROGRAM is None:
        pytest.skip("pgbouncer is not installed (Debian: apt install pgbouncer)")
    folder = Path(tempfile.mkdtemp(prefix="pgb"))
    (folder / "users").write_text(f'"app" "{PASSWORD}"\n')
    (folder / "settings").write_text(_SETTINGS.format(server=server.folder, folder=folder))
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, server.user)
    process = subprocess.Popen(
        [_PROGRAM, folder / "settings"], user=server.user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = make_url(server.url).set(query={"host": str(folder), "port": "6432"})
    address = url.render_as_string(hide_password=False)

    def answers():
        assert process.poll() is None, "it did not start"
        try:
            connect(address.replace("+psycopg", "")).close()
        except OperationalError:
            return False
        return True

    try:
        wait_until(answers)
        yield address
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)
