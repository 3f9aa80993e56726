"""The sandbox as a command. It prints how to point the job at it, and serves until it is stopped."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

from jobs.sandbox import alone
from jobs.sandbox.receiver import Receiver, as_lines, new_secret, receiving
from jobs.sandbox.server import running
from jobs.sandbox.world import load_world

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO


def run(world_file: Path, port: int, out: TextIO, *, receiver: bool = False) -> None:
    """Serve until SIGINT or SIGTERM. With `receiver`, serve also an app's own store, which keeps pairs in memory.

    Raises ValueError with one line if the world is bad or the port is taken: what is wrong, and what to do.
    """
    world = load_world(world_file)
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        with ExitStack() as served:
            sandbox = served.enter_context(running(world, port))
            store = served.enter_context(receiving(Receiver(new_secret()))) if receiver else None
            client_id, secret = next(iter(world.clients.items()))
            out.write(
                f"# A local HighLevel that plays {world_file.name}. Stop it with Ctrl-C. In another terminal, run:\n"
            )
            out.write(f"export HIGHLEVEL_BASE_URL={sandbox.url}\n")
            out.write(f"export HIGHLEVEL_CLIENT_ID={client_id} HIGHLEVEL_CLIENT_SECRET={secret}\n")
            out.write(
                "# This keeps what your .env names out of the rehearsal: your store, database, watchers and metrics.\n"
            )
            out.write(f"{alone.as_line()}\n")
            if store is not None:
                out.write("".join(f"{line}\n" for line in as_lines(store)))
            out.flush()
            signal.sigwait(ends)
    except (OSError, SystemExit):
        raise ValueError(f"port {port} is taken: use a different --port") from None
