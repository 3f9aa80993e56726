"""A terminal of its own for a process of the job, as a person has it."""

from __future__ import annotations

import os
import pty
import re
import termios
from contextlib import contextmanager

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """A process on a terminal of its own, as a person has it."""

    def __init__(self, job, arguments, columns, environment):
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (30, columns))
        environment = job.environment | {"TERM": "xterm-256color"} | environment
        self.process = job.forks.start(arguments, environment, slave, slave, terminal=True)
        os.close(slave)
        self.raw = ""

    def read(self, until=lambda text: False):
        """What is on it, up to the end of the process or until `until` holds."""
        while not until(self.text):
            try:
                more = os.read(self._master, 65_536)
            except OSError:  # The process has ended, and nothing is left to read.
                break
            self.raw += more.decode()
        return self.text

    @property
    def text(self):
        return ANSI.sub("", self.raw.replace("\r\n", "\n"))

    def type(self, keys):
        os.write(self._master, keys)

    def end(self):
        text = self.read()
        return self.process.wait(timeout=30), text

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextmanager
def terminal(job, *arguments, columns=80, **environment):
    screen = Screen(job, arguments, columns, environment)
    try:
        yield screen
    finally:
        screen.close()
