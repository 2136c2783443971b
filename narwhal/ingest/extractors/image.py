"""Pictures: one page a frame, each left to OCR."""

from __future__ import annotations

from collections.abc import Iterator

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.limits import Limits
from narwhal.ingest.pictures import frame_sizes

PAGED = True


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield an empty page for each frame, a pixel counting as a point."""
    for number, (width, height) in enumerate(frame_sizes(source.file, limits.pages), start=1):
        yield Page(number, "", float(width), float(height), source="ocr", needs_ocr=True)
