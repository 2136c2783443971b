"""Excel: a page a sheet, a line a row, cells parted by tabs, values as they are shown.

Only cells that are filled are read, so a sheet that claims thousands of millions of cells costs no
more than it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.drawing import drawing_texts
from narwhal.ingest.extractors.ooxml import Handler, Package, is_on
from narwhal.ingest.extractors.xlsx_numbers import Formats, show_number
from narwhal.ingest.limits import Limits

PAGED = True

_FIELD_CODES = re.compile(r'&(?:"[^"]*"|\d+|K[0-9A-Fa-f]{6}|[LCRPNDTFAZGBIUESXYOH+-])')
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


class _Workbook(Handler):
    """The sheets as (name, relationship id), and whether dates count from 1904."""

    def __init__(self) -> None:
        self.sheets: list[tuple[str, str]] = []
        self.from_1904 = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "sheet":
            self.sheets.append((attributes.get("name", ""), attributes.get(":id", "")))
        elif name == "workbookPr" and "date1904" in attributes:
            self.from_1904 = is_on(attributes, "date1904")


class _Strings(Handler):
    """The shared strings, without the phonetic guides of East Asian text."""

    def __init__(self) -> None:
        self.strings: list[str] = []
        self._pieces: list[str] = []
        self._texts = 0
        self._phonetic = False

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        if name == "si":
            self._pieces.clear()
        elif name == "t":
            self._texts += 1
        elif name == "rPh":
            self._phonetic = True

    def text(self, text: str) -> None:
        if self._texts and not self._phonetic:
            self._pieces.append(text)

    def end(self, name: str) -> None:
        if name == "si":
            self.strings.append(_unescape("".join(self._pieces)))
        elif name == "t":
            self._texts -= 1
        elif name == "rPh":
            self._phonetic = False


class _Sheet(Handler):
    """Reads the rows of a sheet, its headers and footers, into blocks."""

    def __init__(self, blocks: Blocks, strings: list[str], formats: Formats) -> None:
        self._blocks = blocks
        self._strings = strings
        self._formats = formats
        self._row: list[str] = []
        self._type = ""
        self._style = ""
        self._pieces: list[str] | None = None
        self._value = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "c":
            self._type = attributes.get("t", "n")
            self._style = attributes.get("s", "")
            self._value = ""
        elif name in ("v", "t") or name.endswith(("Header", "Footer")):
            self._pieces = []

    def text(self, text: str) -> None:
        if self._pieces is not None:
            self._pieces.append(text)

    def end(self, name: str) -> None:
        if self._pieces is not None and name in ("v", "t"):
            # The runs of an inline string add up.
            self._value += "".join(self._pieces)
            self._pieces = None
        elif name == "c":
            shown = self._show()
            if shown:
                self._row.append(shown)
        elif name == "row":
            self._blocks.add("\t".join(self._row), gap=1)
            self._row = []
        elif self._pieces is not None and name.endswith(("Header", "Footer")):
            words = _FIELD_CODES.sub(" ", "".join(self._pieces)).split()
            self._blocks.add(" ".join(words), gap=1)
            self._pieces = None

    def _show(self) -> str:
        value = self._value.strip()
        if self._type == "s":
            index = int(value) if value.isdecimal() else -1
            return self._strings[index].strip() if 0 <= index < len(self._strings) else ""
        if self._type == "b":
            return "TRUE" if value == "1" else "FALSE"
        if self._type in ("str", "inlineStr"):
            return _unescape(value)
        if self._type in ("e", "d"):
            return value
        return show_number(value, self._formats.get(self._style))


class _Notes(Handler):
    """The comments of a sheet, each in one piece."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._pieces: list[str] = []
        self._texts = 0

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        if name in ("t", "text"):
            self._texts += 1

    def text(self, text: str) -> None:
        if self._texts:
            self._pieces.append(text)

    def end(self, name: str) -> None:
        if name in ("t", "text"):
            self._texts -= 1
        if name in ("comment", "threadedComment"):
            self.notes.append("".join(self._pieces))
            self._pieces.clear()


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the sheets in the workbook's order, hidden ones included."""
    package = Package(source.file, limits)
    main = package.main_part("xl/workbook.xml")
    workbook, strings = _Workbook(), _Strings()
    package.parse(main, workbook)
    for part in package.targets(main, "sharedStrings"):
        package.parse(part, strings)
    formats = Formats(from_1904=workbook.from_1904)
    for part in package.targets(main, "styles"):
        package.parse(part, formats)
    parts = {relation.id: relation.target for relation in package.relationships(main)}
    for number, (name, sheet) in enumerate(workbook.sheets, start=1):
        blocks = Blocks(limits)
        blocks.add(name, level=1)
        part = parts.get(sheet, "")
        if part in package:
            package.parse(part, _Sheet(blocks, strings.strings, formats))
            _read_extras(package, part, blocks)
        yield blocks.page(number)


def _read_extras(package: Package, sheet: str, blocks: Blocks) -> None:
    """Add a sheet's comments, text boxes and the words of its charts."""
    for kind in ("comments", "threadedComment"):
        for part in package.targets(sheet, kind):
            notes = _Notes()
            package.parse(part, notes)
            for note in notes.notes:
                blocks.add(note, gap=1)
    for drawing in package.targets(sheet, "drawing"):
        for part in (drawing, *package.targets(drawing, "chart")):
            for text in drawing_texts(package, part):
                blocks.add(text, gap=1)


def _unescape(text: str) -> str:
    """Undo Excel's escapes of characters that XML cannot hold, e.g. _x000D_."""
    if "_x" not in text:
        return text
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
