"""Workbooks as programs write them."""

from __future__ import annotations

import io
from dataclasses import dataclass

import xlsxwriter


def workbook(sheets, hidden=()):
    """The bytes of an xlsx with these sheets: rows of values by name. A text is a text, whatever it looks like."""
    file = io.BytesIO()
    options = {
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "remove_timezone": True,
        "default_date_format": "yyyy-mm-dd hh:mm",
    }
    with xlsxwriter.Workbook(file, options) as book:
        for name, rows in sheets.items():
            sheet = book.add_worksheet(name)
            for number, row in enumerate(rows):
                for place, value in enumerate(row):
                    write(sheet, number, place, value)
            if name in hidden:
                sheet.hide()
    return file.getvalue()


@dataclass(frozen=True)
class Formula:
    """A formula, and what a program has calculated."""

    text: str
    shown: object


def write(sheet, number, place, value):
    if isinstance(value, Formula):
        sheet.write_formula(number, place, value.text, None, value.shown)
    elif isinstance(value, str):
        sheet.write_string(number, place, value)
    elif value is not None:
        sheet.write(number, place, value)
