"""Make .github/page.png, the README's picture of failures.html: `.venv/bin/python -m tests.pictures.page`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from jobs.core.model import Cause
from jobs.start import PROJECT
from tests.helpers.browser import chromium, running
from tests.helpers.made import COLUMNS, all_causes, make_run, person, place

PICTURE = PROJECT / ".github" / "page.png"


def main() -> int:
    """Draw the page of a second run, after which 31 installs of 5,000 still need attention."""
    if not chromium():
        sys.stderr.write("error: chromium is not there: install it (Debian: apt install chromium)\n")
        return 2
    failed = all_causes()
    back = [place(1000 + number, "", *person(number)) for number in range(5000 - len(failed))]
    first = [*failed[:20], *((row, Cause.SERVER_ERROR) for row in back[:40])]
    with tempfile.TemporaryDirectory() as folder, running() as browser:
        make_run(Path(folder), COLUMNS, first, at="2026-11-24T02:31:00.000Z")
        make_run(Path(folder), COLUMNS, [*failed, *((row, None) for row in back)], at="2026-11-25T02:31:00.000Z")
        page = browser.new_page(viewport={"width": 1200, "height": 1100})
        page.goto((Path(folder) / "failures.html").as_uri())
        PICTURE.parent.mkdir(exist_ok=True)
        page.screenshot(path=PICTURE)
    sys.stdout.write(f"{PICTURE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
