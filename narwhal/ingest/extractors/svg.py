"""SVG: the words of a drawing, a line for each text in it. Nothing is run, and nothing fetched."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from xml.parsers import expat

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.html import declared_charset
from narwhal.ingest.extractors.reading import read_text, without_bytes
from narwhal.ingest.limits import Limits

PAGED = True

_PIECE = 64 * 1024
# What is drawn as words, and what tells of the drawing.
_TEXTS = frozenset({"text", "title", "desc", "foreignObject"})
_LINES = frozenset({"tspan", "p", "div", "li", "br", "tr", "h1", "h2", "h3", "h4", "h5", "h6"})
_UNREAD = frozenset({"script", "style", "metadata", "iframe", "object"})
_HIDING = re.compile(r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)")
_LENGTH = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(px|pt|mm|cm|in)?\s*$")
_POINTS = {"px": 1.0, "pt": 1.0, "mm": 72 / 25.4, "cm": 72 / 2.54, "in": 72.0}


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the drawing as one page; what is broken ends it where it breaks."""
    head = source.file.read(4096)
    source.file.seek(0)
    text = read_text(source, limits, declared_charset(head))
    drawing = _Drawing(Blocks(limits))
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = drawing.start
    parser.EndElementHandler = drawing.end
    parser.CharacterDataHandler = drawing.text
    # With a handler for everything else, references to entities come here and are not expanded.
    parser.DefaultHandler = lambda _data: None
    try:
        for place in range(0, len(text), _PIECE):
            parser.Parse(text[place : place + _PIECE], False)
        parser.Parse("", True)
    except expat.ExpatError:
        drawing.flush()
    yield drawing.blocks.page(1, *drawing.size)


class _Drawing:
    """Collects the words of the elements that are shown."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.size: tuple[float | None, float | None] = (None, None)
        self._depth = 0
        self._hidden: int | None = None  # depth of the outermost element that is not shown
        self._texts: list[int] = []  # depths of the elements that hold words
        self._pieces: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Open an element."""
        self._depth += 1
        name = name.rpartition(":")[2]
        if self._depth == 1:
            self.size = (_points(attributes.get("width")), _points(attributes.get("height")))
        if self._hidden is None and (name in _UNREAD or _is_hidden(attributes)):
            self._hidden = self._depth
        if name in _TEXTS:
            self.flush()
            self._texts.append(self._depth)
        elif name in _LINES and (name != "tspan" or "y" in attributes or "dy" in attributes):
            self.flush()

    def end(self, _name: str) -> None:
        """Close an element."""
        if self._texts and self._texts[-1] == self._depth:
            self.flush()
            self._texts.pop()
        if self._hidden == self._depth:
            self._hidden = None
        self._depth -= 1

    def text(self, text: str) -> None:
        """Take character data."""
        if self._texts and self._hidden is None:
            self._pieces.append(text)

    def flush(self) -> None:
        """Finish the current line."""
        self.blocks.add(" ".join(without_bytes("".join(self._pieces)).split()), gap=1)
        self._pieces.clear()


def _is_hidden(attributes: dict[str, str]) -> bool:
    return (
        attributes.get("display") == "none"
        or attributes.get("visibility") in ("hidden", "collapse")
        or bool(_HIDING.search(attributes.get("style", "")))
    )


def _points(length: str | None) -> float | None:
    found = _LENGTH.match(length or "")
    if not found:
        return None
    points = float(found[1]) * _POINTS[found[2] or "px"]
    return points if math.isfinite(points) and points > 0 else None
