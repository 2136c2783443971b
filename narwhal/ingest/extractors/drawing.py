"""Text in the graphics of Office files: charts, diagrams, and descriptions of pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping

from narwhal.ingest.extractors.ooxml import Handler, Package
from narwhal.ingest.extractors.xlsx_numbers import NumberFormat, show_number

_FILE = re.compile(r"(?:\w:|[\\/]|\w+://)\S*|\S+\.(?:png|jpe?g|gif|bmp|tiff?|emf|wmf|svg)", re.I)


def alt_text(attributes: Mapping[str, str]) -> str:
    """The description of a picture or shape; "" where a program put a file's name there."""
    description = attributes.get("descr", "").strip()
    description = description.removesuffix("Description automatically generated").strip()
    return "" if _FILE.fullmatch(description) else description


_NAMES, _CATEGORIES, _VALUES = {"tx"}, {"cat", "xVal"}, {"val", "yVal", "bubbleSize"}
_ROWS = _NAMES | _CATEGORIES | _VALUES


class _Drawing(Handler):
    """Collects the paragraphs of a drawing; of a chart, its categories and a line for each series.

    The line of a series begins with its name. Equal lines are kept once.
    """

    def __init__(self) -> None:
        self.texts: dict[str, None] = {}
        self._pieces: list[str] = []
        self._open: list[str] = []
        self._row: list[str] | None = None  # the values of the row that is open
        self._series: list[str] = []  # the name of the series that is open, where it has one

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        self._open.append(name)
        if name in _ROWS:
            self._row = []
        elif name == "br":
            self._pieces.append("\n")

    def text(self, text: str) -> None:
        # `text` is where comments on slides keep their words, `v` a chart its values.
        if self._open and self._open[-1] in ("t", "text", "v"):
            self._pieces.append(text)

    def end(self, name: str) -> None:
        if self._open:
            self._open.pop()
        if name in ("p", "v", "text"):
            text = "".join(self._pieces).strip()
            self._pieces.clear()
            if name == "v" and self._row is not None:
                self._row.append(show_number(text, NumberFormat()))
            else:
                self._add(text)
        elif name in _ROWS and self._row is not None:
            self._end_row(name, self._row)
            self._row = None
        elif name == "ser":
            self._add("\t".join(self._series))
            self._series = []

    def _end_row(self, name: str, row: list[str]) -> None:
        if name in _NAMES and "ser" in self._open:
            self._series = row
        elif name in _VALUES:
            self._add("\t".join([*self._series, *row]))
            self._series = []
        else:
            self._add("\t".join(row))

    def _add(self, text: str) -> None:
        if text.strip():
            self.texts.setdefault(text)


def drawing_texts(package: Package, part: str) -> list[str]:
    """The texts of a chart or diagram part, each once, in order."""
    drawing = _Drawing()
    package.parse(part, drawing)
    return list(drawing.texts)
