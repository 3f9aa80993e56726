"""A mail program, as `notify.command` starts one."""

from __future__ import annotations

import shlex
import sys

KEEP = "import pathlib, sys; pathlib.Path(sys.argv[1]).open('a').write(sys.stdin.read() + chr(12))"


class Mail:
    """A command that keeps what it is given."""

    def __init__(self, folder):
        self._file = folder / "mails with a space"
        self.command = shlex.join([sys.executable, "-c", KEEP, str(self._file)])

    @property
    def mails(self):
        return self._file.read_text().split("\f")[:-1] if self._file.exists() else []
