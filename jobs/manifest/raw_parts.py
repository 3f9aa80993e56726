"""The parts of a zipped workbook, xlsx or ods, read within limits.

A zip says how large its parts are, and may lie. So each part is unpacked once, a piece at a time, before anything else
reads it.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING
from xml.parsers import expat
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile
from zlib import error as InflateError  # noqa: N812 - its own name says nothing

from jobs.core.errors import refuse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO
    from zipfile import ZipInfo

    from jobs.core.errors import UserError

SAVE_AGAIN = "open it, save it as xlsx or CSV UTF-8, and use that"
# A million rows of ten ids take 0.8 GiB of XML in an xlsx, and 1.3 GiB in an ods. It is read as a stream.
MOST_UNPACKED = 2**31
MOST_PACKED = 2**29
# A workbook has a part for each sheet, drawing, picture and comment.
MOST_PARTS = 10_000
# The XML of a million equal rows shrinks to a 40th. A bomb of deflate shrinks to a 1,032nd.
MOST_RATIO = 200
_SMALL = 2**24
# One tag of a sheet is a few hundred bytes long.
_LONGEST_TAG = 2**20
_PIECE = 2**18
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)


@contextmanager
def _unzipping(where: str) -> Iterator[None]:
    """Turn what the zip library raises for a damaged zip into a UserError."""
    try:
        yield
    except (BadZipFile, InflateError, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise damaged(where) from error


def zip_in(file: BinaryIO, where: str) -> ZipFile:
    """The zip in `file`. Raises UserError if it cannot be read."""
    with _unzipping(where):
        return ZipFile(file)


def damaged(where: str) -> UserError:
    """The error for a workbook that cannot be read."""
    return refuse("is a damaged workbook", where, SAVE_AGAIN)


def too_large(where: str, why: str) -> UserError:
    """The error for a workbook that would take too much memory."""
    return refuse(f"is too large for a workbook: {why}", where, "save it as CSV UTF-8, and use that")


def has_password(where: str) -> UserError:
    """The error for a file with a password."""
    return refuse("has a password", where, "save it without one")


def number(text: str, where: str) -> int:
    """The number in an attribute. Raises UserError if it is not one."""
    if not _DIGITS.fullmatch(text):
        raise damaged(where)
    return int(text)


def normal_name(name: str) -> str:
    """The name of a part as readers compare it."""
    return name.replace("\\", "/").removeprefix("/").lower()


def part(archive: ZipFile, name: str) -> ZipInfo | None:
    """The part with this name, or None if there is none."""
    return next((info for info in archive.infolist() if normal_name(info.filename) == normal_name(name)), None)


def check_parts(archive: ZipFile, packed: int, where: str) -> None:
    """Raise UserError if the parts are too many or too large, or are not what the zip says. `packed` is its size."""
    parts = archive.infolist()
    if len(parts) > MOST_PARTS:
        raise too_large(where, f"it has more than {MOST_PARTS:,} parts")
    if len({normal_name(info.filename) for info in parts}) < len(parts) or sum(i.compress_size for i in parts) > packed:
        raise damaged(where)
    if sum(info.file_size for info in parts) > MOST_UNPACKED:
        raise too_large(where, f"it unpacks to more than {MOST_UNPACKED:,} bytes")
    for info in parts:
        if info.flag_bits & 1:
            raise has_password(where)
        if info.compress_type not in {ZIP_STORED, ZIP_DEFLATED}:
            raise damaged(where)
        if info.file_size > max(_SMALL, MOST_RATIO * info.compress_size):
            raise too_large(where, f"a part of it unpacks to more than {MOST_RATIO} times its size")
        if _unpacked(archive, info, where) != info.file_size:
            raise damaged(where)


def _unpacked(archive: ZipFile, info: ZipInfo, where: str) -> int:
    """How large a part is unpacked. If it is larger than the zip says, any number above that."""
    more = copy(info)
    more.file_size += 1  # `pieces` stops at what the zip says.
    return sum(map(len, pieces(archive, more, where)))


def pieces(archive: ZipFile, info: ZipInfo, where: str) -> Iterator[bytes]:
    """A part, a piece at a time. Raises UserError if it is damaged."""
    with _unzipping(where), archive.open(info) as stream:
        while piece := stream.read(_PIECE):
            yield piece


def xml_parser(where: str) -> expat.XMLParserType:
    """A parser for a part of a workbook. It raises UserError for what no office program writes, such as entities."""

    def doctype(*_: object) -> None:
        raise damaged(where)

    def declaration(_version: str, encoding: str | None, _standalone: int) -> None:
        if encoding and encoding.lower() not in {"utf-8", "us-ascii", "ascii"}:
            raise refuse(f"is a workbook in {encoding}", where, SAVE_AGAIN)

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = doctype
    parser.XmlDeclHandler = declaration
    return parser


def parsed(archive: ZipFile, name: str, parser: expat.XMLParserType, where: str) -> Iterator[None]:
    """Feed the part with this name to a parser, a piece at a time. What its handlers collect is complete at the end.

    Raises UserError if there is no such part, or it is not XML.
    """
    info = part(archive, name)
    if info is None:
        raise damaged(where)
    fed = 0
    try:
        for piece in pieces(archive, info, where):
            parser.Parse(piece)
            fed += len(piece)
            if fed - parser.CurrentByteIndex > _LONGEST_TAG + _PIECE:
                raise damaged(where)
            yield
        parser.Parse(b"", True)
        yield
    except expat.ExpatError:
        raise damaged(where) from None
