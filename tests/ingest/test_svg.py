"""SVG: its words, in the order of the file; what is hidden, run or fetched is none of them."""

from __future__ import annotations

from pathlib import Path

from tests.ingest.conftest import Read

DRAWING = """<?xml version="1.0"?>
<!DOCTYPE svg [<!ENTITY ns "http://x.test/"><!ENTITY secret SYSTEM "file://{secret}">]>
<svg:svg xmlns:svg="http://www.w3.org/2000/svg" width="20mm" height="50px">
  <svg:title>Tide tables</svg:title><svg:desc>&ns; &secret; of the coast</svg:desc>
  <svg:style>text {{ fill: red }}</svg:style><svg:script>alert("run")</svg:script>
  <svg:metadata>made by a program</svg:metadata>
  <svg:g display="none"><svg:text>hidden</svg:text></svg:g>
  <svg:text style="display: none">hidden too</svg:text>
  <svg:text x="1" y="2">High <svg:tspan font-weight="bold">wa</svg:tspan>ter</svg:text>
  <svg:text><svg:tspan x="1" y="3">Monday</svg:tspan><svg:tspan x="1" dy="9">6:42</svg:tspan>
  </svg:text><svg:path d="M0 0L9 9"/>
  <svg:foreignObject><p xmlns="h">Low</p><p xmlns="h">water</p></svg:foreignObject>
</svg:svg>"""


def test_the_words_of_a_drawing_are_read(read: Read, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("top secret")
    document = read(DRAWING.format(secret=secret).encode(), "a.svg")
    (page,) = document.pages
    assert page.text.split("\n") == [
        "Tide tables",
        "of the coast",
        "High water",
        "Monday",
        "6:42",
        "Low",
        "water",
    ]
    assert page.width is not None
    assert (round(page.width, 2), page.height, document.paged) == (56.69, 50.0, True)


def test_a_drawing_without_words_has_no_text(read: Read) -> None:
    paths = b"<svg width='100%'><path d='M0 0L9 9'/><text> </text></svg>"
    (page,) = read(paths, "a.svg").pages
    assert (page.text, page.width, page.needs_ocr) == ("", None, False)


def test_a_broken_drawing_is_read_up_to_where_it_breaks(read: Read) -> None:
    broken = b"<svg><text>first</text><text>second</text><text>thi"
    assert read(broken, "a.svg").pages[0].text == "first\nsecond\nthi"
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    bomb = f'<!DOCTYPE svg [<!ENTITY l0 "ha">{laughs}]><svg><text>a &l9; b</text></svg>'
    assert read(bomb.encode(), "a.svg").pages[0].text == "a b"
