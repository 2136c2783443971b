from __future__ import annotations

from pathlib import Path

import pytest

from narwhal.ingest.document import ReadError
from narwhal.ingest.limits import MIB, Limits, read_in_sandbox
from tests.ingest.conftest import Read
from tests.ingest.files import flat_odf, odf, package


def p(text: str, inside: str = "") -> str:
    return f"<text:p>{text}{inside}</text:p>"


def cells(*texts: str) -> str:
    return "".join(f"<table:table-cell>{p(text)}</table:table-cell>" for text in texts)


def row(*texts: str) -> str:
    return f"<table:table-row>{cells(*texts)}</table:table-row>"


def test_text_documents_keep_headings_lists_and_tables(read: Read) -> None:
    items = "".join(f"<text:list-item>{p(item)}</text:list-item>" for item in ("nets", "buoys"))
    document = read(
        odf(
            "text",
            '<text:h text:outline-level="1">Seal survey</text:h>'
            '<text:h text:outline-level="2">Method</text:h>'
            + p("We   dived\n twice,<text:s text:c='2'/>with:")
            + f"<text:list>{items}</text:list>"
            + f"<table:table>{row('Site', 'Count')}{row('Cove', '7')}</table:table>"
            + f"<table:table>{row('In a frame')}</table:table>",
        ),
        "survey.odt",
    )

    page = document.pages[0]
    assert not document.paged
    assert page.text == (
        "Seal survey\n\nMethod\n\nWe dived twice,  with:\n\nnets\nbuoys\nSite\tCount\nCove\t7\n\n"
        "In a frame"
    )
    assert [(h.level, h.text) for h in page.headings] == [(1, "Seal survey"), (2, "Method")]


def test_notes_comments_boxes_and_pictures_follow_their_paragraph(read: Read) -> None:
    note = (
        "<text:note><text:note-citation>1</text:note-citation>"
        f"<text:note-body>{p('Since 1931.')}</text:note-body></text:note>"
    )
    comment = (
        "<office:annotation><dc:creator>Ida</dc:creator><dc:date>2025-01-01T00:00:00</dc:date>"
        f"{p('Really?')}</office:annotation>"
    )
    box = (
        f"<draw:frame><draw:text-box>{p('In a box')}</draw:text-box><svg:title>Map</svg:title>"
        "<svg:desc>A seal asleep</svg:desc></draw:frame>"
    )
    field = "<text:title>Survey</text:title>"
    text = read(odf("text", p("Seals rest", note + comment + box + " here: " + field)), "a.odt")

    assert text.pages[0].text.split("\n") == [
        "Seals rest here: Survey", "", "Since 1931.", "Really?", "In a box", "Map", "A seal asleep",
    ]  # fmt: skip


def test_what_is_deleted_or_hidden_is_left_out(read: Read) -> None:
    styles = (
        '<office:automatic-styles><style:style style:name="T1">'
        '<style:text-properties text:display="none"/></style:style></office:automatic-styles>'
    )
    changes = f"<text:tracked-changes><text:deletion>{p('gone')}</text:deletion>"
    body = (
        changes
        + "</text:tracked-changes>"
        + p("kept", '<text:span text:style-name="T1">hidden</text:span><text:tab/>shown')
        + f'<text:section text:display="none">{p("secret")}</text:section>'
    )
    assert read(flat_odf("text", body, styles), "a.fodt").pages[0].text == "kept\tshown"


def test_headers_and_footers_are_read_once_and_charts_too(read: Read) -> None:
    styles = (
        "<office:master-styles><style:master-page>"
        f"<style:header>{p('Harbour office')}</style:header>"
        f"<style:header-left>{p('Harbour office')}</style:header-left>"
        f"<style:footer>{p('- <text:page-number>12</text:page-number> -')}</style:footer>"
        "</style:master-page></office:master-styles>"
    )
    chart = (
        "<office:document-content xmlns:office='o' xmlns:text='t' xmlns:chart='c'><office:body>"
        "<office:chart><chart:title><text:p>Seals a year</text:p></chart:title></office:chart>"
        "</office:body></office:document-content>"
    )
    body = p("Body", '<draw:frame><draw:object xlink:href="./Object 1"/></draw:frame>')
    data = odf("text", body, styles, {"Object 1/content.xml": chart})

    assert read(data, "a.odt").pages[0].text == "Harbour office\n\nBody\n\nSeals a year"


def test_sheets_are_pages_and_repeats_are_not_made(read: Read) -> None:
    note = (
        f"<office:annotation><dc:creator>Ida</dc:creator>{p('counted twice')}</office:annotation>"
    )
    first = (
        '<table:table table:name="Sites">'
        + row("Site", "Count")
        + '<table:table-row table:number-rows-repeated="1048000">'
        + f"<table:table-cell>{note}{p('Cove')}</table:table-cell>"
        + '<table:table-cell table:number-columns-repeated="16000" office:value="7.0">'
        + f"{p('7,0 %')}</table:table-cell></table:table-row></table:table>"
    )
    document = read(
        odf("spreadsheet", first + f'<table:table table:name="Empty">{row("")}</table:table>'),
        "a.ods",
    )

    assert document.paged
    assert [page.text for page in document.pages] == [
        "Sites\n\nSite\tCount\nCove\t7,0 %\ncounted twice",
        "Empty",
    ]
    assert [h.text for h in document.pages[0].headings] == ["Sites"]


def test_slides_are_pages_title_first_notes_last(read: Read) -> None:
    def frame(kind: str, *lines: str) -> str:
        text = "".join(p(line) for line in lines)
        return (
            f'<draw:frame presentation:class="{kind}"><draw:text-box>{text}</draw:text-box>'
            "</draw:frame>"
        )

    styles = (
        '<office:automatic-styles><style:page-layout style:name="L"><style:page-layout-properties'
        ' fo:page-width="25.4cm" fo:page-height="10in"/></style:page-layout>'
        '</office:automatic-styles><office:master-styles><style:master-page style:name="M"'
        f' style:page-layout-name="L">{frame("outline", "Click to edit")}'
        f"{frame('footer', 'Confidential')}"
        + frame("footer", "<presentation:footer>x</presentation:footer>")
        + "</style:master-page></office:master-styles>"
    )
    notes = f"<presentation:notes>{frame('notes', 'Say hello')}{frame('page-number', '1')}"
    group = f"<draw:g><draw:custom-shape>{p('Deep inside')}</draw:custom-shape></draw:g>"
    slides = (
        '<draw:page draw:master-page-name="M">'
        + frame("outline", "First", "Second")
        + frame("title", "Seal survey")
        + group
        + notes
        + '</presentation:notes></draw:page><draw:page draw:master-page-name="M">'
        + f"<office:annotation>{p('Cut this')}</office:annotation></draw:page>"
    )
    for data in (odf("presentation", slides, styles), flat_odf("presentation", slides, styles)):
        document = read(data, "noname")
        first, second = document.pages
        assert document.paged
        assert first.text == (
            "Seal survey\n\nFirst\nSecond\n\nDeep inside\n\nConfidential\n\nSay hello"
        )
        assert (first.width, first.height) == (720, 720)
        assert [h.text for h in first.headings] == ["Seal survey"]
        assert (second.text, [h.text for h in second.headings]) == ("Cut this", [""])


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [("text-template", "a.ott", "Letter"), ("graphics", "a.odg", "Letter")],
)
def test_templates_and_drawings_are_read_too(read: Read, kind: str, name: str, text: str) -> None:
    body = (
        p("Letter") if kind.startswith("text") else f"<draw:page><draw:g/>{p('Letter')}</draw:page>"
    )
    assert read(odf(kind, body), name).pages[0].text == text


LOCKED = "<m:manifest xmlns:m='m'><m:file-entry><m:encryption-data/></m:file-entry></m:manifest>"
ENTITIES = "<!DOCTYPE x [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;'>]><x>&b;</x>"
OUTSIDE = "<!DOCTYPE x SYSTEM 'http://127.0.0.1:9/x.dtd'><office:x xmlns:office='o'/>"


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"META-INF/manifest.xml": LOCKED}, "unsupported_media"),
        ({"content.xml": ENTITIES}, "corrupt"),
        ({"content.xml": "<office:body><text:p>cut off"}, "corrupt"),
        ({"content.xml": "<x>" + "a" * 40 * MIB + "</x>"}, "limit_memory"),
        ({"content.xml": "<x><body>" + "<p>" * 200_000 + "deep"}, "corrupt"),
    ],
    ids=["locked", "entities", "cut off", "bomb", "deep"],
)
def test_hostile_documents_end_with_a_code(
    tmp_path: Path, parts: dict[str, str], code: str
) -> None:
    path = tmp_path / "stored"
    path.write_bytes(odf("text", p("x"), parts=dict(parts)))
    with pytest.raises(ReadError) as error:
        read_in_sandbox(path, "a.odt", limits=Limits(seconds=20))
    assert error.value.code == code


def test_a_named_document_type_is_harmless_and_a_missing_part_is_not(read: Read) -> None:
    assert (
        read(odf("text", p("x"), parts={"META-INF/manifest.xml": OUTSIDE}), "a.odt").pages[0].text
    )
    with pytest.raises(ReadError) as error:
        read(package({"mimetype": "application/vnd.oasis.opendocument.text"}), "a.odt")
    assert error.value.code == "corrupt"


def test_a_huge_count_of_spaces_and_deep_nesting_stay_small(read: Read) -> None:
    body = p("a<text:s text:c='999999999'/>b") + "<text:section>" * 50_000 + p("bottom")
    data = odf("text", body + "</text:section>" * 50_000)
    assert read(data, "a.odt").pages[0].text.split() == ["a", "b", "bottom"]
