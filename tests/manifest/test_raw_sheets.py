"""A workbook is measured before it is opened, and no cell that a person sees as filled counts as an empty one."""

from __future__ import annotations

import io
import zipfile

import pytest

from jobs.core.errors import UserError
from jobs.manifest.raw_sheets import Kind, check_size, hidden_cells, kind_of

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
RELS = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'
TYPES = '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'
ODS = "application/vnd.oasis.opendocument.spreadsheet"


def zipped(parts):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return file


def xlsx(cells="", texts=(), sheets='<sheet name="L" sheetId="1" r:id="rId1"/>', **others):
    """A workbook whose first sheet has these rows."""
    target = f'<Relationship Id="rId1" Type="{REL}/officeDocument" Target="xl/workbook.xml"/>'
    sheet = f'<Relationship Id="rId1" Type="{REL}/worksheet" Target="worksheets/sheet1.xml"/>'
    shared = "".join(f"<si>{text}</si>" for text in texts)
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
    """A workbook whose one sheet has these rows."""
    names = " ".join(f'xmlns:{one}="urn:{one}"' for one in ("office", "table", "text", "calcext", "manifest"))
    return {
        "mimetype": ODS,
        "META-INF/manifest.xml": f"<manifest:manifest {names}/>",
        "content.xml": f'<office:document-content {names}><table:table table:name="L">{rows}</table:table></office:document-content>',
        **others,
    }


def hidden(parts, kind, sheet=0):
    file = zipped(parts)
    assert kind_of(file, "list") is kind
    check_size(file, kind, "list")
    return [tuple(cell) for cell in hidden_cells(file, kind, sheet, "list")]


def test_an_error_and_a_formula_without_a_value_in_an_xlsx_are_named_with_their_cells():
    rows = (
        '<row r="2"><c r="A2" t="e"><v>#N/A</v></c><c r="B2" t="s"><v>0</v></c></row>'
        '<row r="17"><c r="C17"><f>B2</f></c><c r="D17" t="str"><f>B2</f><v>x</v></c><c r="E17" t="str"><f>B2</f><v></v></c></row>'
    )
    assert hidden(xlsx(rows, ["<t>CoA</t>"]), Kind.XLSX) == [(2, 0, "#N/A"), (17, 2, ""), (17, 4, "")]


def test_an_error_and_a_formula_without_a_value_in_an_ods_are_named_with_their_cells():
    rows = (
        '<table:table-row table:number-rows-repeated="2"><table:table-cell/></table:table-row>'
        '<table:table-row table:number-rows-repeated="2"><table:table-cell table:formula="of:=NA()" office:value-type="string"'
        ' office:string-value="" calcext:value-type="error"><text:p>#N/A</text:p></table:table-cell>'
        '<table:table-cell table:formula="of:=A1" table:number-columns-repeated="2"/></table:table-row>'
    )
    cells = [(0, "#N/A"), (1, ""), (2, "")]
    assert hidden(ods(rows), Kind.ODS) == [(row, *cell) for row in (3, 4) for cell in cells]


def refused(parts, kind):
    with pytest.raises(UserError) as error:
        hidden(parts, kind)
    return str(error.value)


def test_a_cell_far_away_does_not_take_memory_for_all_cells_before_it():
    far = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
    assert "too large" in refused(xlsx(far), Kind.XLSX)
