"""Pictures to look at: pages of PDFs and of image files as WEBP, frames of films, and thumbnails.

Beside them the images in documents, with what they show around them.

What is saved holds pixels only, in sRGB: no EXIF, so no place where a photo was taken.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from PIL import Image, ImageCms, ImageOps

from narwhal.ingest.document import Box, EmbeddedImage, Picture, ReadError
from narwhal.ingest.embedded import LEAST_SIDE, cover, find_images
from narwhal.ingest.extractors import Source
from narwhal.ingest.limits import Limits
from narwhal.ingest.photo_facts import photo_facts
from narwhal.ingest.pictures import check_size, frame_sizes, open_image, pdf_page

THUMBNAIL = (300, 300)  # pixels at most
_MOST_OF_IMAGE = 1_000_000  # pixels of an image in a document
_LONGEST = 8_192  # pixels of a side; the format ends at 16,383
_QUALITY = 80
_EFFORT = 2  # of 6: a page takes a fifth of the time of 6, and a few percent more bytes


@dataclass(frozen=True)
class Wanted:
    """What is to be drawn: pages, by number, and a thumbnail; how large pages may be.

    `images` are the numbers of those that need not be looked at again. Of a film, `frames` are
    its pages.
    """

    pages: Sequence[int]
    thumbnail: bool
    dpi: int
    most_pixels: int
    images: Sequence[int] = ()
    frames: int = 1


def draw(source: Source, wanted: Wanted, limits: Limits) -> Iterator[Picture | EmbeddedImage]:
    """Draw a file, and find the images in it, each before its own picture and before its page.

    What is broken is left out. Raises ReadError where nothing can be read.
    """
    if source.detected.format == "pdf":
        yield from _draw_pages(_pdf_pages, source, wanted)
    elif source.detected.format == "image":
        if 1 in wanted.pages and 0 not in wanted.images:
            yield _photo(source)
        yield from _draw_pages(_frames, source, wanted)
    elif source.detected.format == "video":
        yield from _draw_film(source, wanted)
    else:
        yield from _draw_images(source, wanted, limits)


def thumbnail(image: Image.Image) -> Picture:
    """Make a picture smaller, never larger, so that it fits THUMBNAIL."""
    small = image.copy()
    small.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
    return Picture("thumbnail", None, small.width, small.height, _webp(small))


Drawn = tuple[int, Image.Image, list[tuple[EmbeddedImage, Image.Image]]]


def _draw_pages(
    drawn: Callable[[Source, Wanted], Iterator[Drawn]], source: Source, wanted: Wanted
) -> Iterator[Picture | EmbeddedImage]:
    needs_thumbnail = wanted.thumbnail
    if needs_thumbnail and 1 not in wanted.pages:
        for _, image, _ in drawn(source, replace(wanted, pages=[1])):
            yield thumbnail(image)
        needs_thumbnail = False
    for number, image, parts in drawn(source, wanted):
        for part, picture in parts:
            yield part
            yield _of_image(part.idx, picture)
        yield Picture("page", number, image.width, image.height, _webp(image))
        if needs_thumbnail:
            yield thumbnail(image)
            needs_thumbnail = False


def _draw_film(source: Source, wanted: Wanted) -> Iterator[Picture]:
    from narwhal.ingest.films import frames, telling_frame

    if wanted.thumbnail:
        image = telling_frame(source, wanted.most_pixels)
        if image is not None:
            yield thumbnail(image)
    for number, image in frames(source, wanted.pages, wanted.frames, wanted.most_pixels):
        image = _resized(image, wanted.most_pixels)
        yield Picture("page", number, image.width, image.height, _webp(image))


def _of_image(idx: int, image: Image.Image) -> Picture:
    small = _resized(image, _MOST_OF_IMAGE)
    return Picture("image", None, small.width, small.height, _webp(small), idx)


def _pdf_pages(source: Source, wanted: Wanted) -> Iterator[Drawn]:
    import pypdfium2 as pdfium  # type: ignore[import-untyped]

    from narwhal.ingest.extractors.pdf import open_document
    from narwhal.ingest.extractors.pdf_images import page_images

    document = open_document(source.file, source.passwords)
    if document.get_formtype():
        document.init_forms()  # what was filled in is drawn, too
    for number in wanted.pages:
        try:
            image = pdf_page(document, number, wanted.dpi, wanted.most_pixels)
            found = page_images(document, number)
        except pdfium.PdfiumError:
            continue
        yield number, image, [(part, _cut(image, part.box)) for part in found if part.box]


def _cut(page: Image.Image, box: Box) -> Image.Image:
    """Cut an image out of its drawn page: as it is seen, masked, turned, and partly covered."""
    x0, y0 = int(box[0] * page.width), int(box[1] * page.height)
    x1, y1 = round(box[2] * page.width), round(box[3] * page.height)
    return page.crop((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)))


def _frames(source: Source, wanted: Wanted) -> Iterator[Drawn]:
    for number in wanted.pages:
        try:
            yield number, shown(source.file, number, wanted.most_pixels), []
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            if number == 1:
                kind = type(error).__name__
                raise ReadError("corrupt", f"The picture is damaged ({kind}).") from error


def _photo(source: Source) -> EmbeddedImage:
    """Tell what a picture file says of itself."""
    source.file.seek(0)
    digest = hashlib.file_digest(source.file, "sha256").hexdigest()  # type: ignore[arg-type]
    width, height = next(frame_sizes(source.file, 1))
    with open_image(source.file) as image:
        facts, location = photo_facts(image)
    return EmbeddedImage(
        0, 1, (0.0, 0.0, 1.0, 1.0), "", "", source.detected.mime, width, height, digest, facts,
        location,
    )  # fmt: skip


def _draw_images(
    source: Source, wanted: Wanted, limits: Limits
) -> Iterator[Picture | EmbeddedImage]:
    """Tell the images of a document without pages to draw; the largest is its thumbnail."""
    best: Image.Image | None = None
    has_cover = False
    if wanted.thumbnail:
        best = _decoded(cover(source, limits) or b"")
        has_cover = best is not None
    for idx, found in enumerate(find_images(source, limits)):
        if idx in wanted.images and (has_cover or not wanted.thumbnail):
            continue
        image = _decoded(found.data)
        if image is None or min(image.size) < LEAST_SIDE:
            continue
        if not has_cover and (best is None or _area(image) > _area(best)):
            best = image
        if idx in wanted.images:
            continue
        with open_image(io.BytesIO(found.data)) as stored:
            facts, location = photo_facts(stored)
            size = (stored.height, stored.width) if _is_turned(stored) else stored.size
            mime = Image.MIME.get(stored.format or "")
        digest = hashlib.sha256(found.data).hexdigest()
        yield EmbeddedImage(
            idx, found.page, found.box, found.context, found.description, mime, *size, digest,
            facts, location,
        )  # fmt: skip
        yield _of_image(idx, image)
    if wanted.thumbnail and best is not None:
        yield thumbnail(best)


def _decoded(data: bytes) -> Image.Image | None:
    """Decode an image out of a document, no larger than it is shown; None for what is broken."""
    try:
        return shown(io.BytesIO(data), 1, _MOST_OF_IMAGE)
    except (OSError, SyntaxError, ValueError, EOFError, ReadError):
        return None


def _area(image: Image.Image) -> int:
    return image.width * image.height


def _is_turned(image: Image.Image) -> bool:
    return image.format != "TIFF" and image.getexif().get(0x0112, 1) >= 5


def shown(file: BinaryIO, number: int, most_pixels: int) -> Image.Image:
    """Decode a page of an image file as it is seen: upright, in sRGB, on white, not too large.

    Of an animation the first frame is the picture.
    """
    with open_image(file) as image:
        if number > 1:
            image.seek(number - 1)
        check_size(image.size)
        image.draft("RGB", _bounded(image.size, most_pixels))  # a JPEG is decoded no larger
        flat = _on_white(_in_srgb(ImageOps.exif_transpose(image) or image))
    return _resized(flat, most_pixels)


def _resized(image: Image.Image, most_pixels: int) -> Image.Image:
    size = _bounded(image.size, most_pixels)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


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
