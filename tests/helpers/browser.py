"""Debian's Chromium, driven by Playwright. If it is missing, tests that need it are skipped by name. In CI they fail."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

_ARGUMENTS = (
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """The path of the browser; '' if it is not installed."""
    return shutil.which("chromium") or ""


@contextmanager
def running() -> Iterator[Browser]:
    """A headless Chromium for the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def need_chromium() -> None:
    """Skip, saying why, if there is no Chromium. In CI that is a failure."""
    if not chromium():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs Chromium (Debian: apt install chromium)")
