"""Pictures on the pages of a PDF that seem to show text which the text layer does not have.

What is decided here is cheap: where a picture stands, whether text lies over it, and whether it
has a ground and edges as writing has. Reading it is OCR's work.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import pypdfium2.raw as raw  # type: ignore[import-untyped]

from narwhal.ingest.document import Box, Line

BoxOf = Callable[[Any, float, float, float, float], Box | None]

_LEAST_AREA = 0.03  # of the page: less is an ornament
_LEAST_SIDE = 0.05
_OWN_LINES = 3  # of the text layer over a picture, which then has its text already
_MOST_PIXELS = 25_000_000  # of a picture that is looked at here
_MOST_PICTURES = 20  # of a page
_MOST_OBJECTS = 10_000  # of a page, that are looked at
_SIDE = 600  # pixels, of what is looked at
_GROUND = 0.35  # of all pixels, in one of 16 shades
_EDGES = 0.03  # of all pixels
_STEEP = 60  # difference of shade at an edge


def unread_pictures(
    page: Any,
    lines: Sequence[Line],
    box_of: BoxOf,
) -> list[Box]:
    """Where pictures of text stand on a page, from the top; `box_of` maps corners to the page."""
    found: list[Box] = []
    for index in range(min(raw.FPDFPage_CountObjects(page), _MOST_OBJECTS)):
        item = raw.FPDFPage_GetObject(page, index)
        if raw.FPDFPageObj_GetType(item) != raw.FPDF_PAGEOBJ_IMAGE:
            continue
        box = _place(page, item, box_of)
        if box is None or _has_lines(box, lines) or box in found:
            continue
        if _looks_written(page, item):
            found.append(box)
            if len(found) == _MOST_PICTURES:
                break
    return sorted(found, key=lambda box: (box[1], box[0]))


def _place(page: Any, item: Any, box_of: BoxOf) -> Box | None:
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    if not raw.FPDFPageObj_GetBounds(item, left, bottom, right, top):
        return None
    box = box_of(page, left.value, top.value, right.value, bottom.value)
    if box is None:
        return None
    width, height = box[2] - box[0], box[3] - box[1]
    if width * height < _LEAST_AREA or min(width, height) < _LEAST_SIDE:
        return None
    return box


def _has_lines(box: Box, lines: Sequence[Line]) -> bool:
    inside = 0
    for line in lines:
        x, y = (line.box[0] + line.box[2]) / 2, (line.box[1] + line.box[3]) / 2
        inside += box[0] <= x <= box[2] and box[1] <= y <= box[3]
    return inside >= _OWN_LINES


def _looks_written(page: Any, item: Any) -> bool:
    """Whether a picture has one ground and many edges; photographs seldom have both."""
    about = raw.FPDF_IMAGEOBJ_METADATA()
    if not raw.FPDFImageObj_GetImageMetadata(item, page, about):
        return False
    if not 0 < about.width * about.height <= _MOST_PIXELS:
        return False
    # Imported late: most pages have no picture that is large enough.
    import pypdfium2 as pdfium

    bitmap = raw.FPDFImageObj_GetBitmap(item)
    if not bitmap:
        return False
    try:
        shades = pdfium.PdfBitmap.from_raw(bitmap).to_pil().convert("L")
    except Exception:  # a kind of bitmap that has no picture: OCR could not read it either
        return False
    return is_written(shades)


def is_written(shades: Any) -> bool:
    """Whether a picture in shades of grey may show text."""
    from PIL import ImageFilter

    shades.thumbnail((_SIDE, _SIDE))
    pixels = shades.width * shades.height
    histogram = shades.histogram()
    ground = max(sum(histogram[at : at + 32]) for at in range(0, 256, 16))
    if ground < _GROUND * pixels:
        return False
    edges = shades.filter(ImageFilter.FIND_EDGES).histogram()
    return bool(sum(edges[_STEEP:]) >= _EDGES * pixels)
