"""Word documents: the body in order, with notes, comments, text boxes, headers and footers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from narwhal.ingest.detect import detect_file
from narwhal.ingest.document import Page, ReadError
from narwhal.ingest.extractors import Source, extract_pages
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.docx_body import Body, Lines, Notes, heading_levels
from narwhal.ingest.extractors.drawing import drawing_texts
from narwhal.ingest.extractors.ooxml import Package
from narwhal.ingest.limits import Limits

PAGED = False

_INSERTED = {"html", "eml", "text"}  # never a document, which could insert itself


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the document's whole text as one page: Word files do not know their pages."""
    package = Package(source.file, limits)
    main = package.main_part("word/document.xml")
    levels: dict[str, int] = {}
    for part in package.targets(main, "styles"):
        levels = heading_levels(package, part)
    notes = {
        kind: _notes(package, part)
        for kind in ("footnotes", "endnotes", "comments")
        for part in package.targets(main, kind)
    }
    blocks = Blocks(limits)
    furniture = {kind: _furniture(package, main, kind) for kind in ("header", "footer")}
    for text in furniture["header"]:
        blocks.add(text)
    package.parse(main, Body(blocks, levels, notes))
    for kind in ("chart", "diagramData"):
        for part in package.targets(main, kind):
            for text in drawing_texts(package, part):
                blocks.add(text, gap=1)
    for part in package.targets(main, "aFChunk"):
        _read_inserted(package.open(part), part, blocks, limits)
    for text in furniture["footer"]:
        blocks.add(text)
    yield blocks.page(1)


def _read_inserted(file: BinaryIO, part: str, blocks: Blocks, limits: Limits) -> None:
    """Add a page or mail that Word shows as part of the document (converters write them)."""
    try:
        detected = detect_file(file, part)
        if detected.format in _INSERTED:
            for page in extract_pages(Source(file, detected), limits):
                blocks.add(page.text)
    except ReadError as error:
        if error.code == "limit_output":
            raise


def _furniture(package: Package, main: str, kind: str) -> list[str]:
    """The texts of the headers or footers, each once: sections mostly repeat them."""
    found: dict[str, None] = {}
    for part in package.targets(main, kind):
        lines = Lines()
        package.parse(part, Body(lines, {}, {}))
        text = "\n".join(lines.texts)
        # A page number alone says nothing.
        if not re.fullmatch(r"[\W\d]*", text):
            found.setdefault(text)
    return list(found)


def _notes(package: Package, part: str) -> dict[str, str]:
    """The notes or comments of `part` by their id."""
    reader = Notes()
    package.parse(part, reader)
    return {key: "\n".join(lines.texts).strip() for key, lines in reader.notes.items()}
