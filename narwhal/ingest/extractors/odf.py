"""OpenDocument: the parts of a package or of a flat file, and the text of their elements.

Names of elements and attributes come without their prefix, as `ooxml` gives them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from narwhal.ingest.document import ReadError
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.docx_body import Lines, Sink
from narwhal.ingest.extractors.drawing import alt_text
from narwhal.ingest.extractors.ooxml import Handler, Package, parse_xml
from narwhal.ingest.limits import Limits

_PIECE = 64 * 1024
_SPACES = re.compile(r"[ \t\r\n]+")
_MOST_SPACES = 100  # for one element, which may claim any number
_RANGE = re.compile(r"(?:\S*\.\$?[A-Z]{1,3}\$?\d+[: ]?)+")
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)(cm|mm|in|pt|pc)")
_POINTS = {"cm": 72 / 2.54, "mm": 72 / 25.4, "in": 72.0, "pt": 1.0, "pc": 12.0}

# What is no part of the text as it reads today, or is no text at all.
_SKIPPED = {
    "tracked-changes",
    "ruby-text",
    "note-citation",
    "hidden-text",
    "binary-data",
    "forms",
    "script",
    "page-number",
    "page-count",
}
# Fields of a slide's master that stand for what each slide may put in their place.
_FIELDS = {"header", "footer", "date-time"}
_ABOUT_COMMENTS = {"creator", "date", "creator-initials", "sender-initials", "date-string"}
# Where an element called `title` is a field of the text, or holds paragraphs of its own.
_IN_TEXT = {"p", "h", "span", "a", "meta", "chart", "ruby-base"}
_HEADERS = {"header", "header-left", "header-first"}
_FOOTERS = {"footer", "footer-left", "footer-first"}


class Files:
    """An OpenDocument file: a zip archive of parts, or one flat XML file that stands for all."""

    def __init__(self, source: Source, limits: Limits) -> None:
        self._file: BinaryIO = source.file
        self._package: Package | None = None
        if source.file.read(2) == b"PK":
            self._package = Package(source.file, limits)
            self._refuse_locked()
            if "content.xml" not in self._package:
                raise ReadError("corrupt", "The document's main part is missing.")

    def _refuse_locked(self) -> None:
        locks = _Locks()
        if self._package and "META-INF/manifest.xml" in self._package:
            self._package.parse("META-INF/manifest.xml", locks)
        if locks.found:
            raise ReadError("unsupported_media", "The document is locked with a password.")

    def steps(self, part: str, handler: Handler) -> Iterator[None]:
        """Feed `part` (content.xml, styles.xml) to `handler` piece by piece."""
        if self._package is None:
            self._file.seek(0)
            yield from parse_xml(iter(lambda: self._file.read(_PIECE), b""), part, handler)
        elif part in self._package:
            yield from self._package.steps(part, handler)

    def parse(self, part: str, handler: Handler) -> None:
        """Feed all of `part` to `handler`; does nothing where the file has no such part."""
        for _ in self.steps(part, handler):
            pass

    def object_texts(self, link: str) -> list[str]:
        """The texts of an embedded chart or document; none where it is kept as a picture."""
        part = posixpath.normpath(posixpath.join("/", link, "content.xml")).lstrip("/")
        lines = Lines()
        if self._package and part != "content.xml" and part in self._package:
            self._package.parse(part, Flow(lines))
        return lines.texts

    def furniture(self) -> tuple[list[str], list[str]]:
        """The texts of the headers and of the footers, each once."""
        found = []
        for roots in (_HEADERS, _FOOTERS):
            lines = Lines()
            self.parse("styles.xml", Flow(lines, roots))
            # A page number alone says nothing.
            texts = [text for text in lines.texts if not re.fullmatch(r"[\W\d]*", text)]
            found.append(list(dict.fromkeys(texts)))
        return found[0], found[1]


class _Locks(Handler):
    """Whether the manifest names a part that is encrypted."""

    def __init__(self) -> None:
        self.found = False

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        self.found = self.found or name == "encryption-data"


@dataclass
class _Block:
    text: str
    level: int | None = None
    gap: int = 2


@dataclass
class _Paragraph:
    level: int | None = None
    listed: bool = False
    pieces: list[str] = field(default_factory=list)
    # Notes, comments and text boxes anchored in the paragraph: read after it.
    after: list[_Block] = field(default_factory=list)


class Flow(Handler):
    """Reads the text inside of the elements `roots` into a sink; deep nesting costs no stack.

    `objects` collects the links to embedded objects.
    """

    def __init__(self, sink: Sink, roots: set[str] | None = None) -> None:
        self.objects: dict[str, None] = {}
        self.path: list[str] = []  # the names of the open elements
        self._sink = sink
        self._roots = roots or {"body"}
        self._inside = 0
        self._skipped = 0
        self._hidden: set[str] = set()  # styles that hide their text
        self._style = ""
        self._lists = 0
        self._paragraphs: list[_Paragraph] = []
        self._rows: list[list[list[_Block]]] = []
        # Where a finished block goes: a cell, or the list of what follows a paragraph.
        self._containers: list[list[_Block]] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Open an element."""
        parent = self.path[-1] if self.path else ""
        self.path.append(name)
        if self._skipped or self._is_unread(name, parent, attributes):
            self._skipped += 1
        elif name in self._roots:
            self._inside += 1
        elif not self._inside:
            self._note_style(name, attributes)
        elif name in ("p", "h") or is_description(name, parent):
            level = _level(attributes) if name == "h" else None
            self._paragraphs.append(_Paragraph(level, self._lists > 0))
            self._containers.append(self._paragraphs[-1].after)
        elif name == "list":
            self._lists += 1
        elif name == "table-row":
            self._rows.append([])
        elif name in ("table-cell", "covered-table-cell"):
            self._containers.append([])
        elif name == "object":
            self.objects.setdefault(attributes.get("href", ""))
        elif name == "s":
            count = attributes.get("c", "1")
            self._write(" " * min(int(count) if count.isdecimal() else 1, _MOST_SPACES))
        elif name == "tab":
            self._write("\t")
        elif name == "line-break":
            self._write("\n")

    def _is_unread(self, name: str, parent: str, attributes: dict[str, str]) -> bool:
        if name in _SKIPPED or (parent == "annotation" and name in _ABOUT_COMMENTS):
            return True
        if parent in ("p", "span") and name in _FIELDS:
            return True
        if name == "section" and attributes.get("display") == "none":
            return True
        return name in ("p", "h", "span") and attributes.get("style-name") in self._hidden

    def _note_style(self, name: str, attributes: dict[str, str]) -> None:
        if name == "style":
            self._style = attributes.get("name", "")
        elif name == "text-properties" and attributes.get("display") == "none":
            self._hidden.add(self._style)

    def text(self, text: str) -> None:
        """Take character data, in which white space counts as one space."""
        if not self._skipped:
            self._write(_SPACES.sub(" ", text))

    def _write(self, text: str) -> None:
        if self._paragraphs:
            self._paragraphs[-1].pieces.append(text)

    def end(self, name: str) -> None:
        """Close an element, and pass on what is complete with it."""
        self.path.pop()
        parent = self.path[-1] if self.path else ""
        if self._skipped:
            self._skipped -= 1
        elif name in self._roots:
            self._inside -= 1
        elif not self._inside:
            return
        elif name in ("p", "h") or is_description(name, parent):
            self._end_paragraph(name)
        elif name == "list":
            self._lists -= 1
        elif name in ("table-cell", "covered-table-cell"):
            cell = self._containers.pop()
            if self._rows:
                self._rows[-1].append(cell)
        elif name == "table-row":
            self.end_row([cell for cell in self._rows.pop() if cell])

    def _end_paragraph(self, name: str) -> None:
        paragraph = self._paragraphs.pop()
        self._containers.pop()
        text = "".join(paragraph.pieces).strip(" ")
        if name in ("title", "desc"):
            text = description(text)
        gap = 1 if paragraph.listed else 2
        self._emit(_Block(text, paragraph.level, gap))
        for block in paragraph.after:
            self._emit(_Block(block.text, block.level, 1))

    def end_row(self, cells: list[list[_Block]]) -> None:
        """Pass on a row of a table; a single cell is a frame around text more often."""
        if len(cells) == 1:
            for block in cells[0]:
                self._emit(block)
        else:
            texts = ("\n".join(block.text.strip() for block in cell) for cell in cells)
            self._emit(_Block("\t".join(texts), gap=1))

    def _emit(self, block: _Block) -> None:
        if not block.text.strip():
            return
        if self._containers:
            self._containers[-1].append(block)
        else:
            self._sink.add(block.text, level=block.level, gap=block.gap)


def is_description(name: str, parent: str) -> bool:
    """Whether an element describes a picture or shape: fields of the text have its name too."""
    return name in ("title", "desc") and parent not in _IN_TEXT


def description(text: str) -> str:
    """What a description says; "" for the ranges of cells that a chart's are full of."""
    return "" if _RANGE.fullmatch(text) else alt_text({"descr": text})


def points(length: str) -> float | None:
    """A length such as 21cm in points."""
    found = _LENGTH.fullmatch(length)
    return round(float(found[1]) * _POINTS[found[2]], 2) if found else None


def _level(attributes: dict[str, str]) -> int:
    value = attributes.get("outline-level", "1")
    return min(max(int(value), 1), 9) if value.isdecimal() else 1
