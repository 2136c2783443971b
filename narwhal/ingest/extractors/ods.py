"""OpenDocument spreadsheets: a page a sheet, a line a row, cells parted by tabs, as they are shown.

A cell or row that claims to stand there many times is read once.
"""

from __future__ import annotations

from collections.abc import Iterator

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.odf import Files, description, is_description
from narwhal.ingest.extractors.ooxml import Handler
from narwhal.ingest.limits import Limits

PAGED = True

_ABOUT_COMMENTS = {"creator", "date", "creator-initials", "date-string"}
_SKIPPED = {"tracked-changes", "forms", "binary-data", "named-expressions", "ruby-text"}


class _Sheets(Handler):
    """Reads each table of the body into a page's blocks, which `pages` holds when they are done."""

    def __init__(self, limits: Limits) -> None:
        self.pages: list[tuple[Blocks, list[str]]] = []  # with the links to embedded objects
        self._limits = limits
        self._blocks: Blocks | None = None
        self._objects: list[str] = []
        self._path: list[str] = []
        self._tables = 0
        self._skipped = 0
        self._is_body = False
        self._row: list[str] = []
        self._cell: list[str] = []
        self._apart: list[str] = []  # comments and the texts of shapes: read after their row
        self._elsewhere = 0  # open comments and shapes
        self._paragraphs: list[list[str]] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        parent = self._path[-1] if self._path else ""
        self._path.append(name)
        about = parent == "annotation" and name in _ABOUT_COMMENTS
        if name == "body":
            self._is_body = True
        if not self._is_body:
            return
        if self._skipped or name in _SKIPPED or about:
            self._skipped += 1
        elif name == "table":
            self._tables += 1
            if self._tables == 1:
                self._blocks = Blocks(self._limits)
                self._objects = []
                self._blocks.add(attributes.get("name", ""), level=1)
        elif name in ("annotation", "shapes", "frame"):
            self._elsewhere += 1
        elif name == "object":
            self._objects.append(attributes.get("href", ""))
        elif name == "p" or is_description(name, parent):
            self._paragraphs.append([])
        elif name in ("s", "tab", "line-break"):
            self.text(" ")

    def text(self, text: str) -> None:
        if self._paragraphs and not self._skipped:
            self._paragraphs[-1].append(text)

    def end(self, name: str) -> None:
        self._path.pop()
        parent = self._path[-1] if self._path else ""
        if not self._is_body:
            return
        if self._skipped:
            self._skipped -= 1
        elif name == "p" or is_description(name, parent):
            text = " ".join("".join(self._paragraphs.pop()).split())
            if name != "p":
                text = description(text)
            if text:
                (self._apart if self._elsewhere else self._cell).append(text)
        elif name in ("annotation", "shapes", "frame"):
            self._elsewhere -= 1
        elif name in ("table-cell", "covered-table-cell"):
            if self._cell:
                self._row.append("\n".join(self._cell))
            self._cell = []
        elif name == "table-row":
            self._end_row()
        elif name == "table":
            self._tables -= 1
            if self._tables == 0:
                self._end_table()

    def _end_row(self) -> None:
        if self._blocks:
            self._blocks.add("\t".join(self._row), gap=1)
            for text in self._apart:
                self._blocks.add(text, gap=1)
        self._row, self._apart = [], []

    def _end_table(self) -> None:
        self._end_row()
        if self._blocks:
            self.pages.append((self._blocks, self._objects))
        self._blocks = None


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the sheets in their order, hidden ones included."""
    files = Files(source, limits)
    sheets = _Sheets(limits)
    number = 0
    for _ in files.steps("content.xml", sheets):
        for blocks, objects in sheets.pages:
            number += 1
            for link in objects:
                for text in files.object_texts(link):
                    blocks.add(text, gap=1)
            yield blocks.page(number)
        sheets.pages.clear()
