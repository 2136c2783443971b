from __future__ import annotations

import zipfile
from io import BytesIO

import pytest

from narwhal.ingest.document import ReadError
from narwhal.ingest.extractors.xlsx_numbers import parse_format, show_number
from tests.ingest.conftest import Read
from tests.ingest.files import docx, package, paragraph, pptx, relationships, shape, xlsx


def cell(*paragraphs: str) -> str:
    return f"<w:tc>{''.join(paragraphs)}</w:tc>"


STYLES = """<w:styles>
  <w:style w:type="paragraph" w:styleId="H1"><w:name w:val="heading 1"/></w:style>
  <w:style w:type="paragraph" w:styleId="Own"><w:name w:val="O"/><w:basedOn w:val="H2"/></w:style>
  <w:style w:type="paragraph" w:styleId="H2"><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>
  <w:style w:type="paragraph" w:styleId="Body"><w:pPr><w:outlineLvl w:val="9"/></w:pPr></w:style>
  <w:style w:type="paragraph" w:styleId="Loop"><w:basedOn w:val="Loop"/></w:style>
</w:styles>"""


def test_word_headings_come_from_styles_also_inherited_ones(read: Read) -> None:
    body = (
        paragraph("Survey", "H1")
        + paragraph("Method", "Own")
        + paragraph("We dived.", "Body")
        + paragraph("Round and round", "Loop")
    )
    document = read(docx(body, {"styles.xml": STYLES}), "a.docx")

    page = document.pages[0]
    assert not document.paged
    assert page.text == "Survey\n\nMethod\n\nWe dived.\n\nRound and round"
    assert [(h.level, page.text[h.start :].split("\n")[0]) for h in page.headings] == [
        (1, "Survey"),
        (2, "Method"),
    ]


def test_word_tables_are_lines_of_cells_and_single_cells_are_paragraphs(read: Read) -> None:
    row = f"<w:tr>{cell(paragraph('Depth'), paragraph('m'))}{cell(paragraph('40'))}</w:tr>"
    frame = f"<w:tbl><w:tr>{cell(paragraph('In a frame', 'H1'))}</w:tr></w:tbl>"
    nested = f"<w:tbl><w:tr>{cell(f'<w:tbl>{row}</w:tbl>')}{cell(paragraph('side'))}</w:tr></w:tbl>"
    document = read(
        docx(f"<w:tbl>{row}{row}</w:tbl>{frame}{nested}", {"styles.xml": STYLES}), "a.docx"
    )

    page = document.pages[0]
    assert page.text == "Depth\nm\t40\nDepth\nm\t40\n\nIn a frame\n\nDepth\nm\t40\tside"
    assert [h.text for h in page.headings] == ["In a frame"]


def test_word_notes_comments_and_boxes_follow_their_paragraph(read: Read) -> None:
    box = (
        "<w:r><mc:AlternateContent><mc:Choice><w:drawing><wp:docPr descr='A seal asleep'/>"
        f"<wps:txbx><w:txbxContent>{paragraph('In a box')}</w:txbxContent></wps:txbx></w:drawing>"
        f"</mc:Choice><mc:Fallback>{paragraph('In a box')}</mc:Fallback>"
        "</mc:AlternateContent></w:r>"
    )
    references = '<w:r><w:footnoteReference w:id="2"/><w:commentReference w:id="7"/></w:r>'
    document = read(
        docx(
            paragraph("Seals rest here.", extra=references) + paragraph("See the box.", extra=box),
            {
                "footnotes.xml": f'<w:footnotes><w:footnote w:id="2">{paragraph("Since 1931.")}'
                "</w:footnote></w:footnotes>",
                "comments.xml": f'<w:comments><w:comment w:id="7">{paragraph("Really?")}'
                "</w:comment></w:comments>",
            },
        ),
        "a.docx",
    )

    assert " ".join(document.pages[0].text.split()) == (
        "Seals rest here. Since 1931. Really? See the box. A seal asleep In a box"
    )


def test_word_headers_and_footers_are_read_once(read: Read) -> None:
    header = f"<w:hdr>{paragraph('Harbour office')}</w:hdr>"
    parts: dict[str, str | bytes] = {
        "header1.xml": header,
        "header2.xml": header,
        "footer1.xml": f"<w:ftr>{paragraph('Confidential')}</w:ftr>",
        "footer2.xml": f"<w:ftr>{paragraph('- 12 -')}</w:ftr>",
    }
    text = read(docx(paragraph("Body"), parts), "a.docx").pages[0].text

    assert text == "Harbour office\n\nBody\n\nConfidential"


def test_word_leaves_out_what_is_deleted_moved_or_hidden(read: Read) -> None:
    body = (
        "<w:p><w:r><w:t>kept</w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        "<w:moveFrom><w:r><w:t>moved</w:t></w:r></w:moveFrom>"
        "<w:ins><w:r><w:tab/><w:t>added</w:t></w:r></w:ins>"
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>"
        '<w:r><w:rPr><w:vanish w:val="0"/></w:rPr><w:br/><w:t>shown</w:t></w:r>'
        "<w:r><w:instrText>PAGE</w:instrText></w:r></w:p>"
    )
    assert read(docx(body), "a.docx").pages[0].text == "kept\tadded\nshown"


def test_word_formulas_keep_their_letters(read: Read) -> None:
    formula = "<w:p><m:oMath><m:r><m:t>E=m</m:t></m:r><m:r><m:t>c²</m:t></m:r></m:oMath></w:p>"
    assert read(docx(formula), "a.docx").pages[0].text == "E=mc²"


def test_slides_come_in_the_order_of_the_list_title_first_notes_last(read: Read) -> None:
    cells = "".join(f"<a:tc><a:p><a:t>{x}</a:t></a:p></a:tc>" for x in ("Site", "Count"))
    table = f"<a:tbl><a:tr>{cells}</a:tr></a:tbl>"
    document = read(
        pptx(
            shape("First point\nSecond point") + shape("Seal survey", "ctrTitle"),
            f"<p:grpSp><p:grpSp>{shape('Deep inside')}</p:grpSp></p:grpSp>"
            f"<p:graphicFrame>{table}</p:graphicFrame>" + shape("2", "sldNum"),
            notes={2: shape("Mention the storm.", "body") + shape("2", "sldNum")},
        ),
        "a.pptx",
    )

    first, second = document.pages
    assert document.paged
    assert (first.number, first.width, first.height) == (1, 720, 540)
    assert first.text == "Seal survey\n\nFirst point\nSecond point"
    assert [h.text for h in first.headings] == ["Seal survey"]
    assert second.text == "Deep inside\n\nSite\tCount\n\nMention the storm."
    assert [(h.text, h.level) for h in second.headings] == [("", 1)]  # ends the first slide's title


def test_charts_on_slides_are_read_series_by_series(read: Read) -> None:
    with zipfile.ZipFile(BytesIO(pptx(shape("Chart", "title")))) as archive:
        parts: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    parts["ppt/slides/_rels/slide1.xml.rels"] = relationships(
        ("c", "chart", "/ppt/charts/chart1.xml")
    )

    def cache(*values: str) -> str:
        return "".join(f"<c:pt><c:v>{value}</c:v></c:pt>" for value in values)

    years = f"<c:cat><c:numRef><c:numCache>{cache('2024', '2025')}</c:numCache></c:numRef></c:cat>"
    parts["ppt/charts/chart1.xml"] = (
        "<c:chart><c:title><c:tx><c:rich><a:p><a:t>Catch by year</a:t></a:p></c:rich></c:tx>"
        "</c:title>"
        f"<c:ser><c:tx><c:strCache>{cache('Herring')}</c:strCache></c:tx>{years}"
        f"<c:val>{cache('17', '0.30000000000000004')}</c:val></c:ser>"
        f"<c:ser><c:tx><c:strCache>{cache('Cod')}</c:strCache></c:tx>{years}"
        f"<c:val>{cache('4', '5')}</c:val></c:ser></c:chart>"
    )
    assert read(package(parts), "a.pptx").pages[0].text.split("\n") == [
        "Chart",
        "",
        "Catch by year",
        "2024\t2025",
        "Herring\t17\t0.3",
        "Cod\t4\t5",
    ]


def test_sheets_show_values_as_excel_does(read: Read) -> None:
    rows = (
        '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c></row>'
        '<row r="2"><c r="A2" s="1"><v>45992</v></c><c r="C2"><v>0.30000000000000004</v></c></row>'
        '<row r="3"><c r="A3" s="2"><v>0.125</v></c><c r="B3" t="b"><v>1</v></c>'
        '<c r="C3" t="e"><v>#N/A</v></c><c r="D3" t="str"><f>A1&amp;"x"</f><v>Yieldx</v></c></row>'
        '<row r="1048576"><c r="XFD1048576" t="inlineStr"><is><t>last</t></is></c></row>'
    )
    strings = (
        "<si><t>Yield</t></si><si><r><t>per </t></r><r><t>hectare</t></r><rPh><t>ヘ</t></rPh></si>"
    )
    styles = (
        '<numFmts><numFmt numFmtId="164" formatCode="[$-409]d\\.m\\.yyyy"/></numFmts>'
        '<cellStyleXfs><xf numFmtId="9"/></cellStyleXfs>'
        '<cellXfs><xf numFmtId="0"/><xf numFmtId="164"/><xf numFmtId="10"/></cellXfs>'
    )
    document = read(xlsx({"Harvest": rows, "Empty": ""}, strings, styles), "a.xlsx")

    first, second = document.pages
    assert document.paged
    assert first.text.split("\n") == [
        "Harvest",
        "",
        "Yield\tper hectare",
        "2025-12-01\t0.3",
        "12.5%\tTRUE\t#N/A\tYieldx",
        "last",
    ]
    assert [h.text for h in first.headings] == ["Harvest"]
    assert (second.number, second.text) == (2, "Empty")


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [
        ("1", "General", "1"),
        ("1234567.5", "#,##0.00", "1234567.5"),
        ("1E-3", "General", "0.001"),
        ("1e300", "General", "1e+300"),
        ("0.5", "0%", "50%"),
        ("0.12345", '0.0"%"', "0.12345"),  # a literal sign changes no value
        ("59", "yyyy-mm-dd", "1900-02-28"),
        ("61", "yyyy-mm-dd", "1900-03-01"),
        ("45992.75", "dd/mm/yyyy hh:mm", "2025-12-01 18:00"),
        ("0.5", "h:mm AM/PM", "12:00"),
        ("1.5", "[h]:mm:ss", "36:00:00"),
        ("45992", "mmm yy", "2025-12-01"),
        ("45992", '"day" 0', "45992"),
        ("5", "[Red]0;[Blue]-0", "5"),
        ("-3", "yyyy", "-3"),
        ("99999999999", "yyyy-mm-dd", "99999999999"),
        ("n/a", "0", "n/a"),
    ],
)
def test_numbers_are_shown_by_their_format(value: str, code: str, shown: str) -> None:
    assert show_number(value, parse_format(code)) == shown


def test_dates_of_old_macs_count_from_1904(read: Read) -> None:
    rows = '<row r="1"><c r="A1" s="0"><v>1</v></c></row>'
    styles = '<cellXfs><xf numFmtId="14"/></cellXfs>'
    book = '<workbookPr date1904="1"/>'
    document = read(xlsx({"S": rows}, styles=styles, book=book), "a.xlsx")

    assert document.pages[0].text.endswith("1904-01-02")


def test_comments_and_footers_of_a_sheet_are_read(read: Read) -> None:
    with zipfile.ZipFile(BytesIO(xlsx({"S": ""}))) as archive:
        parts: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    parts["xl/worksheets/sheet1.xml"] = (
        "<worksheet><sheetData/><headerFooter>"
        '<oddFooter>&amp;L&amp;"Arial,Bold"&amp;10Harbour office'
        "&amp;RPage &amp;P</oddFooter></headerFooter></worksheet>"
    )
    parts["xl/worksheets/_rels/sheet1.xml.rels"] = relationships(
        ("c", "comments", "../comments1.xml")
    )
    parts["xl/comments1.xml"] = (
        "<comments><authors><author>Ann</author></authors><commentList>"
        "<comment><text><r><t>Ask </t></r>"
        "<r><t>the keeper</t></r></text></comment></commentList></comments>"
    )
    assert (
        read(package(parts), "a.xlsx").pages[0].text == "S\n\nHarbour office Page\nAsk the keeper"
    )


def test_a_strict_file_with_other_prefixes_reads_the_same(read: Read) -> None:
    data = docx(paragraph("Any prefix"))
    other = package(
        {
            "[Content_Types].xml": "<Types/>",
            "word/document.xml": '<document xmlns="http://purl.oclc.org/ooxml/wordprocessingml/main">'
            "<body><p><r><t>Any prefix</t></r></p></body></document>",
        }
    )
    assert read(data, "a.docx").pages[0].text == read(other, "a.docx").pages[0].text == "Any prefix"


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"word/document.xml": "<w:document><w:body>"}, "corrupt"),
        ({"word/other.xml": "<a/>"}, "corrupt"),
        ({"word/document.xml": "<!DOCTYPE x [<!ENTITY e 'boom'>]><d>&e;</d>"}, "corrupt"),
    ],
    ids=["cut off", "no main part", "entities"],
)
def test_broken_office_files_are_corrupt(
    read: Read, parts: dict[str, str | bytes], code: str
) -> None:
    with pytest.raises(ReadError) as error:
        read(package({"[Content_Types].xml": "<Types/>", **parts}), "a.docx")
    assert error.value.code == code


def test_what_a_layout_shows_is_read_once_its_places_for_text_never(read: Read) -> None:
    with zipfile.ZipFile(BytesIO(pptx(shape("One"), shape("Two")))) as archive:
        parts: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    layout = shape("Harbour Ltd") + shape("Click to add text", "body")
    for number in (1, 2):
        parts[f"ppt/slides/_rels/slide{number}.xml.rels"] = relationships(
            ("l", "slideLayout", "../slideLayouts/layout1.xml")
        )
    parts["ppt/slideLayouts/layout1.xml"] = f"<p:sldLayout>{layout}</p:sldLayout>"
    texts = [page.text for page in read(package(parts), "a.pptx").pages]
    assert texts == ["One\n\nHarbour Ltd", "Two"]


def test_pages_inserted_into_word_are_read(read: Read) -> None:
    with zipfile.ZipFile(BytesIO(docx(paragraph("Before")))) as archive:
        parts: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    parts["word/_rels/document.xml.rels"] = relationships(
        ("a", "aFChunk", "afchunk.html"), ("b", "aFChunk", "inner.docx")
    )
    parts["word/afchunk.html"] = "<html><body><p>Inserted <b>page</b></p></body></html>"
    parts["word/inner.docx"] = docx(paragraph("A document in a document"))
    assert read(package(parts), "a.docx").pages[0].text == "Before\n\nInserted page"
