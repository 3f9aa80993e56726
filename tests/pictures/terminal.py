"""The pictures of the terminal in the README: a real run on a real terminal, against the sandbox.

`make pictures` takes them again. The terminal is emulated by pyte and drawn by rich: they show what was printed.
"""

from __future__ import annotations

import io
import os
import pty
import re
import shutil
import subprocess
import sys
import termios
from contextlib import contextmanager
from pathlib import Path

import pyte
from rich.console import Console
from rich.text import Text
from rich.theme import Theme

from jobs.sandbox.server import running
from jobs.sandbox.world import Place, World
from tests.helpers.in_use import why_not_here

PROJECT = Path(__file__).resolve().parent.parent.parent
PICTURES = PROJECT / ".github"
# A neutral place, since the job shows where it is.
STAGE = Path("/tmp/highlevel-recovery")
CLIENT = ("66c8a1b2c3d4e5f6a7b8c9d0-m0sandbox", "made-up-secret-of-the-sandbox")
COLUMNS, ROWS = 100, 40
INSTALLS = 240
WORLD = {
    17: Place("not_installed"),
    45: Place("location_inactive"),
    80: Place("not_installed"),
    118: Place("server_error"),
    171: Place("not_installed"),
}


@contextmanager
def staged():
    """A folder with a list of installs, and the job beside it as `make setup` puts it there."""
    STAGE.mkdir()
    try:
        (STAGE / ".venv").symlink_to(PROJECT / ".venv")
        rows = "".join(f"Loc{number:017d},Customer {number}\n" for number in range(INSTALLS))
        (STAGE / "installs.csv").write_text(f"location_id,name\n{rows}")
        yield
    finally:
        shutil.rmtree(STAGE)


def record(url):
    """The screen half-way, and at the end."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (ROWS, COLUMNS))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(STAGE),
        "TERM": "xterm-256color",
        "HIGHLEVEL_BASE_URL": url,
        "HIGHLEVEL_CLIENT_ID": CLIENT[0],
        "HIGHLEVEL_CLIENT_SECRET": CLIENT[1],
        "RECOVERY_RETRY__MAX_WAIT_SECONDS": "2",
    }
    command = [STAGE / ".venv/bin/recover", "run", "installs.csv", "--output", "data/installs", "--rate", "40"]
    process = subprocess.Popen(command, cwd=STAGE, env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    half_way = None
    while True:
        try:
            stream.feed(os.read(master, 65_536))
        except OSError:
            break
        shown = re.search(rf"(\d+)(?: of |/){INSTALLS}  ?\d+ recovered.* to go", "\n".join(screen.display))
        if half_way is None and shown and int(shown[1]) > INSTALLS * 0.6:
            half_way = lines(screen)
    if process.wait() != 1 or half_way is None:
        sys.exit("the run did not go as the pictures show it")
    return half_way, lines(screen)


def lines(screen):
    """The lines of a screen, with their styles."""
    drawn = []
    for row in range(screen.lines):
        text = Text()
        for column in range(screen.columns):
            sign = screen.buffer[row][column]
            colour = "" if sign.fg == "default" else sign.fg if sign.fg.isalpha() else f"#{sign.fg}"
            text.append(sign.data, f"{'bold ' if sign.bold else ''}{colour.replace('brown', 'yellow')}".strip())
        text.rstrip()
        drawn.append(text)
    while drawn and not drawn[-1].plain:
        drawn.pop()
    return drawn


def draw(drawn, title, file):
    """An SVG that asks for no font from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), theme=Theme(), force_terminal=True)
    for line in drawn:
        console.print(line, soft_wrap=True)
    picture = console.export_svg(title=title, unique_id="recover")
    file.write_text(re.sub(r"@font-face \{.*?\}\n?", "", picture, flags=re.DOTALL), encoding="utf-8")


def main():
    PICTURES.mkdir(exist_ok=True)
    world = World(
        dict([CLIENT]), {f"Loc{n:017d}": place for n, place in WORLD.items()}, "recovered", latency_seconds=0.1
    )
    with staged(), running(world) as sandbox:
        half_way, end = record(sandbox.url)
    draw(half_way, "half-way", PICTURES / "terminal-running.svg")
    draw(end, "at the end", PICTURES / "terminal-end.svg")


if __name__ == "__main__":
    sys.exit(why_not_here(PROJECT) or main())
