"""Text of pictures: read by OCR from what Pillow draws, whichever way it lies."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pypdfium2 as pdfium  # type: ignore[import-untyped]
import pytest
from PIL import Image, ImageDraw, ImageFont

from narwhal.ingest.detect import detect
from narwhal.ingest.document import Box, Page, ReadError, joined
from narwhal.ingest.extractors import Source, extract
from narwhal.ingest.limits import MIB, Limits, read_in_sandbox, read_pictures_in_sandbox
from narwhal.ingest.ocr import Seen, in_reading_order, read_pages
from tests.ingest.conftest import Read
from tests.ingest.files import pdf, text_at

LINES = ["Tides follow the moon", "and wind raises waves", "that break upon the shore"]
LIMITS = Limits(seconds=120, memory_bytes=1536 * MIB)


def drawn(lines: list[str], ink: str = "black", ground: str = "white") -> Image.Image:
    image = Image.new("RGB", (900, 120 * len(lines) + 80), ground)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=48)
    for number, line in enumerate(lines):
        pen.text((60, 60 + 120 * number), line, ink, font)
    return image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def ocr(tmp_path: Path, data: bytes, name: str) -> list[Page]:
    """Read a file as the stages do: first what it says of itself, then its pictures.

    In this process, where the models are loaded once.
    """
    path = tmp_path / name
    path.write_bytes(data)
    detected = detect(path, name)
    pages = {page.number: page for page in extract(path, detected).pages}
    with path.open("rb") as file:
        left = [page.number for page in pages.values() if page.needs_ocr]
        for page in read_pages(Source(file, detected), left):
            pages[page.number] = page
    return list(pages.values())


def words(text: str) -> list[str]:
    return text.lower().split()


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_picture_is_read_whichever_way_it_lies(tmp_path: Path, turns: int) -> None:
    image = drawn(LINES).rotate(90 * turns, expand=True)
    (page,) = ocr(tmp_path, saved(image, "PNG"), "a.png")
    assert words(page.text) == words(" ".join(LINES))
    assert (page.source, page.needs_ocr) == ("ocr", False)
    assert (page.width, page.height) == image.size
    # each box holds the ink of its line: of all that is dark, and nothing else
    assert len(page.lines) == len(LINES)
    for line in page.lines:
        x0, y0, x1, y1 = _pixels(line.box, image)
        inside = image.convert("L").crop((x0, y0, x1, y1))
        assert inside.getextrema()[0] < 64
    without = image.copy()
    for line in page.lines:
        x0, y0, x1, y1 = _pixels(line.box, image)
        without.paste("white", (x0 - 8, y0 - 8, x1 + 8, y1 + 8))
    assert without.convert("L").getextrema()[0] > 128


def _pixels(box: Box, image: Image.Image) -> tuple[int, int, int, int]:
    return (
        round(box[0] * image.width), round(box[1] * image.height),
        round(box[2] * image.width), round(box[3] * image.height),
    )  # fmt: skip


@pytest.mark.parametrize("turns", [0, 2])
def test_long_lines_are_read_whichever_way_they_lie(tmp_path: Path, turns: int) -> None:
    image = Image.new("RGB", (1700, 480), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=32)
    for number in range(5):
        line = f"{number} {LINES[0]} {LINES[1]} {LINES[2]} in every harbour of the coast"
        pen.text((60, 60 + 70 * number), line, "black", font)
    (page,) = ocr(tmp_path, saved(image.rotate(90 * turns), "PNG"), "a.png")
    read = words(page.text)
    assert [word for word in read if word.isdigit()] == ["0", "1", "2", "3", "4"]
    assert read.count("harbour") == 5


def test_the_camera_says_which_way_is_up(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    image = drawn(LINES)
    data = saved(image.rotate(90, expand=True), "JPEG", exif=exif)
    (page,) = ocr(tmp_path, data, "a.jpg")
    assert words(page.text) == words(" ".join(LINES))
    assert (page.width, page.height) == image.size
    assert page.lines[0].box[1] < page.lines[1].box[1] < page.lines[2].box[1]


@pytest.mark.parametrize("ink", ["black", "white"])
def test_transparent_pictures_are_laid_on_a_ground_that_shows_them(
    tmp_path: Path, ink: str
) -> None:
    image = drawn(LINES, ink="white", ground="black")
    clear = Image.new("RGBA", image.size, ink)
    clear.putalpha(image.convert("L"))
    (page,) = ocr(tmp_path, saved(clear, "PNG"), "a.png")
    assert words(page.text) == words(" ".join(LINES))


def test_every_page_of_a_tiff_is_a_page(tmp_path: Path) -> None:
    images = [drawn([line]) for line in LINES]
    data = saved(images[0], "TIFF", save_all=True, append_images=images[1:])
    assert [words(page.text) for page in ocr(tmp_path, data, "a.tif")] == [*map(words, LINES)]


def test_of_an_animation_the_first_picture_counts(tmp_path: Path) -> None:
    images = [drawn([line]) for line in LINES]
    data = saved(images[0], "GIF", save_all=True, append_images=images[1:])
    assert [words(page.text) for page in ocr(tmp_path, data, "a.gif")] == [words(LINES[0])]


def test_a_page_that_is_a_picture_is_read_and_one_of_text_is_not(
    read: Read, tmp_path: Path
) -> None:
    scanned = saved(drawn(LINES), "PDF", resolution=100)
    (page,) = read(scanned, "scan.pdf").pages
    assert (page.text, page.needs_ocr) == ("", True)
    (found,) = ocr(tmp_path, scanned, "scan.pdf")
    assert words(found.text) == words(" ".join(LINES))
    assert (found.width, found.height) == (page.width, page.height)

    (typed,) = read(pdf(text_at(60, 720, "A line that is long enough to be a text")), "a.pdf").pages
    assert not typed.needs_ocr
    (blank,) = read(pdf(""), "a.pdf").pages
    assert not blank.needs_ocr


def illustrated(image: Image.Image, *texts: str) -> bytes:
    """A page of typed lines with a picture in its lower half."""
    lines = "".join(text_at(60, 720 - 30 * n, text) for n, text in enumerate(texts))
    document = pdfium.PdfDocument(pdf(lines))
    page = document[0]
    picture = pdfium.PdfImage.new(document)
    picture.set_bitmap(pdfium.PdfBitmap.from_pil(image))
    picture.set_matrix(pdfium.PdfMatrix().scale(480, 240).translate(60, 100))
    page.insert_obj(picture)
    page.gen_content()
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def test_a_picture_of_text_beside_text_is_read_too(read: Read, tmp_path: Path) -> None:
    typed = "A line that is long enough to be a text"
    data = illustrated(drawn(LINES), typed)
    (page,) = read(data, "a.pdf").pages
    assert (page.text, page.needs_ocr, page.source) == (typed, True, "text")
    path = tmp_path / "a.pdf"
    path.write_bytes(data)
    with path.open("rb") as file:
        (found,) = read_pages(Source(file, detect(path, path.name)), [1])
    whole = joined(page, found)
    assert (whole.source, whole.needs_ocr) == ("mixed", False)
    assert whole.text.startswith(f"{typed}\n\n")
    assert words(whole.text.removeprefix(typed)) == words(" ".join(LINES))
    last = whole.lines[-1]
    assert words(whole.text[last.start : last.end]) == words(LINES[-1])
    left, top, right, bottom = last.box
    assert 0.1 < left < right < 0.9
    assert 0.7 < top < bottom < 0.875  # in the picture, below the middle of the page


def test_a_photograph_beside_text_is_left_alone(read: Read) -> None:
    noise = Image.frombytes("RGB", (300, 150), random.Random(1).randbytes(300 * 150 * 3))
    shade = Image.linear_gradient("L").resize((300, 150)).convert("RGB")
    for image in (noise, shade, Image.new("RGB", (300, 150), "teal")):
        (page,) = read(illustrated(image, "A line that is long enough to be a text"), "a.pdf").pages
        assert not page.needs_ocr
    # what has lines of its own over it, as a scan with a text layer has, is read already
    over = ["", "", "", "", "", "", "", "", "", "", "", "", *LINES, *LINES]
    (page,) = read(illustrated(drawn(LINES), *over), "a.pdf").pages
    assert not page.needs_ocr


def test_pictures_are_read_in_a_process_of_their_own(tmp_path: Path) -> None:
    images = [drawn([line]) for line in LINES]
    path = tmp_path / "a.tif"
    path.write_bytes(saved(images[0], "TIFF", save_all=True, append_images=images[1:]))
    assert [page.needs_ocr for page in read_in_sandbox(path, path.name).pages] == [True] * 3
    found = list(read_pictures_in_sandbox(path, path.name, None, [1, 3], LIMITS))
    assert [(page.number, words(page.text)) for page in found] == [
        (1, words(LINES[0])),
        (3, words(LINES[2])),
    ]


def test_pictures_without_text_give_none(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(300 * 200 * 3)
    for image in (Image.new("RGB", (300, 200), "black"), Image.frombytes("RGB", (300, 200), noise)):
        (page,) = ocr(tmp_path, saved(image, "PNG"), "a.png")
        assert page.text == ""


def test_a_broken_picture_is_corrupt_and_a_huge_one_too_large(tmp_path: Path) -> None:
    whole = saved(drawn(LINES), "PNG")
    path = tmp_path / "cut.png"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReadError) as cut:
        list(read_pictures_in_sandbox(path, "cut.png", None, [1], LIMITS))
    assert cut.value.code == "corrupt"
    bomb = saved(Image.new("1", (40_000, 40_000)), "PNG")
    path.write_bytes(bomb)
    with pytest.raises(ReadError) as large:
        read_in_sandbox(path, "bomb.png")
    assert large.value.code == "limit_memory"


def test_columns_are_read_one_after_the_other_below_their_title() -> None:
    lines = [Seen("title", (0.1, 0.02, 0.9, 0.08), 1)]
    for row in range(4):
        top = 0.2 + 0.1 * row
        lines.append(Seen(f"right {row}", (0.55, top, 0.9, top + 0.04), 1))
        lines.append(Seen(f"left {row}", (0.1, top, 0.45, top + 0.04), 1))
    random.Random(2).shuffle(lines)
    assert [line.text for line in in_reading_order(lines)] == [
        "title",
        *(f"left {row}" for row in range(4)),
        *(f"right {row}" for row in range(4)),
    ]
