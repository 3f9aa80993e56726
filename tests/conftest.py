"""A job in a folder of its own, run as a user runs it, against a sandbox over real sockets."""

from __future__ import annotations

import signal
from contextlib import ExitStack

import pytest
import trustme

from jobs.sandbox.server import running
from jobs.sandbox.world import World
from tests.helpers.between import between
from tests.helpers.fork_server import fork_server
from tests.helpers.homes import home_in_database, home_in_folder
from tests.helpers.in_use import why_not_here
from tests.helpers.job import CLIENT_ID, FAST, KEPT, PROJECT, SECRET, Job, Stage
from tests.helpers.postgres import postgres_server
from tests.helpers.transport import FakeTransport

# The tests may run under nohup or in a shell's background. What they start must not ignore these signals for that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure():
    if wrong := why_not_here(PROJECT):
        raise pytest.UsageError(wrong)


@pytest.fixture(scope="session")
def forks():
    with fork_server() as server:
        yield server


@pytest.fixture
def play(tmp_path, forks):
    """`play(installs={...}, **world)` gives a job against a sandbox that plays this world."""
    with ExitStack() as stack:

        def start(installs=None, default="recovered", clients=None, **more) -> Job:
            sandbox = stack.enter_context(
                running(World(clients or {CLIENT_ID: SECRET}, installs or {}, default, **more))
            )
            environment = {
                "HIGHLEVEL_BASE_URL": sandbox.url,
                "HIGHLEVEL_CLIENT_ID": CLIENT_ID,
                "HIGHLEVEL_CLIENT_SECRET": SECRET,
                "XDG_STATE_HOME": str(tmp_path / "state"),
            }
            return Job(tmp_path, sandbox, forks, KEPT | FAST | environment)

        yield start


@pytest.fixture
def behaviours():
    return {}


@pytest.fixture
def stage(play, behaviours):
    made = Stage(play(behaviours))
    yield made
    while made.owed:
        made.end()


@pytest.fixture
def net():
    """What HighLevel answers a client that no network is needed for."""
    return FakeTransport()


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """Issues certificates; `file` is its own, to be trusted."""
    made = trustme.CA()
    made.file = str(tmp_path_factory.mktemp("authority") / "authority.pem")
    made.cert_pem.write_to_path(made.file)
    return made


@pytest.fixture(scope="session")
def postgres():
    """A server that no test stops."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def own_postgres():
    """A server of the module's own, which its tests may stop."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def way(own_postgres):
    """A proxy on the way to that server."""
    with between(own_postgres) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request, tmp_path):
    """The place of a new ledger, in each engine."""
    if request.param == "sqlite":
        return home_in_folder(tmp_path)
    return home_in_database(request.getfixturevalue("postgres"), tmp_path)
