"""A workbook is measured before it is opened, and no cell that a person sees as filled counts as an empty one."""

from __future__ import annotations

import io
import random
import struct
import zipfile

import pytest
from python_calamine import CalamineWorkbook

from jobs.core.errors import Exit, UserError
from jobs.manifest import raw_xlsx
from jobs.manifest.raw_sheets import Kind, kind_of, measured
from tests.helpers.raw_workbooks import (
    MAIN,
    NAMES,
    ODS,
    REL,
    RELS,
    empty_formula,
    error,
    label,
    ods,
    ole,
    xls,
    xlsx,
    zipped,
)

EMPTY_ROWS = '<table:table-row table:number-rows-repeated="{}"><table:table-cell table:number-columns-repeated="16384"/></table:table-row>'


def looked_at(book, sheet=0):
    """What hides in a workbook, given as its parts or its bytes."""
    file = io.BytesIO(zipped(book) if isinstance(book, dict) else book)
    kind = kind_of(file, "list")
    if kind is None:
        return None
    with measured(file, kind, "list") as hidden:
        return [(cell.row, cell.column, cell.shown) for cell in hidden([sheet])]


def shown(book, sheet=0):
    """The cells as the reader shows them."""
    return CalamineWorkbook.from_filelike(io.BytesIO(zipped(book))).get_sheet_by_index(sheet).to_python()


def refused(book, sheet=0):
    with pytest.raises(UserError) as found:
        looked_at(book, sheet)
    assert found.value.code == Exit.CANNOT_START
    assert "\n" not in str(found.value)
    return str(found.value)


def row(*cells, number=1):
    return f'<row r="{number}">{"".join(cells)}</row>'


def cell(inside="", **attributes):
    """A cell of an ods; `value_type` is the attribute `office:value-type`."""
    rooms = {"formula": "table", "number_columns_repeated": "table"}
    said = " ".join(
        f'{rooms.get(name, "office")}:{name.replace("_", "-")}="{value}"' for name, value in attributes.items()
    )
    return f"<table:table-cell {said}>{inside}</table:table-cell>"


def ods_row(*cells, rows=1):
    return f'<table:table-row table:number-rows-repeated="{rows}">{"".join(cells)}</table:table-row>'


KINDS = {
    "xlsx": (xlsx(row('<c r="A1"><v>1</v></c>')), Kind.XLSX),
    "ods": (ods(), Kind.ODS),
    "xls": (xls(label(0, 0, "location_id")), Kind.XLS),
    "old xls": (xls(label(0, 0, "location_id"), stream="Book"), Kind.XLS),
    "xls in capitals": (xls(label(0, 0, "location_id"), stream="WORKBOOK"), Kind.XLS),
    "csv": (b"location_id\nLocA\n", None),
    "empty": (b"", None),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_workbook_is_known_by_its_bytes(name):
    book, kind = KINDS[name]
    assert kind_of(io.BytesIO(zipped(book) if isinstance(book, dict) else book), "list.csv") is kind


def with_password(parts):
    data = bytearray(zipped(parts))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


OTHERS = {
    "xlsb": (xlsx(**{"xl/workbook.bin": "x"}), "is an Excel binary workbook (xlsb): save it as xlsx or CSV UTF-8"),
    "docx": (xlsx(**{"word/document.xml": "x"}), "is a Word document"),
    "numbers": ({"Index/Document.iwa": "x"}, "is a document of Numbers or Pages: export it"),
    "zip": ({"list.csv": "location_id"}, "is a zip file without a workbook"),
    "text of LibreOffice": ({**ods(), "mimetype": ODS.replace("spreadsheet", "text")}, "is a zip file without a workbook"),
    "both an xlsx and an ods": ({**xlsx(), **ods()}, "is a zip file without a workbook"),
    "xlsx with a password": (ole(("EncryptionInfo", b"x"), ("EncryptedPackage", b"x")), "has a password: save it without one"),
    "ods with a password": (
        ods(**{"META-INF/manifest.xml": f"<manifest:manifest {NAMES}><manifest:encryption-data/></manifest:manifest>"}),
        "has a password: save it without one",
    ),
    "doc": (ole(("WordDocument", b"x")), "is a Word document"),
    "msi": (ole(("Other", b"x")), "is an Office file without a workbook"),
    "xls with a password": (xls(first=[(0x2F, bytes(6))]), "has a password: save it without one"),
    "zip with a password": (with_password(xlsx()), "has a password: save it without one"),
    "xlsx in another encoding": (
        xlsx(**{"xl/worksheets/sheet1.xml": '<?xml version="1.0" encoding="windows-1252"?><worksheet/>'}),
        "is a workbook in windows-1252",
    ),
    "cut off": (zipped(xlsx())[:-30], "is a damaged workbook"),
    "cut off, ole": (xls()[:700], "is a damaged workbook"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_a_workbook_is_refused_by_its_name(name):
    book, words = OTHERS[name]
    assert words in refused(book)


def test_an_error_and_a_formula_without_a_value_in_an_xlsx_are_named_with_their_cells():
    book = xlsx(
        row('<c r="A2" t="e"><v>#N/A</v></c><c r="B2" t="s"><v>0</v></c>', number=2)
        + row(
            '<c r="C17"><f>B2</f></c><c r="D17" t="str"><f>B2</f><v>x</v></c><c r="E17" t="str"><f>B2</f><v></v></c>',
            '<c r="F17"><f t="array" ref="F17:F18">B2</f></c><c r="G17"><f t="shared" si="0"/></c><c r="H17"/>',
            number=17,
        ),
        ["<t>CoA</t>"],
    )
    assert looked_at(book) == [(2, 0, "#N/A"), (17, 2, ""), (17, 4, ""), (17, 5, ""), (17, 6, "")]
    assert shown(book)[0][:2] == ["", "CoA"]


def test_an_error_and_a_formula_without_a_value_in_an_ods_are_named_with_their_cells():
    wrong = '<table:table-cell office:value-type="string" office:string-value="" calcext:value-type="error"><text:p>#N/A</text:p></table:table-cell>'
    book = ods(EMPTY_ROWS.format(2) + ods_row(wrong, cell(formula="of:=A1", number_columns_repeated=2), cell(), rows=2))
    assert looked_at(book) == [
        (number, *one) for number in (3, 4) for one in ((0, "#N/A"), (1, ""), (2, ""))
    ]  # fmt: skip


def test_an_error_and_a_formula_without_a_value_in_an_xls_are_named_with_their_cells():
    book = xls(label(0, 0, "location_id"), error(1, 0, 0x2A), label(1, 1, "CoA"), empty_formula(16, 2))
    assert looked_at(book) == [(2, 0, "#N/A"), (17, 2, "")]


# Cells that the reader shows otherwise than a person sees them, each with what a person sees.
XLSX_SEEN = {
    "a value in CDATA": ('<c r="A1" t="str"><v><![CDATA[LocA]]></v></c>', "LocA"),
    "a value after a comment": ('<c r="A1"><v><!-- -->5</v></c>', "5"),
    "a value before its formula": ('<c r="A1"><v>5</v><f>B1</f></c>', "5"),
    "a text before an empty value": (
        '<c r="A1" t="inlineStr"><is><t>LocA</t><rPh sb="0" eb="1"><t>x</t></rPh></is><v/></c>',
        "LocA",
    ),
    "an error without its name": ('<c r="A1" t="e"><v></v></c>', "#"),
    "an error without a value": ('<c r="A1" t="e"/>', "#"),
    "an error without its place": ('<c t="e"><v>#REF!</v></c>', "#REF!"),
}
ODS_SEEN = {
    "a text without a type": (cell("<text:p>LocA</text:p>"), "LocA"),
    "an error kept as a number": (cell("<text:p>Err:502</text:p>", value_type="float", value="0", formula="of:=X"), "Err:502"),
    "TRUE kept as a number": (cell("<text:p>TRUE</text:p>", value_type="float", value="1", formula="of:=TRUE()"), "TRUE"),
    "a date kept as a number": (cell("<text:p>01/01/26</text:p>", value_type="float", value="46023"), "01/01/26"),
    "zeros before a number": (cell("<text:p>00123</text:p>", value_type="float", value="123"), "00123"),
    "a percentage": (cell("<text:p>1200%</text:p>", value_type="percentage", value="12"), "1200%"),
    "a day and more": (cell("<text:p>30:00:00</text:p>", value_type="time", time_value="PT30H00M00S"), "30:00:00"),
    "a text with a tab": (cell("<text:p>Lo<text:tab/>cA</text:p>", value_type="string"), "Lo\tcA"),
    "a text in CDATA": (cell("<text:p>Lo<![CDATA[cA]]></text:p>", value_type="string"), "LocA"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*XLSX_SEEN, *ODS_SEEN])
def test_a_cell_that_the_reader_shows_wrongly_is_named_with_what_a_person_sees(name):
    inside, seen = {**XLSX_SEEN, **ODS_SEEN}[name]
    book = xlsx(row(inside)) if name in XLSX_SEEN else ods(ods_row(inside))
    assert shown(book) != [[seen]]
    assert looked_at(book) == [(1, 0, seen)]


def test_texts_and_numbers_and_empty_texts_are_not_hidden():
    texts = ["<r><t>Lo</t></r><r><t>cA</t></r><rPh sb='0' eb='1'><t>x</t></rPh>", "<t></t>", ""]
    kept = '<c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c><c r="C1" t="s"><v>2</v></c><c r="D1" t="inlineStr"><is><t/></is></c>'
    book = xlsx(row(kept, '<c r="E1"><v>7</v></c><c r="F1" t="b"><v>0</v></c><c r="G1" s="1"/>'), texts)
    assert shown(book) == [["LocA", "", "", "", 7.0, False]]
    assert looked_at(book) == []
    note = "<office:annotation><text:p>Ask Ann</text:p></office:annotation>"
    book = ods(ods_row(cell(f"{note}<text:p>LocA</text:p>", value_type="string"), cell(note)))
    assert shown(book) == [["LocA"]]
    assert looked_at(book) == []


@pytest.mark.parametrize("text", ["7", "-1,234.5", "1.234,5", "1 234", "1.2E+15", "1'234"])
def test_a_number_of_an_ods_that_is_shown_as_a_number_is_not_hidden(text):
    assert looked_at(ods(ods_row(cell(f"<text:p>{text}</text:p>", value_type="float", value="7")))) == []


def test_an_error_that_the_reader_does_not_know_is_named_with_its_cell():
    """The reader refuses the whole sheet for it, in words that do not say where it is."""
    says = refused(xlsx(row('<c r="AB17" t="e"><v>#SPILL!</v></c>', number=17)))
    assert says == "list: holds #SPILL! in AB17 of the sheet 'L', which cannot be read: replace it by a value"


def test_the_sheet_is_found_as_the_reader_finds_it():
    """By the place among all sheets, charts too, whatever the names of parts and prefixes."""
    names = "".join(f'<sheet name="{one}" sheetId="{one}" r:id="rId{one}"/>' for one in (3, 1, 2))
    kinds = {1: ("chartsheet", "chartsheets/sheet1.xml"), 2: ("worksheet", "/xl/Odd.xml"), 3: ("worksheet", "s.xml")}
    rels = "".join(f'<Relationship Id="rId{n}" Type="{REL}/{kind}" Target="{to}"/>' for n, (kind, to) in kinds.items())
    strict = 'xmlns:x="http://purl.oclc.org/ooxml/spreadsheetml/main"'
    cells = '<x:row><x:c t="e"><x:v>#N/A</x:v></x:c><x:c r="D1"/><x:c t="e"><x:v>#REF!</x:v></x:c></x:row><x:row/><x:row><x:c t="e"><x:v>#N/A</x:v></x:c></x:row>'
    book = {
        **xlsx(),
        "xl/workbook.xml": f'<workbook {MAIN} xmlns:r="{REL}"><sheets>{names}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": RELS.format(rels),
        "xl/chartsheets/sheet1.xml": f"<chartsheet {MAIN}/>",
        "XL\\odd.xml": f"<x:worksheet {strict}><x:sheetData>{cells}</x:sheetData></x:worksheet>",
        "xl/s.xml": f"<worksheet {MAIN}><sheetData/></worksheet>",
    }
    assert [looked_at(book, sheet) for sheet in (0, 1)] == [[], []]
    assert looked_at(book, 2) == [(1, 0, "#N/A"), (1, 4, "#REF!"), (3, 0, "#N/A")]
    assert len(shown(book, 2)) == 3


def test_a_file_that_is_too_large_is_not_even_looked_at(tmp_path):
    with (tmp_path / "list.xlsx").open("w+b") as file:
        file.write(b"PK\x03\x04")
        file.truncate(2**29 + 1)
        with pytest.raises(UserError, match="the file has more than 536,870,912 bytes"):
            kind_of(file, "list")


def test_each_sheet_of_an_ods_has_its_own_rows():
    wrong = ods_row(cell(formula="of:=A1"))
    book = ods(f'{EMPTY_ROWS.format(8)}{wrong}</table:table><table:table table:name="M">{EMPTY_ROWS.format(2)}{wrong}')
    assert [looked_at(book, sheet) for sheet in (0, 1)] == [[(9, 0, "")], [(3, 0, "")]]


class Counted(io.BytesIO):
    """A file that counts the bytes read from it."""

    taken = 0

    def read(self, size=-1):
        data = super().read(size)
        self.taken += len(data)
        return data


def sheets_of_an_xlsx(count, parts=None):
    """An xlsx with as many sheets, each with an error, in as many parts, and with long texts."""
    parts = count if parts is None else parts
    names = "".join(f'<sheet name="S{n}" sheetId="{n + 1}" r:id="r{n}"/>' for n in range(count))
    rels = "".join(f'<Relationship Id="r{n}" Type="{REL}/worksheet" Target="s{n % parts}.xml"/>' for n in range(count))
    sheet = f"<worksheet {MAIN}><sheetData>{row(WRONG)}</sheetData></worksheet>"
    return {
        **xlsx(texts=[f"<t>{random.Random(0).randbytes(100_000).hex()}</t>"]),
        "xl/workbook.xml": f'<workbook {MAIN} xmlns:r="{REL}"><sheets>{names}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": RELS.format(rels),
        **{f"xl/s{n}.xml": sheet for n in range(parts)},
    }


def sheets_of_an_ods(count):
    """An ods with as many sheets, each with a formula without a value, and with a long text."""
    text = ods_row(cell(random.Random(0).randbytes(30_000).hex(), value_type="string"))
    return ods(text + "".join(f'</table:table><table:table table:name="S{n}">{EMPTY}' for n in range(1, count)))


WRONG = '<c r="A1" t="e"><v>#N/A</v></c>'
EMPTY = ods_row(cell(formula="of:=A1"))


@pytest.mark.parametrize("made", [sheets_of_an_xlsx, sheets_of_an_ods])
def test_the_texts_of_all_sheets_are_read_once_however_many_sheets_there_are(made):
    file = Counted(zipped(made(30)))
    kind = kind_of(file, "list")
    with measured(file, kind, "list") as hidden:
        assert len([*hidden(range(30))]) >= 29
    assert file.taken < 5 * len(file.getvalue())


def saying(parts, name, size, text):
    """A zip that declares this size for a part, with the checksum of `text`."""
    told = [(len(parts[name]), size), (zipfile.crc32(parts[name].encode()), zipfile.crc32(text.encode()))]
    data = zipped(parts)
    for true, false in told:
        data = data.replace(true.to_bytes(4, "little"), false.to_bytes(4, "little"))
    return data


ONE = cell(value_type="float", value="1")
AREA, TEXT, END = "fill an area of more than 33,554,432", "hold more than 1,073,741,824", "a sheet ends at"
TOO_LARGE = {
    "a cell far away": (
        xlsx(row('<c r="A1"><v>1</v></c>') + row('<c r="XFD1048576"><v>1</v></c>', number=1048576)),
        AREA,
    ),
    "a cell far from a small table": (
        xlsx("".join(row(f'<c r="A{n}"><v>1</v></c>', number=n) for n in range(1, 2000)) + row('<c r="XFC2000"><v>1</v></c>', number=2000)),
        "XFC2000 is far from its other cells",
    ),
    "a cell of an ods far from a small table": (
        ods(ods_row(ONE, rows=2000) + ods_row(cell(number_columns_repeated=16_000), ONE)),
        "WQK2001 is far from its other cells",
    ),
    "a cell of an xls far from a small table": (
        xls(label(0, 0, "x"), label(60_000, 255, "x")),
        "IV60001 is far from its other cells",
    ),
    "a column beyond the last": (xlsx(row('<c r="ZZZ1"><v>1</v></c>')), END),
    "a row beyond the last": (xlsx(row('<c r="A1048577"><v>1</v></c>')), END),
    "a text in very many cells": (
        xlsx(
            "".join(row(f'<c r="A{n}" t="s"><v>0</v></c>', number=n) for n in range(1, 3000)),
            [f"<t>{'x' * 400_000}</t>"],
        ),
        TEXT,
    ),
    "a number of texts that is a lie": (
        {**xlsx(), "xl/sharedStrings.xml": f'<sst {MAIN} uniqueCount="99999999999"/>'},
        "more than 33,554,432 texts",
    ),
    "a part of zeros": (xlsx(**{"xl/media/image1.png": "0" * 2**25}), "200 times its size"),
    "a part that says it is huge": (saying(xlsx(), "xl/workbook.xml", 2**31, ""), "unpacks to more than 2,147,483,648 bytes"),
    "too many parts": (xlsx(**{f"p{n}": "" for n in range(10_000)}), "more than 10,000 parts"),
    "too many sheets": (xlsx(**{"xl/workbook.xml": "<workbook>" + '<sheet name="L"/>' * 10_001 + "</workbook>"}), "more than 10,000 parts"),
    "a row repeated": (ods(ods_row(cell(value_type="float", value="1", number_columns_repeated=40), rows=1_000_000)), AREA),
    "a cell repeated": (ods(ods_row(cell(value_type="float", value="1", number_columns_repeated=10**8))), END),
    "a long text": (xlsx(row(f'<c r="A1" t="str"><v>{"x" * 70_000}</v></c>')), "more than 65,536"),
    "spaces repeated": (ods(ods_row(cell('<text:s text:c="99999999"/>', value_type="string"))), "more than 65,536"),
    "a long text repeated": (ods(ods_row(cell("x" * 60_000, value_type="string"), rows=20_000)), TEXT),
    "a cell below very many rows": (
        ods(ods_row(ONE) + EMPTY_ROWS.format(1_000_000) + ods_row(cell(number_columns_repeated=99), ONE)),
        AREA,
    ),
    "three wide sheets of an xls": (xls(label(0, 0, "x"), label(6000, 255, "x"), sheets=3), "IV6001 is far from its other cells"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_workbook_that_would_take_too_much_memory_is_refused(name):
    book, words = TOO_LARGE[name]
    said = refused(book)
    assert "is too large for a workbook: " in said
    assert words in said


def test_the_texts_of_a_workbook_that_would_fill_the_memory_are_refused():
    book = saying(xlsx(), "xl/sharedStrings.xml", 2**30 + 1, "")
    with zipfile.ZipFile(io.BytesIO(book)) as archive, pytest.raises(UserError, match="its texts take more than"):
        raw_xlsx.measured(archive, "list")


def test_the_empty_rows_below_a_table_of_libreoffice_are_not_too_large():
    book = ods(ods_row(cell("<text:p>LocA</text:p>", value_type="string")) + EMPTY_ROWS.format(1_048_575))
    assert looked_at(book) == []


def twice(parts, name):
    file = io.BytesIO(zipped(parts))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name.upper(), parts[name])
    return file.getvalue()


def circled():
    """An OLE file of two streams. The last sector of the second leads back to its first."""
    data = bytearray(ole(("Workbook", b""), ("Other", b"")))
    data[512 + 4 * 17 : 512 + 4 * 18] = (10).to_bytes(4, "little")
    return bytes(data)


def overlapping():
    """A zip with a part inside the bytes of another."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("inner", "x" * 5000)
        held = archive.getinfo("inner")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("outer", inner.getvalue()[:5035])
        held.header_offset = 35
        archive.filelist.append(held)
        for name, text in xlsx().items():
            archive.writestr(name, text)
    return file.getvalue()


LONG = [label(number, 0, "x" * 200) for number in range(10)]
SHEET = "xl/worksheets/sheet1.xml"
BOOK = xlsx(row('<c r="A1"><v>1</v></c>'))
LONGER = {**BOOK, SHEET: BOOK[SHEET] + " "}
DAMAGED = {
    "a part that is larger than the zip says": saying(LONGER, SHEET, len(BOOK[SHEET]), BOOK[SHEET]),
    "a part that comes twice": twice(xlsx(), SHEET),
    "no sheet": {name: text for name, text in xlsx().items() if name != SHEET},
    "no relations": {name: text for name, text in xlsx().items() if name != "_rels/.rels"},
    "no content": {name: text for name, text in ods().items() if name != "META-INF/manifest.xml"},
    "an entity": xlsx(**{SHEET: f'<!DOCTYPE x [<!ENTITY a "aa">]><worksheet {MAIN}><sheetData/></worksheet>'}),
    "a sheet cut off": xlsx(**{SHEET: f"<worksheet {MAIN}><sheetData><row>"}),
    "a tag without an end": xlsx(**{SHEET: f"<worksheet {MAIN} a='{'x' * 2**21}'/>"}),
    "a cell that comes twice": xlsx(row('<c r="A1"><v>1</v></c><c r="A1" t="e"><v>#N/A</v></c>')),
    "rows out of order": xlsx(row('<c r="A2"><v>1</v></c>', number=2) + row('<c r="A1"><v>1</v></c>')),
    "a place that is none": xlsx(row('<c r="A"><v>1</v></c>')),
    "a text that is not there": xlsx(row('<c r="A1" t="s"><v>1</v></c>'), ["<t>LocA</t>"]),
    "a text by a number with spaces": xlsx(row('<c r="A1" t="s"><v> 1 </v></c>'), ["<t>LocA</t>", "<t>LocB</t>"]),
    "a text by a number in CDATA": xlsx(row('<c r="A1" t="s"><v><![CDATA[0]]></v></c>'), ["<t>LocA</t>"]),
    "a part inside another": overlapping(),
    "a part packed in an unknown way": zipped(xlsx(), zipfile.ZIP_BZIP2),
    "two sheets with one name": xlsx(
        **{
            "xl/workbook.xml": f'<workbook xmlns:r="{REL}"><sheet name="L" r:id="rId1"/><sheet name="l" r:id="rId1"/></workbook>'
        }
    ),
    "two sheets in one part": zipped(sheets_of_an_xlsx(2, parts=1)),
    "two sheets of an xls in one place": xls(*LONG, sheets=2, apart=False),
    "an xls that says it has very many rows": xls((0x200, struct.pack("<IIHHH", 0, 2**31, 0, 1, 0))),
    "an old xls that says it ends before it begins": xls((0x200, struct.pack("<HHHHH", 7, 3, 0, 1, 0)), stream="Book"),
    "a sheet inside a sheet": ods('<table:table table:name="M"/>'),
    "a stream in a circle": circled(),
    "a repetition that is not a number": ods(ods_row(cell(), rows="many")),
}


def test_a_part_that_lies_before_its_zip_is_damage(tmp_path):
    """A file cannot be read from a place before its beginning. That is an OSError, unlike in memory."""
    data = zipped(BOOK)
    (tmp_path / "list.xlsx").write_bytes(data[:60] + data[160:])
    with (tmp_path / "list.xlsx").open("rb") as file:
        book = measured(file, Kind.XLSX, "list")
        with pytest.raises(UserError, match="is a damaged workbook"):
            book.__enter__()


def test_an_empty_sheet_of_an_xls_says_that_it_has_no_rows():
    assert looked_at(xls((0x200, struct.pack("<IIHHH", 1, 0, 0, 0, 0)), label(0, 0, "x"))) == []


def test_a_chart_inside_a_sheet_of_an_xls_is_a_part_of_it():
    chart = [(0x809, bytes(16)), (0x0A, b"")]
    assert looked_at(xls(*LONG, *chart, error(16, 0, 0x2A), sheets=2), 1) == [(17, 0, "#N/A")]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_workbook_is_refused_in_one_line(name):
    assert "is a damaged workbook: " in refused(DAMAGED[name])
