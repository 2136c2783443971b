"""Pages as pictures: frames of image files, and pages of PDFs drawn for OCR."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any, BinaryIO

from PIL import Image, ImageOps, ImageSequence

from narwhal.ingest.document import ReadError

MOST_PIXELS = 100_000_000
_OCR_DPI = 200
_MOST_RENDERED = 20_000_000  # pixels of a drawn page
# Formats with pages; of all others (animations) the first frame is the picture.
_PAGED = {"TIFF"}
_LIGHT = 160  # mean brightness, of 255, of what needs a dark ground


@cache
def load_codecs() -> None:
    """Load all decoders."""
    Image.init()
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        import pillow_heif
    except ModuleNotFoundError:  # HEIC stays unread
        return
    pillow_heif.register_heif_opener(decode_threads=1)


def frame_sizes(file: BinaryIO, most: int) -> Iterator[tuple[int, int]]:
    """Yield (width, height) as shown of every page of an image file, without decoding pixels."""
    with open_image(file) as image:
        for count, frame in enumerate(_frames(image), start=1):
            if count > most:
                raise ReadError("limit_output", f"The file has more than {most} frames.")
            check_size(frame.size)
            # of a TIFF, Pillow gives the size after turning
            turned = image.format != "TIFF" and frame.getexif().get(0x0112, 1) >= 5
            width, height = frame.size
            yield (height, width) if turned else (width, height)


def frame(file: BinaryIO, number: int) -> Image.Image:
    """Decode one page of an image file as it is shown: upright by EXIF, on a ground, in RGB."""
    with open_image(file) as image:
        image.seek(number - 1)
        check_size(image.size)
        return _opaque(ImageOps.exif_transpose(image) or image)


def pdf_page(
    document: Any, number: int, dpi: int = _OCR_DPI, most_pixels: int = _MOST_RENDERED
) -> Image.Image:
    """Draw a page of a PDF as it is shown, smaller where it would have too many pixels."""
    page = document[number - 1]
    try:
        width, height = page.get_size()
        scale = dpi / 72
        pixels = width * height * scale * scale
        if pixels > most_pixels:
            scale *= (most_pixels / pixels) ** 0.5
        drawn: Image.Image = page.render(scale=scale).to_pil()
        return drawn.convert("RGB")
    finally:
        page.close()


def open_image(file: BinaryIO) -> Image.Image:
    """Open an image file without decoding it; ReadError where it claims too many pixels."""
    load_codecs()
    file.seek(0)
    try:
        return Image.open(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ReadError("limit_memory", f"The picture is too large: {error}"[:300]) from error


def _frames(image: Image.Image) -> Iterator[Image.Image]:
    if image.format in _PAGED:
        yield from ImageSequence.Iterator(image)
    else:
        yield image


def check_size(size: tuple[int, int]) -> None:
    """Raise ReadError for more pixels than are decoded."""
    if size[0] * size[1] > MOST_PIXELS:
        raise ReadError("limit_memory", f"The picture has {size[0]} by {size[1]} pixels.")


def _opaque(image: Image.Image) -> Image.Image:
    """Lay a picture on white, or on black where it is itself light."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    histogram = image.convert("L").histogram(alpha.point(lambda a: 255 if a > 127 else 0))
    seen = sum(histogram) or 1
    mean = sum(value * count for value, count in enumerate(histogram)) / seen
    ground = Image.new("RGBA", image.size, "black" if mean > _LIGHT else "white")
    return Image.alpha_composite(ground, image).convert("RGB")
