"""A workbook's own look at itself, before and beside its reader: what kind it is, how large, and what the reader hides.

The reader shows an error such as #N/A, and a formula without a value, as empty cells. An empty location id would make an
agency of a sub-account, so those cells are looked up here.
"""

from __future__ import annotations

from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING

from jobs.core.errors import refuse
from jobs.manifest import raw_ods, raw_xls, raw_xlsx
from jobs.manifest.raw_cells import HiddenCell
from jobs.manifest.raw_parts import MOST_PACKED, check_parts, normal_name, part, pieces, too_large, zip_in

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import BinaryIO

__all__ = ["HiddenCell", "Kind", "kind_of", "measured"]

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ODS = b"application/vnd.oasis.opendocument.spreadsheet"
_OTHER_FILE = "use a workbook or a CSV"
_SAVE = "save it as xlsx or CSV UTF-8"
# What a zip is that has such a part, and what to do.
_OTHER_ZIPS = {
    "xl/workbook.bin": ("is an Excel binary workbook (xlsb)", _SAVE),
    "word/document.xml": ("is a Word document", _OTHER_FILE),
    "ppt/presentation.xml": ("is a presentation", _OTHER_FILE),
    "index/document.iwa": ("is a document of Numbers or Pages", "export it as xlsx or CSV UTF-8"),
}
# The same by a stream of an OLE file.
_OTHER_OLE = {
    "EncryptedPackage": ("has a password", "save it without one"),
    "WordDocument": ("is a Word document", _OTHER_FILE),
    "PowerPoint Document": ("is a presentation", _OTHER_FILE),
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
    with zip_in(file, where) as archive:
        names = {normal_name(info.filename) for info in archive.infolist()}
        for name, (what, todo) in _OTHER_ZIPS.items():
            if name in names:
                raise refuse(what, where, todo)
        said = part(archive, "mimetype")
        mimetype = b"" if said is None or said.file_size > len(_ODS) + 1 else b"".join(pieces(archive, said, where))
    if "[content_types].xml" in names and said is None and any(name.endswith("workbook.xml") for name in names):
        return Kind.XLSX
    if "[content_types].xml" not in names and mimetype.strip() == _ODS and "content.xml" in names:
        return Kind.ODS
    raise refuse("is a zip file without a workbook", where, _OTHER_FILE)


def _kind_of_ole(file: BinaryIO, where: str) -> Kind:
    _check_packed(file, where)
    streams = raw_xls.streams(file, where)
    for name, (what, todo) in _OTHER_OLE.items():
        if name in streams:
            raise refuse(what, where, todo)
    if {"workbook", "book"}.isdisjoint(map(str.lower, streams)):
        raise refuse("is an Office file without a workbook", where, _OTHER_FILE)
    return Kind.XLS


def _check_packed(file: BinaryIO, where: str) -> int:
    """The size of the file. Raises UserError if it is too large to be looked at."""
    size = file.seek(0, 2)
    file.seek(0)
    if size > MOST_PACKED:
        raise too_large(where, f"the file has more than {MOST_PACKED:,} bytes")
    return size


@contextmanager
def measured(file: BinaryIO, kind: Kind, where: str) -> Iterator[Callable[[Collection[int]], Iterator[HiddenCell]]]:
    """What looks up the cells that the reader hides in some sheets, in order. Sheets are counted from 0, among all.

    Raises UserError if the reader would need too much memory to open the workbook. The lookup raises it, at the latest at its
    end, if the reader would need too much for one of its sheets.
    """
    size = _check_packed(file, where)
    if kind is Kind.XLS:
        yield raw_xls.measured(file, where)
        return
    with zip_in(file, where) as archive:
        check_parts(archive, size, where)
        yield (raw_xlsx if kind is Kind.XLSX else raw_ods).measured(archive, where)
