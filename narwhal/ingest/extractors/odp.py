"""OpenDocument presentations and drawings: a page a slide, title first, speaker notes last."""

from __future__ import annotations

from collections.abc import Iterator

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.docx_body import Lines
from narwhal.ingest.extractors.odf import Files, Flow, points
from narwhal.ingest.extractors.ooxml import Handler
from narwhal.ingest.limits import Limits

PAGED = True

# Shapes of a slide, or of its notes, that say nothing about this one slide.
_FURNITURE = {"page-number", "date-time", "header", "page"}


class _Slide:
    """What one slide says; takes paragraphs as a sink, for the shape that is open."""

    def __init__(self, master: str) -> None:
        self.master = master
        self.title: list[str] = []
        self.shapes: list[str] = []
        self.notes: list[str] = []
        self.objects: list[str] = []


class _Slides(Flow):
    """Reads the slides, each complete one into `done`; of master pages only what they show."""

    def __init__(self, roots: set[str] | None = None, *, is_master: bool = False) -> None:
        self._lines = Lines()
        super().__init__(self._lines, roots)
        self.done: list[_Slide] = []
        self._page = "master-page" if is_master else "page"
        self._is_master = is_master
        self._slide: _Slide | None = None
        self._kind = ""
        self._depth = 0  # of the shape that is open
        self._notes = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        parent = self.path[-1] if self.path else ""
        super().start(name, attributes)
        if name == self._page:
            key = "name" if self._is_master else "master-page-name"
            self._slide = _Slide(attributes.get(key, ""))
        elif name == "notes":
            self._notes = True
        elif parent in (self._page, "notes", "g") and name != "g" and not self._depth:
            self._depth = len(self.path)
            self._kind = attributes.get("class", "")

    def end(self, name: str) -> None:
        depth = len(self.path)
        super().end(name)
        slide = self._slide
        if slide is None:
            return
        if depth == self._depth:
            self._end_shape(slide)
        elif name == "notes":
            self._notes = False
        elif name == self._page:
            slide.objects.extend(self.objects)
            self.objects.clear()
            self.done.append(slide)
            self._slide = None

    def _end_shape(self, slide: _Slide) -> None:
        self._depth = 0
        text = "\n".join(self._lines.texts)
        self._lines.texts.clear()
        is_place = self._is_master and self._kind not in ("", "footer")
        if self._kind in _FURNITURE or is_place or not text:
            return
        if self._notes:
            slide.notes.append(text)
        elif self._kind == "title":
            slide.title.append(text)
        else:
            # The paragraphs of one shape belong together, most are items of a list.
            slide.shapes.append(text)


class _Sizes(Handler):
    """The size of the pages of each master page, in points."""

    def __init__(self) -> None:
        self.layouts: dict[str, tuple[float | None, float | None]] = {}
        self.masters: dict[str, str] = {}
        self._layout = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "page-layout":
            self._layout = attributes.get("name", "")
        elif name == "page-layout-properties":
            size = (attributes.get(key, "") for key in ("page-width", "page-height"))
            width, height = (points(length) for length in size)
            self.layouts[self._layout] = (width, height)
        elif name == "master-page":
            self.masters[attributes.get("name", "")] = attributes.get("page-layout-name", "")

    def of(self, master: str) -> tuple[float | None, float | None]:
        """The width and height of pages made from `master`."""
        return self.layouts.get(self.masters.get(master, ""), (None, None))


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the slides in their order, hidden ones included."""
    files = Files(source, limits)
    sizes = _Sizes()
    files.parse("styles.xml", sizes)
    masters = _Slides({"master-styles"}, is_master=True)
    files.parse("styles.xml", masters)
    shown = {master.master: master.shapes for master in masters.done}
    slides = _Slides()
    number = 0
    for _ in files.steps("content.xml", slides):
        for slide in slides.done:
            number += 1
            blocks = Blocks(limits)
            _add_slide(slide, blocks, files)
            # What a master page shows is read with the first slide that has it.
            for text in [*shown.pop(slide.master, []), *slide.notes]:
                blocks.add(text)
            yield blocks.page(number, *sizes.of(slide.master))
        slides.done.clear()


def _add_slide(slide: _Slide, blocks: Blocks, files: Files) -> None:
    title = " ".join(" ".join(slide.title).split())
    if title:
        blocks.add(title, level=1)
    else:
        blocks.mark(1, "")  # the last slide's title is not this slide's
    for text in slide.shapes:
        blocks.add(text)
    for link in slide.objects:
        for text in files.object_texts(link):
            blocks.add(text, gap=1)
