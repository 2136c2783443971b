"""Images in documents: which are found, where, and what is told of them."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from email.message import EmailMessage
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from narwhal.ingest.detect import detect
from narwhal.ingest.document import EmbeddedImage, Picture
from narwhal.ingest.extractors import Source
from narwhal.ingest.limits import MIB, Limits, draw_in_sandbox
from narwhal.ingest.rendering import Wanted, draw
from tests.ingest.files import package, paragraph, pdf, pptx, relationships, shape, text_at
from tests.ingest.test_rendering import opened, quarters, saved

PNG = saved(quarters(64, 48), "PNG")
JPEG = saved(quarters(640, 480), "JPEG")
Made = tuple[list[EmbeddedImage], list[Picture]]


def found(
    tmp_path: Path,
    data: bytes,
    name: str,
    *,
    pages: tuple[int, ...] = (),
    known: tuple[int, ...] = (),
) -> Made:
    path = tmp_path / name
    path.write_bytes(data)
    wanted = Wanted(pages, True, 144, 4_000_000, known)
    with path.open("rb") as file:
        made = list(draw(Source(file, detect(path, name)), wanted, Limits()))
    images = [image for image in made if isinstance(image, EmbeddedImage)]
    pictures = [picture for picture in made if isinstance(picture, Picture)]
    # each is followed by its picture, which reads no file again
    shown = [p for p in pictures if p.kind == "image"]
    if not name.endswith((".jpg", ".tif")):
        assert [image.idx for image in images] == [picture.image for picture in shown]
    for one, other in pairwise(made):
        if isinstance(one, EmbeddedImage) and isinstance(other, Picture) and other.kind == "image":
            assert other.image == one.idx
    return images, pictures


def anchored(relation: str, description: str = "") -> str:
    return (
        f'<w:r><w:drawing><wp:inline xmlns:wp="w"><wp:docPr id="1" descr="{description}"/>'
        f'<pic:pic xmlns:pic="p"><a:blip xmlns:a="a" xmlns:r="r" r:embed="{relation}"/></pic:pic>'
        "</wp:inline></w:drawing></w:r>"
    )


def a_docx(cover: bytes | None = None) -> bytes:
    body = (
        paragraph("Walruses rest on the ice.", extra=anchored("i1", "A walrus on a floe"))
        + paragraph("Pelicans fly.", extra=anchored("i2"))
        + paragraph("Nothing here.", extra=anchored("gone"))
    )
    parts: dict[str, str | bytes] = {
        "[Content_Types].xml": "<Types/>",
        "_rels/.rels": relationships(
            ("rId1", "officeDocument", "word/document.xml"),
            *([("rId2", "thumbnail", "docProps/thumbnail.jpeg")] if cover else []),
        ),
        "word/document.xml": f'<w:document xmlns:w="w"><w:body>{body}</w:body></w:document>',
        "word/_rels/document.xml.rels": relationships(
            ("i1", "image", "media/a.png"), ("i2", "image", "media/b.jpg"),
            ("gone", "image", "media/gone.png"),
        ),
        "word/media/a.png": PNG,
        "word/media/b.jpg": JPEG,
        "word/media/unused.png": PNG,
    }  # fmt: skip
    if cover:
        parts["docProps/thumbnail.jpeg"] = cover
    return package(parts)


def test_images_of_a_word_file_with_the_text_around_them(tmp_path: Path) -> None:
    images, pictures = found(tmp_path, a_docx(), "a.docx")
    first, second = images
    assert (first.width, first.height, first.mime) == (64, 48, "image/png")
    assert (first.page, first.box) == (None, None)
    assert first.description == "A walrus on a floe"
    assert first.sha256 == hashlib.sha256(PNG).hexdigest()
    assert (second.width, second.height, second.mime) == (640, 480, "image/jpeg")
    assert "Walruses rest on the ice." in second.context
    assert "Nothing here." in second.context
    assert opened(pictures[0]).size == (64, 48)
    small = pictures[-1]  # of the largest
    assert (small.kind, small.width, small.height) == ("thumbnail", 300, 225)


def test_what_is_known_is_not_told_again_and_the_thumbnail_is_the_same(tmp_path: Path) -> None:
    all_images, all_pictures = found(tmp_path, a_docx(), "a.docx")
    images, pictures = found(tmp_path, a_docx(), "a.docx", known=(0,))
    assert images == all_images[1:]
    assert pictures == all_pictures[1:]


def test_a_documents_own_thumbnail_comes_first(tmp_path: Path) -> None:
    cover = saved(quarters(90, 120), "JPEG")
    _, pictures = found(tmp_path, a_docx(cover), "a.docx")
    assert [(p.width, p.height) for p in pictures if p.kind == "thumbnail"] == [(90, 120)]


def test_images_of_slides_have_their_place(tmp_path: Path) -> None:
    picture = (
        '<p:pic><p:nvPicPr><p:cNvPr id="2" descr="A chart of tides"/></p:nvPicPr>'
        '<p:blipFill><a:blip xmlns:a="a" xmlns:r="r" r:embed="i1"/></p:blipFill>'
        '<p:spPr><a:xfrm xmlns:a="a"><a:off x="{}" y="{}"/><a:ext cx="{}" cy="{}"/></a:xfrm>'
        "</p:spPr></p:pic>"
    ).format(*(round(12_700 * value) for value in (72, 54, 360, 270)))
    data = pptx(shape("First slide"), shape("High water") + picture)
    path = tmp_path / "made.pptx"
    path.write_bytes(data)
    with zipfile.ZipFile(path, "a") as archive:  # the second slide is stored first
        archive.writestr(
            "ppt/slides/_rels/slide1.xml.rels", relationships(("i1", "image", "../media/a.png"))
        )
        archive.writestr("ppt/media/a.png", PNG)
        size = archive.read("ppt/presentation.xml").decode().split('cx="')[1]
    width = int(size.split('"')[0])
    (image,), _ = found(tmp_path, path.read_bytes(), "a.pptx")
    assert (image.page, image.description) == (2, "A chart of tides")
    assert "High water" in image.context
    assert image.box is not None
    assert image.box[0] == pytest.approx(72 * 12_700 / width, abs=1e-3)
    assert image.box[2] - image.box[0] == pytest.approx(360 * 12_700 / width, abs=1e-3)


def with_image(matrix: str, rotate: int = 0) -> bytes:
    raster = "80" * (40 * 40)
    body = (
        "<</Type/XObject/Subtype/Image/Width 40/Height 40/ColorSpace/DeviceGray"
        f"/BitsPerComponent 8/Filter/ASCIIHexDecode/Length {len(raster)}>>"
        f"stream\n{raster}\nendstream"
    )
    content = text_at(60, 610, "Above it stands a walrus") + f"q {matrix} cm /Im Do Q"
    data = pdf(content, page_extra=f"/Rotate {rotate}", objects={100: body})
    # the helper knows of fonts only
    return data.replace(b"/Resources<<", b"/Resources<</XObject<</Im 100 0 R>>", 1)


def test_images_of_a_pdf_with_their_box_and_the_text_beside_them(tmp_path: Path) -> None:
    images, pictures = found(tmp_path, with_image("300 0 0 200 60 400"), "a.pdf", pages=(1,))
    (image,) = images
    assert (image.idx, image.page, image.width, image.height) == (0, 1, 40, 40)
    assert image.box == pytest.approx((0.1, 0.25, 0.6, 0.5), abs=1e-3)
    assert "walrus" in image.context
    cut, page, _ = pictures
    assert (cut.kind, page.kind) == ("image", "page")
    assert (cut.width, cut.height) == (600, 400)
    assert opened(cut).resize((1, 1)).getpixel((0, 0)) == pytest.approx((128, 128, 128), abs=4)


def test_scans_of_the_whole_page_and_specks_are_left_out(tmp_path: Path) -> None:
    for matrix in ("600 0 0 800 0 0", "8 0 0 8 60 400"):
        assert found(tmp_path, with_image(matrix), "a.pdf", pages=(1,))[0] == []


def test_images_inside_of_html_and_nothing_that_is_fetched(tmp_path: Path) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    data = (
        f"<html><body><p>Before it.</p><img alt='A &amp; B' src='{uri}'><p>After it.</p>"
        "<img src='https://example.com/x.png'><img src='file:///etc/passwd'>"
        "<img src='data:image/png;base64,@@@'><img src='data:text/html,x'></body></html>"
    )
    images, _ = found(tmp_path, data.encode(), "a.html")
    assert [(i.description, i.context) for i in images] == [("A & B", "Before it. After it.")]


def test_images_of_a_mail(tmp_path: Path) -> None:
    mail = EmailMessage()
    mail["Subject"], mail["From"] = "Tides", "a@example.com"
    mail.set_content("See the picture of high water.")
    mail.add_attachment(JPEG, maintype="image", subtype="jpeg", filename="tide.jpg")
    (image,), pictures = found(tmp_path, mail.as_bytes(), "a.eml")
    assert (image.width, image.description) == (640, "tide.jpg")
    assert image.context == "See the picture of high water."
    assert [p.kind for p in pictures] == ["image", "thumbnail"]


def test_images_of_a_book(tmp_path: Path) -> None:
    chapter = "<html><body><p>The whale.</p><img src='../images/w.png' alt='whale'/></body></html>"
    data = package(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": "<container><rootfiles><rootfile full-path='o/b.opf'/>"
            "</rootfiles></container>",
            "o/b.opf": "<package><manifest><item id='c' href='t/c.xhtml'/></manifest>"
            "<spine><itemref idref='c'/></spine></package>",
            "o/t/c.xhtml": chapter,
            "o/images/w.png": PNG,
        }
    )
    (image,), _ = found(tmp_path, data, "a.epub")
    assert (image.description, image.context) == ("whale", "The whale.")


def photo() -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Acme\x00", "Walrus 7", 6
    exif.get_ifd(0x8769).update(
        {0x9003: "2026:11:22 10:20:30", 0x9011: "+02:00", 0x829A: 0.005, 0x829D: 2.8, 0x8827: 200}
    )
    exif.get_ifd(0x8825).update(
        {1: "S", 2: (54.0, 30.0, 0.0), 3: "W", 4: (7.0, 15.0, 36.0), 5: b"\x00", 6: 12.5}
    )
    return saved(quarters(64, 48), "JPEG", exif=exif)


def test_a_photo_tells_its_facts_and_its_place(tmp_path: Path) -> None:
    (image,), _ = found(tmp_path, photo(), "a.jpg", pages=(1,))
    assert (image.idx, image.page, image.box) == (0, 1, (0, 0, 1, 1))
    assert (image.width, image.height) == (48, 64)  # as it is seen
    assert image.facts == {
        "make": "Acme", "model": "Walrus 7", "taken_at": "2026-11-22T10:20:30+02:00",
        "exposure_s": 0.005, "f_number": 2.8, "iso": 200.0,
    }  # fmt: skip
    assert image.location == (-54.5, -7.26, 12.5)


@pytest.mark.parametrize("wrong", [{2: (540.0, 0.0, 0.0)}, {2: (1.0, 2.0)}, {4: (400.0, 0.0, 0.0)}])
def test_a_place_that_is_none_is_left_out(tmp_path: Path, wrong: dict[int, object]) -> None:
    (image,), _ = found(tmp_path, _with(wrong), "a.jpg", pages=(1,))
    assert image.location is None
    assert image.facts["make"] == "Acme"


def _with(tags: dict[int, object]) -> bytes:
    image = Image.open(io.BytesIO(photo()))
    exif = image.getexif()
    exif.get_ifd(0x8825).update(tags)
    return saved(image, "JPEG", exif=exif)


def test_broken_images_do_not_spoil_the_others(tmp_path: Path) -> None:
    data = a_docx()
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, PNG[:60] if name.endswith("a.png") else old.read(name))
    images, _ = found(tmp_path, out.getvalue(), "a.docx")
    assert [image.idx for image in images] == [1]


def test_in_the_sandbox(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(a_docx())
    wanted = {"pages": [], "thumbnail": True, "dpi": 144, "most_pixels": 4_000_000, "images": [0]}
    made = list(
        draw_in_sandbox(path, "a.docx", None, wanted, Limits(seconds=30, memory_bytes=512 * MIB))
    )
    assert [getattr(item, "kind", "found") for item in made] == ["found", "image", "thumbnail"]
