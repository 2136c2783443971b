"""Text in the graphics of Office files: charts, diagrams, and descriptions of pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping

from narwhal.ingest.extractors.ooxml import Handler, Package

_FILE = re.compile(r"(?:\w:|[\\/]|\w+://)\S*|\S+\.(?:png|jpe?g|gif|bmp|tiff?|emf|wmf|svg)", re.I)


def alt_text(attributes: Mapping[str, str]) -> str:
    """The description of a picture or shape; "" where a program put a file's name there."""
    description = attributes.get("descr", "").strip()
    description = description.removesuffix("Description automatically generated").strip()
    return "" if _FILE.fullmatch(description) else description


class _Drawing(Handler):
    """Collects paragraphs of drawing text, and the names that charts keep in string caches."""

    def __init__(self) -> None:
        self.texts: dict[str, None] = {}
        self._pieces: list[str] = []
        self._open: list[str] = []

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        self._open.append(name)
        if name == "br":
            self._pieces.append("\n")

    def text(self, text: str) -> None:
        name = self._open[-1] if self._open else ""
        # `text` is where comments on slides keep their words.
        if name in ("t", "text") or (name == "v" and "strCache" in self._open[-4:]):
            self._pieces.append(text)

    def end(self, name: str) -> None:
        if self._open:
            self._open.pop()
        if name in ("p", "v", "text"):
            text = "".join(self._pieces).strip()
            self._pieces.clear()
            if text:
                self.texts.setdefault(text)


def drawing_texts(package: Package, part: str) -> list[str]:
    """The texts of a chart or diagram part, each once, in order."""
    drawing = _Drawing()
    package.parse(part, drawing)
    return list(drawing.texts)
