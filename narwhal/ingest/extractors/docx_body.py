"""The events of WordprocessingML made into blocks of text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from narwhal.ingest.extractors.drawing import alt_text
from narwhal.ingest.extractors.ooxml import Handler, Package, is_on

# What is no part of the text as it reads today, or stands in the file a second time.
_SKIPPED = {"Fallback", "moveFrom", "del", "rt", "instrText", "delText", "delInstrText"}
_NOTES = {
    "footnoteReference": "footnotes",
    "endnoteReference": "endnotes",
    "commentReference": "comments",
}
_MARKS = {"br": "\n", "cr": "\n", "tab": "\t", "ptab": "\t", "noBreakHyphen": "-"}


class Sink(Protocol):
    """Takes finished blocks, as `Blocks` does."""

    def add(self, text: str, *, level: int | None = None, gap: int = 2) -> None:
        """Take one block of text; `level` makes it a heading."""


class Lines:
    """A sink that keeps only the texts."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str, *, level: int | None = None, gap: int = 2) -> None:  # noqa: ARG002
        """Keep `text` unless it is blank."""
        if text.strip():
            self.texts.append(text)


@dataclass
class _Block:
    text: str
    level: int | None = None
    gap: int = 2


@dataclass
class _Paragraph:
    pieces: list[str] = field(default_factory=list)
    level: int | None = None
    listed: bool = False
    # Text boxes anchored in the paragraph, its pictures' descriptions, its notes: read after it.
    after: list[_Block] = field(default_factory=list)


class Body(Handler):
    """Reads a body, header, footer or note into a sink; deep nesting costs no stack.

    `levels` maps paragraph styles to heading levels, `notes` kinds of notes to their texts by id.
    """

    def __init__(
        self, sink: Sink, levels: Mapping[str, int], notes: Mapping[str, Mapping[str, str]]
    ) -> None:
        self._sink = sink
        self._levels = levels
        self._notes = notes
        self._skipped = 0
        self._paragraphs: list[_Paragraph] = []
        self._rows: list[list[list[_Block]]] = []
        # Where a finished block goes: a cell, or the list of what follows a paragraph.
        self._containers: list[list[_Block]] = []
        self._hidden: list[bool] = []  # one entry for every open run
        self._properties = 0  # open paragraph properties
        self._texts = 0  # open text elements

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Open an element."""
        if self._skipped or name in _SKIPPED:
            self._skipped += 1
            return
        if name == "p":
            paragraph = _Paragraph()
            self._paragraphs.append(paragraph)
            self._containers.append(paragraph.after)
        elif name == "tr":
            self._rows.append([])
        elif name == "tc":
            self._containers.append([])
        elif name == "pPr":
            self._properties += 1
        elif name == "r":
            self._hidden.append(False)
        elif name == "t":
            self._texts += 1
        elif self._paragraphs:
            self._inline(self._paragraphs[-1], name, attributes)

    def _inline(self, paragraph: _Paragraph, name: str, attributes: dict[str, str]) -> None:
        """Handle what stands inside a paragraph."""
        if self._properties:
            if name == "pStyle":
                paragraph.level = self._levels.get(attributes.get("val", ""), paragraph.level)
            elif name == "outlineLvl":
                paragraph.level = outline_level(attributes)
            elif name == "numPr":
                paragraph.listed = True
        elif name == "vanish":
            if self._hidden:
                self._hidden[-1] = is_on(attributes)
        elif name in _MARKS:
            self.text(_MARKS[name], mark=True)
        elif name == "sym":
            self.text(_symbol(attributes.get("char", "")), mark=True)
        elif name in _NOTES:
            note = self._notes.get(_NOTES[name], {}).get(attributes.get("id", ""))
            if note:
                paragraph.after.append(_Block(note, gap=1))
        elif name == "docPr":
            paragraph.after.append(_Block(alt_text(attributes), gap=1))
        elif name == "textpath":  # a watermark
            paragraph.after.append(_Block(attributes.get("string", ""), gap=1))

    def text(self, text: str, *, mark: bool = False) -> None:
        """Take character data, where it belongs to a visible run."""
        if self._skipped or not self._paragraphs or not (mark or self._texts):
            return
        if not (self._hidden and self._hidden[-1]):
            self._paragraphs[-1].pieces.append(text)

    def end(self, name: str) -> None:
        """Close an element, and pass on what is complete with it."""
        if self._skipped:
            self._skipped -= 1
        elif name == "p" and self._paragraphs:
            paragraph = self._paragraphs.pop()
            self._containers.pop()
            gap = 1 if paragraph.listed else 2
            self._emit(_Block("".join(paragraph.pieces), paragraph.level, gap))
            for block in paragraph.after:
                self._emit(block)
        elif name == "tc" and self._containers and self._rows:
            self._rows[-1].append(self._containers.pop())
        elif name == "tr" and self._rows:
            self._end_row(self._rows.pop())
        elif name == "pPr":
            self._properties -= 1
        elif name == "r" and self._hidden:
            self._hidden.pop()
        elif name == "t":
            self._texts -= 1

    def _end_row(self, cells: list[list[_Block]]) -> None:
        cells = [cell for cell in cells if cell]
        if len(cells) == 1:  # a frame around text more often than a table
            for block in cells[0]:
                self._emit(block)
            return
        texts = ("\n".join(block.text.strip() for block in cell) for cell in cells)
        self._emit(_Block("\t".join(texts), gap=1))

    def _emit(self, block: _Block) -> None:
        if not block.text.strip():
            return
        if self._containers:
            self._containers[-1].append(block)
        else:
            self._sink.add(block.text, level=block.level, gap=block.gap)


class Notes(Handler):
    """Reads a part of footnotes, endnotes or comments; `notes` holds the lines of each by id."""

    def __init__(self) -> None:
        self.notes: dict[str, Lines] = {}
        self._body: Body | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Open an element; a note begins a body of its own."""
        if name in ("footnote", "endnote", "comment"):
            lines = self.notes.setdefault(attributes.get("id", ""), Lines())
            self._body = Body(lines, {}, {})
        elif self._body:
            self._body.start(name, attributes)

    def end(self, name: str) -> None:
        """Close an element."""
        if name in ("footnote", "endnote", "comment"):
            self._body = None
        elif self._body:
            self._body.end(name)

    def text(self, text: str) -> None:
        """Take character data."""
        if self._body:
            self._body.text(text)


class _Styles(Handler):
    """Collects the outline level of each paragraph style, own or from the style it is based on."""

    def __init__(self) -> None:
        self.levels: dict[str, int | None] = {}
        self.parents: dict[str, str] = {}
        self._style = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        value = attributes.get("val", "")
        if name == "style":
            self._style = attributes.get("styleId", "")
        elif name == "basedOn" and self._style:
            self.parents[self._style] = value
        elif name == "outlineLvl" and self._style:
            self.levels[self._style] = outline_level(attributes)
        elif name == "name" and self._style:
            numbered = re.fullmatch(r"heading ([1-9])", value.strip(), re.IGNORECASE)
            if numbered:
                self.levels.setdefault(self._style, int(numbered[1]))
            elif value.strip().lower() == "title":
                self.levels.setdefault(self._style, 1)

    def end(self, name: str) -> None:
        if name == "style":
            self._style = ""


def heading_levels(package: Package, part: str) -> dict[str, int]:
    """The heading level, from 1, of each paragraph style in the styles `part` that has one."""
    styles = _Styles()
    package.parse(part, styles)
    found: dict[str, int] = {}
    for style in set(styles.levels) | set(styles.parents):
        at, seen = style, set[str]()
        while at not in styles.levels and at in styles.parents and at not in seen:
            seen.add(at)
            at = styles.parents[at]
        level = styles.levels.get(at)
        if level is not None:
            found[style] = level
    return found


def outline_level(attributes: Mapping[str, str]) -> int | None:
    """The heading level of an outlineLvl element; its 9 stands for body text."""
    value = attributes.get("val", "")
    return int(value) + 1 if value.isdecimal() and int(value) < 9 else None


def _symbol(code: str) -> str:
    """A character of a w:sym element; those in private use are pictures of a symbol font."""
    try:
        number = int(code, 16)
    except ValueError:
        return ""
    return "" if 0xD800 <= number <= 0xF8FF or number > 0x10FFFF else chr(number)
