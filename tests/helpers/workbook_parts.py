"""What a workbook holds: every part of its archive as a text, and every cell of its sheets as a person sees it."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from openpyxl import load_workbook
from openpyxl.utils.escape import unescape

if TYPE_CHECKING:
    from pathlib import Path


def parts_of(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert len(names) == len(set(names))
        return {name: archive.read(name).decode() for name in names}


def sheets_of(path: Path) -> dict[str, list[list[str]]]:
    book = load_workbook(path, rich_text=False)
    return {
        sheet.title: [[unescape(cell or "") for cell in row] for row in sheet.iter_rows(values_only=True)]
        for sheet in book
    }
