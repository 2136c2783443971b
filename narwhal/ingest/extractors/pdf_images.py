"""Images that a PDF's page draws: their size, place and bytes, and the text around them."""

from __future__ import annotations

import ctypes
import hashlib
from typing import Any

import pypdfium2.raw as raw  # type: ignore[import-untyped]

from narwhal.ingest.document import Box, EmbeddedImage
from narwhal.ingest.embedded import LEAST_SIDE
from narwhal.ingest.extractors.pdf import page_box
from narwhal.ingest.text import clean

_MOST_OF_PAGE = 50
_NUMBERS = 1_000  # for each page
_MOST_CONTEXT = 500  # characters
_NEAR = 60  # points above and below, where the text around it stands
_WHOLE = 0.9  # of the page: a scan, which the page itself shows
_LEAST = 0.0004  # of the page
_MOST_BYTES = 64 * 1024 * 1024


def page_images(document: Any, number: int) -> list[EmbeddedImage]:
    """The images that a page itself draws, from the top; not scans of the whole page."""
    page = document[number - 1]
    textpage = None
    try:
        textpage = page.get_textpage()
        found = []
        for item in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=1):
            image = _image(page, textpage, item)
            if image is not None:
                found.append(image)
        found.sort(key=lambda image: (image[0][1], image[0][0]))
        return [
            EmbeddedImage(
                (number - 1) * _NUMBERS + place, number, box, context, "", None, *size, digest
            )
            for place, (box, context, size, digest) in enumerate(found[:_MOST_OF_PAGE])
        ]
    finally:
        if textpage:
            textpage.close()
        page.close()


def _image(page: Any, textpage: Any, item: Any) -> tuple[Box, str, tuple[int, int], str] | None:
    left, bottom, right, top = item.get_bounds()
    box = page_box(page.raw, left, top, right, bottom)
    size = item.get_px_size()
    if box is None or min(size) < LEAST_SIDE:
        return None
    area = (box[2] - box[0]) * (box[3] - box[1])
    if not _LEAST < area < _WHOLE:
        return None
    stored = raw.FPDFImageObj_GetImageDataRaw(item.raw, None, 0)
    if stored > _MOST_BYTES:
        return None
    buffer = ctypes.create_string_buffer(stored)
    raw.FPDFImageObj_GetImageDataRaw(item.raw, buffer, stored)
    around = textpage.get_text_bounded(left - 200, bottom - _NEAR, right + 200, top + _NEAR)
    context = " ".join(clean(around).split())[:_MOST_CONTEXT]
    return box, context, (int(size[0]), int(size[1])), hashlib.sha256(buffer.raw).hexdigest()
