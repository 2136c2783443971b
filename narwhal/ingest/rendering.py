"""Pictures to look at: pages of PDFs and of image files as WEBP, and a thumbnail of the whole.

What is saved holds pixels only, in sRGB: no EXIF, so no place where a photo was taken.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageCms, ImageOps

from narwhal.ingest.document import Picture, ReadError
from narwhal.ingest.extractors import Source
from narwhal.ingest.pictures import check_size, open_image, pdf_page

THUMBNAIL = (300, 300)  # pixels at most
_LONGEST = 8_192  # pixels of a side; the format ends at 16,383
_QUALITY = 80
_EFFORT = 2  # of 6: a page takes a fifth of the time of 6, and a few percent more bytes


@dataclass(frozen=True)
class Wanted:
    """What is to be drawn: these pages, by number, and a thumbnail; how large pages may be."""

    pages: Sequence[int]
    thumbnail: bool
    dpi: int
    most_pixels: int


def draw(source: Source, wanted: Wanted) -> Iterator[Picture]:
    """Draw a PDF or an image file; pages that are broken are left out.

    Raises ReadError where nothing can be drawn.
    """
    drawn = _pdf_pages if source.detected.format == "pdf" else _frames
    needs_thumbnail = wanted.thumbnail
    if needs_thumbnail and 1 not in wanted.pages:
        for _, image in drawn(source, Wanted([1], True, wanted.dpi, wanted.most_pixels)):
            yield thumbnail(image)
        needs_thumbnail = False
    for number, image in drawn(source, wanted):
        yield Picture("page", number, image.width, image.height, _webp(image))
        if needs_thumbnail:
            yield thumbnail(image)
            needs_thumbnail = False


def thumbnail(image: Image.Image) -> Picture:
    """Make a picture smaller, never larger, so that it fits THUMBNAIL."""
    small = image.copy()
    small.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
    return Picture("thumbnail", None, small.width, small.height, _webp(small))


def _pdf_pages(source: Source, wanted: Wanted) -> Iterator[tuple[int, Image.Image]]:
    import pypdfium2 as pdfium  # type: ignore[import-untyped]

    from narwhal.ingest.extractors.pdf import open_document

    document = open_document(source.file, source.passwords)
    if document.get_formtype():
        document.init_forms()  # what was filled in is drawn, too
    for number in wanted.pages:
        try:
            yield number, pdf_page(document, number, wanted.dpi, wanted.most_pixels)
        except pdfium.PdfiumError:
            continue


def _frames(source: Source, wanted: Wanted) -> Iterator[tuple[int, Image.Image]]:
    for number in wanted.pages:
        try:
            yield number, shown(source, number, wanted.most_pixels)
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            if number == 1:
                kind = type(error).__name__
                raise ReadError("corrupt", f"The picture is damaged ({kind}).") from error


def shown(source: Source, number: int, most_pixels: int) -> Image.Image:
    """Decode a page of an image file as it is seen: upright, in sRGB, on white, not too large.

    Of an animation the first frame is the picture.
    """
    with open_image(source.file) as image:
        if number > 1:
            image.seek(number - 1)
        check_size(image.size)
        image.draft("RGB", _bounded(image.size, most_pixels))  # a JPEG is decoded no larger
        flat = _on_white(_in_srgb(ImageOps.exif_transpose(image) or image))
    size = _bounded(flat.size, most_pixels)
    return flat if size == flat.size else flat.resize(size, Image.Resampling.LANCZOS)


def _bounded(size: tuple[int, int], most_pixels: int) -> tuple[int, int]:
    """Return the size at which a picture has no more pixels than that, and no side is too long."""
    scale = min(1.0, (most_pixels / (size[0] * size[1])) ** 0.5, _LONGEST / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _in_srgb(image: Image.Image) -> Image.Image:
    """Convert colours by the profile that came with them; a broken one does not count."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "L", "CMYK"):
        return image
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        return (
            ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode=mode,
            )
            or image
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel
        return image.point(lambda value: value / 256).convert("L").convert("RGB")
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    image = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image).convert("RGB")


def _webp(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=_QUALITY, method=_EFFORT)
    return file.getvalue()
