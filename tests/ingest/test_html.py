from __future__ import annotations

import pytest

from tests.ingest.conftest import Read


def text_of(read: Read, html: str | bytes) -> str:
    data = html.encode() if isinstance(html, str) else html
    return read(data, "a.html").pages[0].text


def test_blocks_headings_lists_and_tables_become_lines(read: Read) -> None:
    page = read(
        b"""<!doctype html><title>Seals</title><h1>Seal <em>survey</em></h1><p>We  went
        out<br>early.<ul><li>boat<li>net</ul><table><tr><th>Site<th>Count<tr><td>Bay</td><td><p>4</p>
        </td></table><h2>Results</h2><pre>a
  b</pre>""",
        "a.html",
    ).pages[0]

    assert page.text == (
        "Seals\n\nSeal survey\n\nWe went out\nearly.\n\nboat\nnet\n\n"
        "Site\tCount\nBay\t4\n\nResults\n\na\nb"
    )
    assert [(h.level, h.text, page.text[h.start : h.start + 4]) for h in page.headings] == [
        (1, "Seal survey", "Seal"),
        (2, "Results", "Resu"),
    ]


@pytest.mark.parametrize(
    "hidden",
    [
        "<script>secret</script>",
        "<style>secret</style>",
        "<!-- secret -->",
        "<script>secret</script language>",
        "<script>'</scripty>secret'</script\n>",
        "<template>secret</template>",
        "<noscript>secret</noscript>",
        "<div hidden>secret</div>",
        '<div style="color:red; DISPLAY : none">secret</div>',
        '<p style="visibility:hidden">secret<p>',
        '<span style="font-size:0">secret</span>',
        '<i style="position:absolute;left:-9999px">secret</i>',
        '<b style="opacity:0">secret</b>',
        "<style>.x, .y{display:none}</style><div class='a x'>secret</div>",
        "<style>/* c */ #z { visibility: hidden }</style><section id=Z>secret</section>",
        "<div hidden><table><tr><td></div>secret</td></tr></table></div>",
        "<div hidden><p>sec<br>ret<div>secret</div></div>",
        "<dialog>secret</dialog>",
        '<input type="hidden" value="secret">',
    ],
)
def test_what_a_browser_would_not_show_is_not_read(read: Read, hidden: str) -> None:
    text = text_of(read, f"<body><p>before</p>{hidden}<p>after</p></body>")
    assert text.split() == ["before", "after"]


@pytest.mark.parametrize(
    "shown",
    [
        '<span style="opacity:0.5">word</span>',
        '<span style="font-size:0.9em">word</span>',
        "<style>@media print{.x{display:none}}</style><b class=x>word</b>",
        "<style>.x{color:red}</style><b class=x>word</b>",
        "<dialog open>word</dialog>",
        "<details><summary>word</summary></details>",
        "<img alt=word>",
        "w<!-- -->ord",
        "</div></p></b>word",
        "w&ocirc;rd".replace("ocirc", "#111"),
    ],
)
def test_what_a_browser_shows_is_read(read: Read, shown: str) -> None:
    assert text_of(read, f"<p>before</p>{shown}<p>after</p>").split() == ["before", "word", "after"]


@pytest.mark.parametrize(
    ("html", "charset"),
    [
        ("<meta charset=koi8-r><p>да", "koi8-r"),
        (
            '<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS"><p>表',
            "shift_jis",
        ),
        ('<?xml version="1.0" encoding="iso-8859-2"?><html><p>žluť', "iso8859-2"),
        ("<meta charset=utf-16><p>ü", "utf-8"),  # a claim that cannot be true
        ("<p>ü漢", "utf-16"),
    ],
)
def test_the_page_may_name_its_encoding(read: Read, html: str, charset: str) -> None:
    assert text_of(read, html.encode(charset)) == html.rpartition("<p>")[2]


def test_nesting_without_end_costs_no_stack(read: Read) -> None:
    assert text_of(read, "<div>" * 50_000 + "bottom" + "</div>" * 50_000) == "bottom"
