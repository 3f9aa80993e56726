"""The job in a process of its own that dies at a named moment: `python -m tests.helpers.stage`, one JSON line a run on stdin.

Everything is imported once, then each run is a fork, so that dozens of real kills cost little. A moment is met in
the libraries below the job (audit events, SQLAlchemy's dialect), never in its own code.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import pkgutil
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from sqlalchemy import Engine, event
from sqlalchemy.engine.default import DefaultDialect

import jobs
import jobs.cli

for _room in pkgutil.walk_packages(jobs.__path__, "jobs."):
    if not _room.name.endswith("__main__"):
        importlib.import_module(_room.name)

SENDS = {
    b"POST /oauth/reconnect": "a reconnect leaves",
    b"POST /oauth/token": "a reconnect was answered, its code leaves",
}


class Moments:
    """Counts the moments of a run by name; at the one that was asked for, or some seconds after, the process is killed."""

    def __init__(self, name, number, seconds):
        self.kill_at = (name, number)
        self.seconds = seconds
        self.seen = Counter()

    def __call__(self, name):
        self.seen[name] += 1
        if (name, self.seen[name]) == self.kill_at and self.seconds:
            threading.Timer(self.seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        elif (name, self.seen[name]) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # It takes effect before this returns.

    def on_audit(self, what, values):
        if what == "http.client.send" and isinstance(values[1], bytes):
            for begin, name in SENDS.items():
                if values[1].startswith(begin):
                    self(name)
        elif what == "open" and isinstance(values[0], str) and ".new-" in values[0]:
            self("a report is begun")
        elif what == "os.rename":
            self("a report is moved into place")
        elif what == "os.remove" and str(values[0]).endswith(".reserve"):
            self("the reserve is given back")
        elif what == "os.mkdir":
            self("a folder is made")

    def set_up(self):
        commit = DefaultDialect.do_commit

        def do_commit(dialect, connection):
            changes = connection.in_transaction
            if changes:
                self("a commit begins")
            commit(dialect, connection)
            if changes:
                self("a commit is done")

        DefaultDialect.do_commit = do_commit
        event.listen(Engine, "before_cursor_execute", lambda *_: self("a statement is run"))
        sys.addaudithook(self.on_audit)


def plant(bug):
    """Make a function of the job raise at its n-th call: a bug on purpose, or what the system refuses (`errno`)."""
    place, _, name = bug["where"].rpartition(".")
    holder = pkgutil.resolve_name(place)
    real, calls = getattr(holder, name), itertools.count(1)

    def broken(*arguments, **more):
        if next(calls) == bug["at"]:
            raise OSError(bug["errno"], bug["said"]) if "errno" in bug else RuntimeError(bug["said"])
        return real(*arguments, **more)

    setattr(holder, name, broken)


def run(task):
    """Play one task in this (forked) process; returns the exit code and the moments that were met."""
    os.environ.clear()
    os.environ.update(task["environment"])
    with Path(task["out"]).open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    moments = Moments(*task["kill_at"], task["kill_after"])
    moments.set_up()
    os.umask(task.get("umask", 0o022))
    if "bug" in task:
        plant(task["bug"])
    try:
        jobs.cli.main(task["arguments"])
    except SystemExit as end:
        return end.code, moments.seen
    return 0, moments.seen


def main():
    for line in sys.stdin:
        task = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            code, seen = run(task)
            os.write(writer, json.dumps(seen).encode())
            os._exit(code)
        os.close(writer)
        with os.fdopen(reader) as answer:
            seen = answer.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(json.dumps({"code": code, "moments": json.loads(seen or "{}")}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
