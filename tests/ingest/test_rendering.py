"""Pictures to look at: what is drawn, how large, which way up, and what does not come along."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms, ImageDraw

from narwhal.ingest.detect import detect
from narwhal.ingest.document import Picture, ReadError
from narwhal.ingest.extractors import Source
from narwhal.ingest.limits import MIB, Limits, draw_in_sandbox
from narwhal.ingest.pictures import frame_sizes
from narwhal.ingest.rendering import Wanted, draw
from tests.ingest.files import pdf, text_at

MOST = 4_000_000


def drawn(
    tmp_path: Path,
    data: bytes,
    name: str,
    pages: tuple[int, ...] = (1,),
    most: int = MOST,
    thumbnail: bool = True,
) -> list[Picture]:
    path = tmp_path / name
    path.write_bytes(data)
    wanted = Wanted(pages, thumbnail, 144, most)
    with path.open("rb") as file:
        made = list(draw(Source(file, detect(path, name)), wanted, Limits()))
    return [picture for picture in made if isinstance(picture, Picture)]


def opened(picture: Picture) -> Image.Image:
    image = Image.open(io.BytesIO(picture.data))
    assert (image.format, image.size) == ("WEBP", (picture.width, picture.height))
    assert not image.info.get("exif")
    assert not image.info.get("icc_profile")
    return image.convert("RGB")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def quarters(width: int = 800, height: int = 400) -> Image.Image:
    """Red at the top left, blue at the bottom right."""
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, width // 2, height // 2), "#e00000")
    pen.rectangle((width // 2, height // 2, width, height), "#0000e0")
    return image


def is_near(image: Image.Image, at: tuple[float, float], colour: tuple[int, int, int]) -> bool:
    pixel = image.getpixel((int(at[0] * image.width), int(at[1] * image.height)))
    assert isinstance(pixel, tuple)
    return all(abs(a - b) < 40 for a, b in zip(pixel, colour, strict=True))


def is_upright(image: Image.Image) -> bool:
    return is_near(image, (0.25, 0.25), (224, 0, 0)) and is_near(image, (0.75, 0.75), (0, 0, 224))


def test_pages_of_a_pdf_have_two_pixels_a_point(tmp_path: Path) -> None:
    data = pdf("0 400 300 400 re f", text_at(50, 50, "two"), page_extra="/Rotate 90")
    first, small, second = drawn(tmp_path, data, "a.pdf", (1, 2))
    assert [(p.kind, p.page) for p in (first, small, second)] == [
        ("page", 1), ("thumbnail", None), ("page", 2),
    ]  # fmt: skip
    assert (first.width, first.height) == (1600, 1200)
    assert (small.width, small.height) == (300, 225)
    for image in (opened(first), opened(small)):  # its top left quarter, turned clockwise
        assert is_near(image, (0.75, 0.25), (0, 0, 0))
        assert is_near(image, (0.25, 0.25), (255, 255, 255))
    assert opened(second).getextrema()[0][0] < 64


def test_a_page_has_at_most_so_many_pixels(tmp_path: Path) -> None:
    data = pdf("", box="0 0 14400 14400")
    (page,) = drawn(tmp_path, data, "wall.pdf", most=1_000_000, thumbnail=False)
    assert (page.width, page.height) == (1000, 1000)
    strip = saved(Image.new("RGB", (60_000, 20)), "PNG")
    (page,) = drawn(tmp_path, strip, "strip.png", thumbnail=False)
    assert page.width == 8192


def test_a_thumbnail_is_made_without_its_page_and_broken_pages_are_left_out(
    tmp_path: Path,
) -> None:
    data = pdf("0 400 300 400 re f", "", "")
    assert [p.page for p in drawn(tmp_path, data, "a.pdf", (2, 3, 4))] == [None, 2, 3]


def test_what_was_filled_into_a_form_is_drawn(tmp_path: Path) -> None:
    """A field without an appearance of its own is drawn by the reader."""
    objects = {
        100: "<</Type/Annot/Subtype/Widget/FT/Tx/T(name)/V(walrus)/F 4/Rect[50 700 350 760]"
        "/DA(/Helv 40 Tf 0 g)/P 10 0 R>>",
        101: "<</Fields[100 0 R]/NeedAppearances true/DA(/Helv 0 Tf 0 g)"
        "/DR<</Font<</Helv 3 0 R>>>>>>",
    }
    data = pdf(
        "", page_extra="/Annots[100 0 R]", catalog_extra="/AcroForm 101 0 R", objects=objects
    )
    (page,) = drawn(tmp_path, data, "form.pdf", thumbnail=False)
    field = opened(page).convert("L").crop((100, 80, 700, 200))
    assert field.getextrema()[0] < 128


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_photos_are_turned_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    image = quarters()
    back = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    for turn in back.get(orientation, []):
        image = image.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    name = f"a.{kind.lower()}"
    page, small = drawn(tmp_path, saved(image, kind, exif=exif), name, most=80_000)
    assert (page.width, page.height) == (400, 200)
    assert (small.width, small.height) == (300, 150)
    with (tmp_path / name).open("rb") as file:  # as the page that OCR reads
        assert list(frame_sizes(file, 9)) == [(800, 400)]
    assert is_upright(opened(page))
    assert is_upright(opened(small))


def test_where_a_photo_was_taken_stays_behind(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (54.0, 10.0, 0.0), 3: "E", 4: (7.0, 53.0, 0.0)})
    data = saved(quarters(), "JPEG", exif=exif)
    assert b"Exif" in data
    for picture in drawn(tmp_path, data, "a.jpg"):
        assert opened(picture).getexif() == {}
        assert b"EXIF" not in picture.data


def test_small_pictures_stay_as_they_are(tmp_path: Path) -> None:
    for picture in drawn(tmp_path, saved(quarters(40, 20), "PNG"), "a.png"):
        assert (picture.width, picture.height) == (40, 20)


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGBA"), ("PNG", "LA"), ("WEBP", "RGBA")])
def test_what_is_transparent_is_white(tmp_path: Path, kind: str, mode: str) -> None:
    image = Image.new(mode, (400, 400), 0)
    for picture in drawn(tmp_path, saved(image, kind), f"a.{kind.lower()}"):
        assert opened(picture).getextrema() == ((255, 255),) * 3


def test_a_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.new("P", (40, 40), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    data = saved(image, "GIF", transparency=1)
    assert opened(drawn(tmp_path, data, "a.gif")[0]).getextrema()[0][0] > 250


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_seen(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("#e00000", "#0000e0")]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    for picture in drawn(tmp_path, data, f"a.{kind.lower()}"):
        assert is_near(opened(picture), (0.5, 0.5), (224, 0, 0))


def test_every_page_of_a_tiff(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("#e00000", "#0000e0")]
    data = saved(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    second, *_ = (p for p in drawn(tmp_path, data, "a.tif", (1, 2, 3)) if p.page == 2)
    assert is_near(opened(second), (0.5, 0.5), (0, 0, 224))


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "P", "CMYK", "YCbCr"])
def test_all_kinds_of_pixels(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image = Image.new("I;16", (64, 64), 0x8000)
    else:
        image = Image.new("L", (64, 64), 128).convert("RGB").convert(mode)
    kind = "TIFF" if mode in ("CMYK", "YCbCr", "I;16") else "PNG"
    (page, _) = drawn(tmp_path, saved(image, kind), f"a.{kind.lower()}")
    mean = sum(opened(page).resize((1, 1)).getpixel((0, 0))) / 3  # type: ignore[arg-type]
    assert abs(mean - 128) < 8


def test_colours_are_those_that_the_profile_means(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # its table of tags, with red and blue changed over
    swapped = srgb.replace(b"rXYZ", b"0XYZ", 1).replace(b"bXYZ", b"rXYZ", 1)
    swapped = swapped.replace(b"0XYZ", b"bXYZ", 1)
    data = saved(quarters(64, 64), "PNG", icc_profile=swapped)
    image = opened(drawn(tmp_path, data, "a.png")[0])
    assert is_near(image, (0.25, 0.25), (0, 0, 224))
    assert is_near(image, (0.75, 0.75), (224, 0, 0))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for useless in (lab, b"not a profile"):
        data = saved(quarters(64, 64), "PNG", icc_profile=useless)
        assert is_upright(opened(drawn(tmp_path, data, "a.png")[0]))


def test_in_the_sandbox_as_a_worker_does(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf("0 400 300 400 re f", ""))
    wanted = {"pages": [1, 2], "thumbnail": True, "dpi": 72, "most_pixels": MOST}
    limits = Limits(seconds=30, memory_bytes=512 * MIB)
    pictures = list(draw_in_sandbox(path, "a.pdf", None, wanted, limits))
    assert all(isinstance(picture, Picture) for picture in pictures)
    assert [(p.kind, p.page) for p in pictures] == [
        ("page", 1), ("thumbnail", None), ("page", 2),
    ]  # fmt: skip
    assert is_near(opened(pictures[0]), (0.25, 0.25), (0, 0, 0))
    path.write_bytes(pdf("", user_password="walrus"))
    with pytest.raises(ReadError) as error:
        list(draw_in_sandbox(path, "a.pdf", None, wanted, limits))
    assert error.value.code == "encrypted_pdf"
