"""OpenDocument text: the body in order, with notes, comments, text boxes, headers and footers."""

from __future__ import annotations

from collections.abc import Iterator

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.odf import Files, Flow
from narwhal.ingest.limits import Limits

PAGED = False


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the document's whole text as one page: such files do not know their pages."""
    files = Files(source, limits)
    headers, footers = files.furniture()
    blocks = Blocks(limits)
    for text in headers:
        blocks.add(text)
    body = Flow(blocks)
    files.parse("content.xml", body)
    for link in body.objects:
        for text in files.object_texts(link):
            blocks.add(text, gap=1)
    for text in footers:
        blocks.add(text)
    yield blocks.page(1)
