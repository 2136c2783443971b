"""XML of any kind: the text and the values of attributes, without the tags around them.

Entities are never expanded and nothing outside of the file is looked at. An element that begins
inside of a sentence stays in it; any other begins a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from xml.parsers import expat

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.html import declared_charset
from narwhal.ingest.extractors.reading import read_text, without_bytes
from narwhal.ingest.limits import Limits

PAGED = False

_PIECE = 64 * 1024
# Attributes that say how the file is written, not what it is about.
_TECHNICAL = re.compile(r"xmlns\b|xsi:|xml:|xlink:type$")
_WORD = re.compile(r"\w")
_MARKUP = re.compile(r"</?[A-Za-z][^<>]{0,2000}>")
_TAGS = re.compile(r"<!--.*?(?:-->|\Z)|<!\[CDATA\[|\]\]>|<[!/?A-Za-z_][^<>]*>?", re.DOTALL)


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the whole text as one page."""
    head = source.file.read(4096)
    source.file.seek(0)
    text = read_text(source, limits, declared_charset(head))
    blocks = Blocks(limits)
    try:
        _parse(text, _Lines(blocks))
    except expat.ExpatError:  # broken, or not XML at all: its words are there nonetheless
        blocks = Blocks(limits)
        for line in unescape(_TAGS.sub("\n", text)).split("\n"):
            blocks.add(" ".join(line.split()), gap=1)
    yield blocks.page(1)


def _parse(text: str, lines: _Lines) -> None:
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.ordered_attributes = True
    parser.StartElementHandler = lines.start
    parser.EndElementHandler = lines.end
    parser.CharacterDataHandler = lines.text
    # With a handler for everything else, references to entities come here and are not expanded.
    parser.DefaultHandler = lambda _data: None
    for place in range(0, len(text), _PIECE):
        parser.Parse(text[place : place + _PIECE], False)
    parser.Parse("", True)
    lines.flush()


class _Lines:
    """Cuts the events of a parser into lines."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._pieces: list[str] = []
        self._aside: list[str] = []  # attributes of elements inside of a sentence
        self._in_sentence = False  # whether text came last

    def start(self, _name: str, attributes: list[str]) -> None:
        """Open an element."""
        names, values = attributes[::2], attributes[1::2]
        told = [
            without_bytes(value)
            for name, value in zip(names, values, strict=True)
            if _WORD.search(value) and not _TECHNICAL.match(name)
        ]
        if self._in_sentence:
            self._aside += told
            return
        self.flush()
        if told:
            self._blocks.add(" ".join(" ".join(told).split()), gap=1)

    def end(self, _name: str) -> None:
        """Close an element."""
        self._in_sentence = False

    def text(self, text: str) -> None:
        """Take character data."""
        if text.isspace():
            # Only white space with a line end stands between the lines of a file.
            self._in_sentence = self._in_sentence and "\n" not in text
            text = " "
        else:
            self._in_sentence = True
        self._pieces.append(text)

    def flush(self) -> None:
        """Finish the current line, then add what was said beside it."""
        text = without_bytes("".join(self._pieces))
        self._pieces.clear()
        if "</" in text or "/>" in text:  # a page of HTML kept as text, as feeds do
            text = unescape(_MARKUP.sub(" ", text))
        self._blocks.add(" ".join(text.split()), gap=1)
        if self._aside:
            self._blocks.add(" ".join(" ".join(self._aside).split()), gap=1)
            self._aside.clear()
