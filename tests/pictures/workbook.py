"""Make .github/failures-workbook.png, the README's picture of failures.xlsx: `.venv/bin/python -m tests.pictures.workbook`.

It is a picture of LibreOffice's own window, on a screen that nobody sees. Without the font Carlito (Debian:
fonts-crosextra-carlito), which is as wide as Excel's, the columns look too narrow.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from jobs.reports.files import WORKBOOK
from jobs.start import PROJECT
from tests.helpers.made import COLUMNS, all_causes, make_run

PICTURE = PROJECT / ".github" / "failures-workbook.png"
NEEDS = {"soffice": "libreoffice-calc", "Xvfb": "xvfb", "import": "imagemagick"}
SIZE, SHOWN = "1500x600", "1438x468+0+108"  # Without the program's menus.
LEAST_BYTES = 30_000  # An empty screen is smaller.


def main() -> int:
    """Open the workbook of a run after which 31 installs still need attention, and take its picture."""
    missing = [package for program, package in NEEDS.items() if not shutil.which(program)]
    if missing:
        sys.stderr.write(f"error: a program is missing: install it (Debian: apt install {' '.join(missing)})\n")
        return 2
    with tempfile.TemporaryDirectory() as folder, screen() as display:
        home = Path(folder)
        make_run(home / "out", COLUMNS, all_causes(), workbook=True)
        with office(home / "out" / WORKBOOK, home / "profile", display):
            picture_of(display, home / "picture.png")
        PICTURE.write_bytes((home / "picture.png").read_bytes())
    sys.stdout.write(f"{PICTURE}\n")
    return 0


@contextmanager
def screen():
    """A screen in memory. Gives its name."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", f"{SIZE}x24"]
    with subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL) as server, os.fdopen(read) as number:
        os.close(write)
        try:
            yield f":{number.readline().strip()}"
        finally:
            server.terminate()


@contextmanager
def office(file, profile, display):
    """LibreOffice with this file, as it comes."""
    command = ["soffice", f"-env:UserInstallation={profile.as_uri()}", "--norestore", "--nologo", "--calc", str(file)]
    quiet = subprocess.DEVNULL
    environment = {**os.environ, "DISPLAY": display, "LANG": "C.UTF-8"}
    with subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True) as program:
        try:
            yield
        finally:
            os.killpg(program.pid, 15)


def picture_of(display, file):
    """Wait until the window is drawn whole: it is not empty, and does not change any more."""
    before = b""
    for _ in range(120):
        time.sleep(1)
        words = [
            "import",
            "-display",
            display,
            "-window",
            "root",
            "-crop",
            SHOWN,
            "+repage",
            "+dither",
            "-colors",
            "48",
            "-strip",
        ]
        subprocess.run([*words, file], check=True)
        now = file.read_bytes()
        if now == before and len(now) > LEAST_BYTES:
            return
        before = now
    raise TimeoutError("LibreOffice did not show the workbook")


if __name__ == "__main__":
    sys.exit(main())
