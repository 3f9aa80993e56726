"""A workbook's own look at itself, before and beside its reader: what kind it is, how large, and what the reader hides.

The reader shows an error such as #N/A, and a formula without a value, as empty cells. An empty location id would make an
agency of a sub-account, so those cells are looked up here.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from jobs.core.errors import refuse
from jobs.manifest import raw_ods, raw_xls, raw_xlsx
from jobs.manifest.raw_cells import HiddenCell
from jobs.manifest.raw_parts import MOST_PACKED, check_parts, opened, part, plain, too_large

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["HiddenCell", "Kind", "check_size", "hidden_cells", "kind_of"]

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ODS = b"application/vnd.oasis.opendocument.spreadsheet"
_TO_DO = "save it as xlsx or CSV UTF-8"
# What a zip is that has such a part, and what to do.
_OTHER_ZIPS = {
    "xl/workbook.bin": ("is an Excel binary workbook (xlsb)", _TO_DO),
    "word/document.xml": ("is a Word document", "use a workbook or a CSV"),
    "ppt/presentation.xml": ("is a presentation", "use a workbook or a CSV"),
    "index/document.iwa": ("is a document of Numbers or Pages", "export it as xlsx or CSV UTF-8"),
}
# The same by a stream of an OLE file.
_OTHER_OLE = {
    "EncryptedPackage": ("has a password", "save it without one"),
    "WordDocument": ("is a Word document", "use a workbook or a CSV"),
    "PowerPoint Document": ("is a presentation", "use a workbook or a CSV"),
}


class Kind(Enum):
    """The kinds of workbooks, by their bytes. A workbook with macros is an xlsx too."""

    XLSX = "xlsx"
    ODS = "ods"
    XLS = "xls"


def kind_of(file: BinaryIO, where: str) -> Kind | None:
    """The kind of a workbook, or None if the file is not a workbook. Raises UserError if it is one that cannot be read."""
    file.seek(0)
    begins = file.read(len(_OLE))
    if begins.startswith(_ZIP):
        return _kind_of_zip(file, where)
    if begins == _OLE:
        return _kind_of_ole(file, where)
    return None


def _kind_of_zip(file: BinaryIO, where: str) -> Kind:
    _check_packed(file, where)
    with opened(file, where) as archive:
        names = {plain(info.filename) for info in archive.infolist()}
        for name, (what, todo) in _OTHER_ZIPS.items():
            if name in names:
                raise refuse(what, where, todo)
        said = part(archive, "mimetype")
        mimetype = b"" if said is None or said.file_size > len(_ODS) + 1 else archive.read(said).strip()
    if "[content_types].xml" in names and said is None and any(name.endswith("workbook.xml") for name in names):
        return Kind.XLSX
    if "[content_types].xml" not in names and mimetype == _ODS and "content.xml" in names:
        return Kind.ODS
    raise refuse("is a zip file without a workbook", where, "use a workbook or a CSV")


def _kind_of_ole(file: BinaryIO, where: str) -> Kind:
    _check_packed(file, where)
    streams = raw_xls.streams(file, where)
    for name, (what, todo) in _OTHER_OLE.items():
        if name in streams:
            raise refuse(what, where, todo)
    if {"workbook", "book"}.isdisjoint(map(str.lower, streams)):
        raise refuse("is an Office file without a workbook", where, "use a workbook or a CSV")
    return Kind.XLS


def _check_packed(file: BinaryIO, where: str) -> int:
    """The size of the file. Raises UserError if it is too large to be looked at."""
    size = file.seek(0, 2)
    file.seek(0)
    if size > MOST_PACKED:
        raise too_large(where, f"the file has more than {MOST_PACKED:,} bytes")
    return size


def check_size(file: BinaryIO, kind: Kind, where: str) -> None:
    """Raise UserError if the reader would need too much memory to open it. Call this before it is opened."""
    size = _check_packed(file, where)
    if kind is Kind.XLS:
        raw_xls.check(file, where)
        return
    with opened(file, where) as archive:
        check_parts(archive, size, where)
        (raw_xlsx if kind is Kind.XLSX else raw_ods).check(archive, where)


def hidden_cells(file: BinaryIO, kind: Kind, sheet: int, where: str) -> Iterator[HiddenCell]:
    """The cells of a sheet that the reader hides, in order. `sheet` is its place among all sheets of the workbook, from 0.

    Raises UserError, at the latest at its end, if the reader would need too much memory for this sheet.
    """
    if kind is Kind.XLS:
        yield from raw_xls.hidden(file, sheet, where)
        return
    with opened(file, where) as archive:
        yield from (raw_xlsx if kind is Kind.XLSX else raw_ods).hidden(archive, sheet, where)
