"""The process that forks runs of the job (see `fork_server`), and kills one at a named moment where asked.

Everything is imported once, so that dozens of runs and of real kills cost little. A moment is met in the libraries
below the job (audit events, SQLAlchemy's dialect), never in its own code.
"""

from __future__ import annotations

import atexit
import fcntl
import importlib
import io
import itertools
import json
import os
import pkgutil
import signal
import socket
import sys
import termios
import threading
import time
from collections import Counter

import coverage
from sqlalchemy import Engine, event
from sqlalchemy.engine.default import DefaultDialect

EXIT = os._exit  # Coverage puts another in its place, which saves.
# One for all runs. It has looked at every module once, and each run goes on with what it knows.
MEASURE = coverage.Coverage(config_file=f":data:{sys.argv[2]}") if len(sys.argv) > 2 else None
if MEASURE:
    MEASURE.set_option("run:patch", ["_exit"])
    MEASURE.start()

import jobs  # noqa: E402
import jobs.cli  # noqa: E402

for _room in pkgutil.walk_packages(jobs.__path__, "jobs."):
    if not _room.name.endswith("__main__"):
        importlib.import_module(_room.name)
if MEASURE:
    MEASURE.stop()
    MEASURE.save()

MOST_BYTES = 1 << 18
SENDS = {
    b"POST /oauth/reconnect": "a reconnect leaves",
    b"POST /oauth/token": "a reconnect was answered, its code leaves",
}


class Moments:
    """Counts the moments of a run by name; at the one that was asked for, or some seconds after, the process is killed."""

    def __init__(self, kill_at, kill_after):
        self.kill_at = tuple(kill_at)
        self.seconds = kill_after
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
            changes = getattr(connection, "in_transaction", True)  # Only SQLite commits after a read, too.
            if changes:
                self("a commit begins")
            commit(dialect, connection)
            if changes:
                self("a commit is done")

        DefaultDialect.do_commit = do_commit
        event.listen(Engine, "before_cursor_execute", lambda *_: self("a statement is run"))
        sys.addaudithook(self.on_audit)


def take_terminal(stream):
    """Have it as a person's process has: the keyboard sends its signals to whoever has taken it."""
    os.setsid()
    fcntl.ioctl(stream, termios.TIOCSCTTY, 0)
    os.dup2(stream, 0)
    sys.stdin = os.fdopen(0, closefd=False)


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


def run(task, out, err, answer):
    """Play one task in this (forked) process, and end it."""
    os.write(answer, f"{os.getpid()}\n".encode())
    os.dup2(out, 1)
    os.dup2(err, 2)
    if task.get("terminal"):
        take_terminal(out)
    sys.stdout, sys.stderr = fresh_stream(sys.stdout, 1), fresh_stream(sys.stderr, 2)
    os.environ.clear()
    os.environ.update(task["environment"])
    time.tzset()
    os.umask(task["umask"])
    sys.argv = [jobs.__file__.replace("__init__", "__main__"), *task["arguments"]]
    moments = Moments(**task["moments"]) if "moments" in task else None
    if moments:
        moments.set_up()
    if "bug" in task:
        plant(task["bug"])
    # Coverage holds a lock in Python code, and never lets go if a signal raises there.
    code = ended(jobs.cli.main) if task.get("interrupted") or not MEASURE else measured(jobs.cli.main)
    if moments:
        os.write(answer, json.dumps(moments.seen).encode() + b"\n")
    EXIT(code)


def measured(main):
    """The exit code of `main`."""
    MEASURE.start()
    code = ended(main)
    MEASURE.stop()
    MEASURE.save()
    return code


def ended(main):
    """The exit code of `main`, after what the interpreter does at its end: all but to free each module, which takes longer
    than most runs."""
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return code


def fresh_stream(stream, number):
    """A standard stream as the interpreter makes it at its start, over what is there now."""
    in_lines = number == 2 or os.isatty(number)
    words = {"encoding": stream.encoding, "errors": stream.errors, "line_buffering": in_lines}
    return io.TextIOWrapper(open(number, "wb", closefd=False), **words)


def keep(task, out, err, answer):
    """Fork the run, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if not child:
        run(task, out, err, answer)
    os.close(out)
    os.close(err)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(answer, f"{code}\n".encode())
    EXIT(0)


def main():
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody waits for what keeps a run.
    while True:
        text, descriptors, *_ = socket.recv_fds(control, MOST_BYTES, 3, socket.MSG_CMSG_CLOEXEC)
        if not text:
            return
        if not os.fork():
            control.close()
            keep(json.loads(text), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


if __name__ == "__main__":
    main()
