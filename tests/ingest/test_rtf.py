# ruff: noqa: RUF001
from __future__ import annotations

from pathlib import Path

import pytest

from narwhal.ingest.limits import Limits, read_in_sandbox
from tests.ingest.conftest import Read

FONTS = (
    r"{\fonttbl{\f0\froman\fcharset0 Times;}{\f1\fcharset204{\*\falt Courier} Arial Cyr;}"
    r"{\f2\fnil\fcharset128 Mincho;}{\f3\fcharset1 Own;}{\f4\fcharset161 Greek;}}"
)
STYLES = (
    r"{\stylesheet{Normal;}{\s1\b heading 1;}{\s2\outlinelevel1 \'dcberschrift 2;}{\s5 Title;}"
    r"{\*\cs9 \additive Heading 3;}}"
)


def rtf(body: str | bytes, head: str = r"\ansi\ansicpg1252\deff0") -> bytes:
    """An RTF file with tables of fonts and styles."""
    data = body if isinstance(body, bytes) else body.encode("ascii")
    return rf"{{\rtf1{head}{FONTS}{STYLES}".encode("ascii") + data + b"}"


def text_of(read: Read, body: str | bytes, head: str = r"\ansi\ansicpg1252\deff0") -> str:
    return read(rtf(body, head), "a.rtf").pages[0].text


def test_headings_come_from_styles_and_outline_levels(read: Read) -> None:
    page = read(
        rtf(
            r"\pard\s1 Survey\par\pard\s2 Method\par\pard\plain We dived.\par second\par"
            r"\pard\outlinelevel2 Depth\par{\info{\title no text}{\author Ida}}"
        ),
        "a.rtf",
    ).pages[0]
    assert page.text == "Survey\n\nMethod\n\nWe dived.\n\nsecond\n\nDepth"
    assert [(h.level, h.text) for h in page.headings] == [
        (1, "Survey"),
        (2, "Method"),
        (3, "Depth"),
    ]


@pytest.mark.parametrize(
    ("body", "head", "text"),
    [
        (rb"Gr\'f6\'dfe 5 \'80 \'96 fin", r"\ansi\ansicpg1252", "Größe 5 € – fin"),
        ("Größe".encode("cp1252"), r"\ansi", "Größe"),
        (rb"\f1\'d2\'fe\'eb\'e5\'ed\'fc {\f0 caf\'e9} \'d2", r"\ansi", "Тюлень café Т"),
        (rb"\f2\'83A\'83\\\'82\'a0", r"\ansi", "アソあ"),
        (rb"\f3\'d2\'fe", r"\ansi\ansicpg1251", "Тю"),
        (rb"\'d2\'fe", r"\ansi\ansicpg1251\deff3", "Тю"),
        (rb"\f4\'e1\'e2\plain\'e1", r"\ansi\deff0", "αβá"),
        (rb"Gr\'9a\'a7e", r"\mac", "Größe"),
        (rb"\u8364? \u-10179?\u-8704? {\uc2\u20320\'c4\'e3\u22909 ab}!", r"\ansi", "€ 😀 你好!"),
        (rb"{\uc0\u233\u233}{\u233\'e9}\u233 e\u233{x}", r"\ansi", "éééééx"),
        (rb"a\u61623?b", r"\ansi", "ab"),
        (rb"\{x\}\\ \~y\_z sea\-weed", r"\ansi", "{x}\\ \xa0y-z seaweed"),
        (rb"\ldblquote q\rdblquote\emdash x", r"\ansi", "“q”—x"),
        (rb"\ansicpg99999 x", r"\ansi", "x"),
    ],
)  # fmt: skip
def test_codepages_and_unicode(read: Read, body: bytes, head: str, text: str) -> None:
    assert text_of(read, b"\\pard " + body, head) == text


def test_tables_are_lines_of_cells_and_single_cells_are_paragraphs(read: Read) -> None:
    row = r"\trowd\cellx1\cellx2\pard\intbl {0}\cell\pard\intbl {1}\cell\row "
    frame = r"\trowd\cellx1\pard\intbl In a frame\cell\row "
    body = row.format(r"Depth\par m", "40") + row.format("Site", r"\b Cove\b0 ") + frame
    text = text_of(read, body + r"\pard after\par")
    assert text == "Depth\nm\t40\nSite\tCove\n\nIn a frame\n\nafter"


def test_notes_boxes_and_comments_follow_headers_come_last(read: Read) -> None:
    body = (
        r"{\header Harbour office\par}{\footer - {\field{\*\fldinst PAGE}{\fldrslt 12}} -}"
        r"\pard Seals rest{\super\chftn{\footnote\pard\chftn  Since 1931.}}"
        r"{\*\atnid I}{\*\atnauthor Ida}{\*\annotation{\*\atndate 1}\pard Really?}"
        r"{\shp{\*\shpinst{\sp{\sn wzName}{\sv no}}{\shptxt In a box\par}}{\shprslt In a box}}"
        r" here.\par see {\field{\*\fldinst HYPERLINK \"http://x\"}{\fldrslt the map}}"
    )
    assert text_of(read, body).split("\n") == [
        "Seals rest here.", "", "Since 1931.", "Really?", "In a box", "", "see the map", "",
        "Harbour office",
    ]  # fmt: skip


def test_pictures_data_deleted_and_hidden_text_are_left_out(read: Read) -> None:
    body = (
        rb"\pard kept {\pict\wmetafile8 d7cd{\*\blipuid 00}\bin4 }}}}ff}{\*\unknown{\b gone}}"
        rb"{\v hidden}{\deleted gone}\v off\v0 on{\object{\*\objdata 0102}{\result shown}}"
        rb"{\listtext\tab 1.}{\i0\*\cs9 not first}"
    )
    assert text_of(read, body) == "kept onshownnot first"


def test_lists_stay_together(read: Read) -> None:
    body = r"\pard{\listtext 1.}\ls1 nets\par{\listtext 2.}buoys\par\pard after"
    assert text_of(read, body) == "nets\nbuoys\n\nafter"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (rb"{\rtf1 unclosed {\b bold", "unclosed bold"),
        (rb"{\rtf1 a}}}}{ after the end", "a"),
        (rb"{\rtf1 cut \'4", "cut 4"),
        (rb"{\rtf1 cut {\pict 0102", "cut"),
        (rb"{\rtf1 a{\*}{\*\bin9999999999 x}", "a"),
        (rb"{\rtf1\u-99999999 ?\u\uc-5 x\fs99999999999 y", None),
        (rb"{\rtf1 \cell\row\row\nestrow z", "z"),
        (rb"{\rtf1\pard a\x00b}", "ab"),
        (b"{\\rtf1 " + b"{" * 200_000 + b"deep", "deep"),
        (b"{\\rtf1 a{\\*\\x " + b"{" * 200_000 + b"deep", "a"),
        (b"{\\rtf1 " + b"{\\footnote " * 2_000 + b"deep", "deep"),
    ],
)
def test_broken_files_give_what_they_hold(read: Read, data: bytes, text: str | None) -> None:
    found = read(data, "a.rtf").pages[0].text
    assert text is None or found == text


def test_a_flood_of_text_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "stored"
    path.write_bytes(rtf(rb"\u12345?" * 300_000))
    document = read_in_sandbox(path, "a.rtf", limits=Limits(characters=100_000))
    assert document.truncated_by == "limit_output"
    assert 90_000 < sum(len(page.text) for page in document.pages) <= 100_000
