from __future__ import annotations

from pathlib import Path

import pytest

from narwhal.ingest.document import ReadError
from narwhal.ingest.limits import MIB, Limits, read_in_sandbox
from tests.ingest.conftest import Read
from tests.ingest.files import package

CONTAINER = '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'
NCX = (
    "<ncx><navMap><navPoint><navLabel><text>The  Storm</text></navLabel>"
    '<content src="two%20b.xhtml#top"/></navPoint></navMap></ncx>'
)


def chapter(body: str, title: str = "Window") -> str:
    return (
        '<?xml version="1.0"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml">'
        f"<head><title>{title}</title></head><body>{body}</body></html>"
    )


def epub(chapters: dict[str, str], parts: dict[str, str | bytes] | None = None) -> bytes:
    """A book whose manifest lists the chapters backwards; the spine has their order."""
    items = "".join(
        f'<item id="c{i}" href="{name}" media-type="application/xhtml+xml"/>'
        for i, name in enumerate(chapters)
    )
    spine = "".join(f'<itemref idref="c{i}"/>' for i in reversed(range(len(chapters))))
    return package(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": CONTAINER,
            "OPS/book.opf": '<package xmlns:dc="dc"><metadata><dc:title>Log of the\n Ida</dc:title>'
            '</metadata><manifest><item id="ncx" href="toc.ncx" '
            f'media-type="application/x-dtbncx+xml"/>{items}</manifest>'
            f'<spine toc="ncx"><itemref idref="missing"/>{spine}</spine></package>',
            "OPS/toc.ncx": NCX,
            **{f"OPS/{name.replace('%20', ' ')}": text for name, text in chapters.items()},
            **(parts or {}),
        }
    )


def test_chapters_come_in_the_order_of_the_spine_under_their_titles(read: Read) -> None:
    book = epub(
        {
            "three.xhtml": chapter("<p>No heading here &amp; none listed</p>", "Third &amp; last"),
            "two%20b.xhtml": chapter("<p>Wind rose.</p><img alt='A wave' src='w.png'/>"),
            "one.xhtml": chapter("<h1>Calm</h1><p>We&#160;sailed.</p><h2>Noon</h2><p>Hot.</p>"),
        }
    )
    document = read(book, "log.epub")

    page = document.pages[0]
    assert not document.paged
    assert page.text == (
        "Log of the Ida\n\nCalm\n\nWe\xa0sailed.\n\nNoon\n\nHot.\n\nWind rose.\n\nA wave\n\n"
        "No heading here & none listed"
    )
    assert [(h.level, h.text) for h in page.headings] == [
        (1, "Log of the Ida"),
        (2, "Calm"),
        (3, "Noon"),
        (2, "The Storm"),
        (2, "Third & last"),
    ]
    assert [page.text[h.start :].split()[0] for h in page.headings][:4] == [
        "Log", "Calm", "Noon", "Wind",
    ]  # fmt: skip


def encryption(algorithm: str) -> dict[str, str | bytes]:
    return {
        "META-INF/encryption.xml": '<encryption xmlns:e="e"><e:EncryptedData>'
        f'<e:EncryptionMethod Algorithm="{algorithm}"/></e:EncryptedData></encryption>'
    }


def test_a_locked_book_is_refused_and_garbled_fonts_are_no_lock(read: Read) -> None:
    chapters = {"one.xhtml": chapter("<p>Calm</p>")}
    fonts = epub(chapters, encryption("http://www.idpf.org/2008/embedding"))
    assert read(fonts, "a.epub").pages[0].text.endswith("Calm")

    locked = epub(chapters, encryption("http://www.w3.org/2001/04/xmlenc#aes256-cbc"))
    with pytest.raises(ReadError) as error:
        read(locked, "a.epub")
    assert error.value.code == "unsupported_media"


ENTITIES = "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/hostname'>]><package>&a;</package>"


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"OPS/book.opf": ENTITIES}, "corrupt"),
        ({"OPS/book.opf": "<package><manifest>"}, "corrupt"),
        ({"META-INF/container.xml": "<rootfile full-path='../../etc/passwd'/>"}, "corrupt"),
        ({"META-INF/container.xml": "<rootfile/>"}, "corrupt"),
        ({"OPS/one.xhtml": "<p>" + "a" * 40 * MIB}, "limit_memory"),
    ],
    ids=["entities", "cut off", "outside", "no book", "bomb"],
)
def test_hostile_books_end_with_a_code(
    tmp_path: Path, parts: dict[str, str | bytes], code: str
) -> None:
    path = tmp_path / "stored"
    path.write_bytes(epub({"one.xhtml": chapter("x")}, parts))
    with pytest.raises(ReadError) as error:
        read_in_sandbox(path, "a.epub", limits=Limits(seconds=20))
    assert error.value.code == code


def test_a_broken_table_of_contents_or_chapter_costs_only_itself(read: Read) -> None:
    chapters = {"two.xhtml": "<p>unclosed <b>words &nope;", "one.xhtml": chapter("<p>Calm")}
    text = read(epub(chapters, {"OPS/toc.ncx": "<ncx><navMap>"}), "a.epub").pages[0].text
    assert text == "Log of the Ida\n\nCalm\n\nunclosed words &nope;"


def test_a_chapter_listed_many_times_is_read_once(read: Read) -> None:
    spine = '<itemref idref="a"/>' * 10_000
    item = '<item id="a" href="a.html"/>'
    book = f"<package><manifest>{item}</manifest><spine>{spine}</spine></package>"
    text = read(epub({}, {"OPS/book.opf": book, "OPS/a.html": "<p>once"}), "a.epub").pages[0].text
    assert text == "once"


def test_a_book_is_known_by_its_mimetype_or_by_its_name(read: Read) -> None:
    chapters = {"one.xhtml": chapter("<p>Calm</p>")}
    assert read(epub(chapters), "noname").pages[0].text.endswith("Calm")
    nameless = epub(chapters, {"mimetype": ""})
    assert read(nameless, "a.epub").pages[0].text.endswith("Calm")
