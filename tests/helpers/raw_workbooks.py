"""Workbooks made by hand: an xlsx, an ods and an xls with exactly the bytes that a test is about."""

from __future__ import annotations

import io
import struct
import zipfile

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
RELS = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'
TYPES = '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'
ODS = "application/vnd.oasis.opendocument.spreadsheet"
NAMES = " ".join(f'xmlns:{one}="urn:{one}"' for one in ("office", "table", "text", "calcext", "manifest"))


def zipped(parts, packing=zipfile.ZIP_DEFLATED):
    """The bytes of a zip with these parts."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return file.getvalue()


def xlsx(cells="", texts=(), **others):
    """The parts of an xlsx with one sheet of these rows, and these shared texts."""
    target = f'<Relationship Id="rId1" Type="{REL}/officeDocument" Target="xl/workbook.xml"/>'
    sheet = f'<Relationship Id="rId1" Type="{REL}/worksheet" Target="worksheets/sheet1.xml"/>'
    shared = "".join(f"<si>{text}</si>" for text in texts)
    sheets = '<sheet name="L" sheetId="1" r:id="rId1"/>'
    return {
        "[Content_Types].xml": TYPES,
        "_rels/.rels": RELS.format(target),
        "xl/workbook.xml": f'<workbook {MAIN} xmlns:r="{REL}"><sheets>{sheets}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": RELS.format(sheet),
        "xl/sharedStrings.xml": f'<sst {MAIN} uniqueCount="{len(texts)}">{shared}</sst>',
        "xl/worksheets/sheet1.xml": f"<worksheet {MAIN}><sheetData>{cells}</sheetData></worksheet>",
        **others,
    }


def ods(rows="", **others):
    """The parts of an ods with one sheet of these rows."""
    table = f'<table:table table:name="L">{rows}</table:table>'
    return {
        "mimetype": ODS,
        "META-INF/manifest.xml": f"<manifest:manifest {NAMES}/>",
        "content.xml": f"<office:document-content {NAMES}>{table}</office:document-content>",
        **others,
    }


def ole(*streams):
    """The bytes of an OLE file with these streams: each a name and its bytes."""
    sectors, entries, fat = [], [_entry("Root Entry", 5, -2, 0, 1)], [-3, -3]
    for number, (name, given) in enumerate(streams, start=1):
        data = given.ljust(4096, b"\0")
        count = -(-len(data) // 512)
        start = len(fat)
        fat += [*range(start + 1, start + count), -2]
        sectors.append(data.ljust(512 * count, b"\0"))
        entries.append(_entry(name, 2, start, len(data), -1, number + 1 if number < len(streams) else -1))
    fat[1] = -2
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".ljust(24, b"\0")
    header += struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6).ljust(20, b"\0")
    header += struct.pack("<iiiiiiii", 1, 1, 0, 4096, -2, 0, -2, 0) + struct.pack("<109i", 0, *[-1] * 108)
    table = struct.pack("<128i", *fat, *[-1] * (128 - len(fat)))
    return header + table + b"".join(entries).ljust(512, b"\0") + b"".join(sectors)


def _entry(name, kind, start, size, child, right=-1):
    text = (name + "\0").encode("utf-16-le")
    places = struct.pack("<HBBiii", len(text), kind, 1, -1, right, child)
    return text.ljust(64, b"\0") + places + bytes(36) + struct.pack("<iii", start, size, 0)


def xls(*records, stream="Workbook", sheets=1, first=(), apart=True):
    """The bytes of an xls with sheets of these records. `first` are records at the start of the workbook.

    Unless they are `apart`, all sheets are the same one.
    """
    begin = struct.pack("<HHHHII", 0x600, 5, 0, 0, 0, 0), struct.pack("<HHHHII", 0x600, 0x10, 0, 0, 0, 0)
    sheet = _records((0x809, begin[1]), *records, (0x0A, b""))
    opening = _records((0x809, begin[0]), *first, (0x42, struct.pack("<H", 1200)))
    starts = range(len(opening) + 13 * sheets + 4, 2**31, len(sheet))
    named = [(0x85, struct.pack("<IBBBBB", starts[n if apart else 0], 0, 0, 1, 0, 65 + n)) for n in range(sheets)]
    return ole((stream, opening + _records(*named, (0x0A, b"")) + sheet * (sheets if apart else 1)))


def _records(*records):
    return b"".join(struct.pack("<HH", kind, len(data)) + data for kind, data in records)


def label(row, column, text):
    """The record of a text."""
    return 0x204, struct.pack("<HHHHB", row, column, 0, len(text), 0) + text.encode("latin-1")


def error(row, column, code):
    """The record of an error."""
    return 0x205, struct.pack("<HHHBB", row, column, 0, code, 1)


def empty_formula(row, column):
    """The record of a formula whose value is the empty text."""
    return 0x06, struct.pack("<HHHQHI", row, column, 0, 0xFFFF_0000_0000_0003, 0, 0) + struct.pack("<HB", 1, 0x16)
