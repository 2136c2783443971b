"""PowerPoint: a page a slide, with its tables, charts, diagrams, comments and speaker notes."""

from __future__ import annotations

from collections.abc import Iterator

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.drawing import alt_text, drawing_texts
from narwhal.ingest.extractors.ooxml import Handler, Package
from narwhal.ingest.limits import Limits

PAGED = True

_EMU_PER_POINT = 12_700
_TITLES = {"title", "ctrTitle"}
# Placeholders of a slide, or of its notes page, that say nothing about this one slide.
_FURNITURE = {"sldNum", "sldImg", "dt", "hdr"}


class _Presentation(Handler):
    """The slides' relationship ids in order, and their size in points."""

    def __init__(self) -> None:
        self.slides: list[str] = []
        self.width: float | None = None
        self.height: float | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "sldSz":
            self.width, self.height = (_points(attributes.get(key, "")) for key in ("cx", "cy"))
        elif name == "sldId":
            self.slides.append(attributes.get(":id", ""))


class _Shapes(Handler):
    """Reads the shapes of a slide, in the order in which they are drawn, into blocks.

    Titles are collected apart: a slide is read title first, wherever the title was drawn. Of a
    layout only what it shows itself counts, not the places it keeps for a slide's text.
    """

    def __init__(self, *, is_layout: bool = False) -> None:
        self._is_layout = is_layout
        self.title: list[str] = []
        self.blocks: list[tuple[str, int]] = []  # text and the gap around it
        self._skipped = 0
        self._placeholder: str | None = None
        self._pieces: list[str] = []
        self._paragraph = 0
        self._texts = 0
        self._shape: list[str] = []
        self._rows: list[list[str]] = []
        self._cell: list[str] | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if self._skipped or name == "Fallback":
            self._skipped += 1
        elif name in ("sp", "cxnSp", "pic", "graphicFrame"):
            self._placeholder = None
        elif name == "ph":
            self._placeholder = attributes.get("type", "body")
        elif name == "cNvPr":
            description = alt_text(attributes)
            if description:
                self.blocks.append((description, 1))
        elif name == "tr":
            self._rows.append([])
        elif name == "tc":
            self._cell = []
        elif name == "p":
            self._pieces.clear()
        elif name == "t":
            self._texts += 1
        elif name == "br":
            self._pieces.append("\n")

    def text(self, text: str) -> None:
        if self._texts and not self._skipped:
            self._pieces.append(text)

    def end(self, name: str) -> None:
        if self._skipped:
            self._skipped -= 1
        elif name == "t":
            self._texts -= 1
        elif name == "p":
            text = "".join(self._pieces).strip()
            self._pieces.clear()
            is_kept = self._placeholder is None or not self._is_layout
            if text and is_kept and self._placeholder not in _FURNITURE:
                (self._shape if self._cell is None else self._cell).append(text)
        elif name == "tc" and self._cell is not None and self._rows:
            self._rows[-1].append(" ".join(self._cell))
            self._cell = None
        elif name == "tr" and self._rows:
            row = "\t".join(cell for cell in self._rows.pop() if cell)
            self.blocks.append((row, 1))
        elif name in ("sp", "cxnSp"):
            self._end_shape()

    def _end_shape(self) -> None:
        if self._placeholder in _TITLES:
            self.title.extend(self._shape)
        else:
            # The paragraphs of one shape belong together, most are items of a list.
            self.blocks.append(("\n".join(self._shape), 2))
        self._shape = []


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the slides in the order in which they are shown."""
    package = Package(source.file, limits)
    layouts: set[str] = set()
    parts, (width, height) = slides_of(package)
    for number, part in enumerate(parts, start=1):
        blocks = Blocks(limits)
        if part in package:
            _read_slide(package, part, blocks, layouts)
        yield blocks.page(number, width, height)


def slides_of(package: Package) -> tuple[list[str], tuple[float | None, float | None]]:
    """The parts of the slides in order, "" for one that is missing, and their size in points."""
    main = package.main_part("ppt/presentation.xml")
    presentation = _Presentation()
    package.parse(main, presentation)
    parts = {relation.id: relation.target for relation in package.relationships(main)}
    slides = [parts.get(slide, "") for slide in presentation.slides]
    return slides, (presentation.width, presentation.height)


def _read_slide(package: Package, part: str, blocks: Blocks, layouts: set[str]) -> None:
    """Add a slide; what its layout shows is read with the first slide that has it (`layouts`)."""
    shapes = _Shapes()
    package.parse(part, shapes)
    title = " ".join(" ".join(shapes.title).split())
    if title:
        blocks.add(title, level=1)
    else:
        blocks.mark(1, "")  # the last slide's title is not this slide's
    for text, gap in shapes.blocks:
        blocks.add(text, gap=gap)
    for kind in ("chart", "chartEx", "diagramData", "comments"):
        for target in package.targets(part, kind):
            for text in drawing_texts(package, target):
                blocks.add(text, gap=1)
    for layout in package.targets(part, "slideLayout"):
        for target in (layout, *package.targets(layout, "slideMaster")):
            if target not in layouts:
                layouts.add(target)
                shown = _Shapes(is_layout=True)
                package.parse(target, shown)
                for text, gap in shown.blocks:
                    blocks.add(text, gap=gap)
    for target in package.targets(part, "notesSlide"):
        notes = _Shapes()
        package.parse(target, notes)
        for text, gap in notes.blocks:
            blocks.add(text, gap=gap)


def _points(emu: str) -> float | None:
    return int(emu) / _EMU_PER_POINT if emu.isdecimal() else None
