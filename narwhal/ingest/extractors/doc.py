"""Word's older files (97 to 2003): the body, then notes, comments, text boxes, headers and footers.

The text lies in pieces, one character after the other, marks of cells and fields included; where
paragraphs end, the file's pages of properties (FKP) tell which of them are headings. MS-DOC is the
description of all of it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from struct import unpack_from

import olefile

from narwhal.ingest.document import Page, ReadError
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.limits import Limits
from narwhal.ingest.text import join_surrogates

PAGED = False

_MAGICS = (0xA5EC, 0xA5DC)  # since Word 97, before it
_WORD_97 = 0xC0  # the oldest version whose text lies in pieces
_ENCRYPTED, _SECOND_TABLE = 0x0100, 0x0200
_COUNTS = 0x4C  # of the characters of each part of the text, in the order of `_PARTS`
_PARTS = ("body", "footnotes", "headers", "macros", "comments", "endnotes", "boxes", "header boxes")
_PIECES, _PARAGRAPHS = 0x1A2, 0x102  # where the place and length of those tables stand
_COMPRESSED = 0x40000000
_FKP = 512
_MOST_LEVEL = 9  # styles 1 to 9 are the headings, whatever their names

_FIELDS = re.compile("[\x13\x14\x15]")
_MARKS = str.maketrans(
    {"\x0b": "\n", "\x0e": "\n", "\x1e": "-", "\xad": None, "\x1f": None}
    | dict.fromkeys("\x00\x01\x02\x03\x04\x05\x06\x08", None)
)


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the document's whole text as one page: such files do not know their pages."""
    with olefile.OleFileIO(source.file) as archive:
        main = archive.openstream("WordDocument").read()
        magic, version = unpack_from("<HH", main)
        (flags,) = unpack_from("<H", main, 10)
        if magic not in _MAGICS:
            raise ReadError("corrupt", "The document's main part is damaged.")
        if flags & _ENCRYPTED:
            raise ReadError("encrypted", "The document is locked with a password.")
        blocks = Blocks(limits)
        if version < _WORD_97:
            _add_old(main, blocks)
        else:
            table = archive.openstream("1Table" if flags & _SECOND_TABLE else "0Table").read()
            _add_parts(main, table, blocks)
    yield blocks.page(1)


def _add_old(main: bytes, blocks: Blocks) -> None:
    """Add the body of a file of Word 6 or 95: in one piece, unless it was saved in haste."""
    start, _end = unpack_from("<II", main, 0x18)
    (length,) = unpack_from("<I", main, 0x34)
    for text, _ in _paragraphs(main[start : start + length].decode("cp1252", errors="replace")):
        blocks.add(text, gap=1 if "\t" in text else 2)


def _add_parts(main: bytes, table: bytes, blocks: Blocks) -> None:
    pieces = _Pieces(main, table)
    levels = _Levels(main, table)
    counts = unpack_from("<8i", main, _COUNTS)
    spans: dict[str, tuple[int, int]] = {}
    start = 0
    for part, count in zip(_PARTS, counts, strict=True):
        spans[part] = (start, start + max(count, 0))
        start += max(count, 0)
    first, last = spans["body"]
    for text, end in _paragraphs(pieces.text(first, last)):
        level = levels.of(pieces.place(first + end))
        blocks.add(text, level=level, gap=1 if "\t" in text else 2)
    for part in ("footnotes", "endnotes", "comments", "boxes"):
        for text, _ in _paragraphs(pieces.text(*spans[part])):
            blocks.add(text, gap=1)
    texts = (text for text, _ in _paragraphs(pieces.text(*spans["headers"])))
    for text in dict.fromkeys(texts):
        if not re.fullmatch(r"[\W\d]*", text):  # a page number alone says nothing
            blocks.add(text)


class _Pieces:
    """The text, found by the numbers of its characters."""

    def __init__(self, main: bytes, table: bytes) -> None:
        self._main = main
        data = _piece_table(table, *unpack_from("<II", main, _PIECES))
        count = (len(data) - 4) // 12
        self._starts = list(unpack_from(f"<{count + 1}I", data))
        places = (unpack_from("<I", data, 4 * (count + 1) + 8 * i + 2)[0] for i in range(count))
        self._places = [place & ~0x80000000 for place in places]

    def text(self, first: int, last: int) -> str:
        """The characters from `first` up to `last`, one for each number."""
        found: list[str] = []
        for index, place in enumerate(self._places):
            start, end = self._starts[index : index + 2]
            start, end, offset = max(start, first), min(end, last), max(first - start, 0)
            if start < end:
                found.append(self._decode(place, offset, end - start))
        return "".join(found)

    def _decode(self, place: int, offset: int, count: int) -> str:
        if place & _COMPRESSED:
            start = (place & ~_COMPRESSED) // 2 + offset
            return self._main[start : start + count].decode("cp1252", errors="replace")
        start = place + 2 * offset
        data = self._main[start : start + 2 * count]
        # A character beyond 16 bits counts as two; its halves are joined once the text is whole.
        return "".join(map(chr, unpack_from(f"<{len(data) // 2}H", data)))

    def place(self, number: int) -> int:
        """Where in the file the character `number` is stored."""
        index = bisect_right(self._starts, number) - 1
        if not 0 <= index < len(self._places):
            return -1
        place, offset = int(self._places[index]), int(number - self._starts[index])
        if place & _COMPRESSED:
            return (place & ~_COMPRESSED) // 2 + offset
        return place + 2 * offset


def _piece_table(table: bytes, place: int, length: int) -> bytes:
    """The table of pieces, which stands behind formatting that is of no use here."""
    end = min(place + length, len(table))
    while place < end and table[place] == 1:
        place += 3 + int.from_bytes(table[place + 1 : place + 3], "little")
    if place >= end or table[place] != 2:
        raise ReadError("corrupt", "The document's table of pieces is damaged.")
    (length,) = unpack_from("<I", table, place + 1)
    return table[place + 5 : place + 5 + length]


class _Levels:
    """The heading levels of paragraphs, found by where their ends are stored."""

    def __init__(self, main: bytes, table: bytes) -> None:
        self._main = main
        place, length = unpack_from("<II", main, _PARAGRAPHS)
        data = table[place : place + length]
        count = max((len(data) - 4) // 8, 0)
        self._starts = list(unpack_from(f"<{count}I", data)) if count else []
        self._pages = list(unpack_from(f"<{count}I", data, 4 * (count + 1))) if count else []

    def of(self, place: int) -> int | None:
        """The level of the paragraph whose end is stored at `place`; None for no heading."""
        index = bisect_right(self._starts, place) - 1
        if index < 0:
            return None
        start = (self._pages[index] & 0x3FFFFF) * _FKP
        page = self._main[start : start + _FKP]
        if len(page) < _FKP:
            return None
        count = min(page[-1], 29)
        starts = unpack_from(f"<{count + 1}I", page)
        paragraph = bisect_right(starts, place) - 1
        if not 0 <= paragraph < count:
            return None
        at = page[4 * (count + 1) + 13 * paragraph] * 2
        at += 1 if at < _FKP and page[at] else 2
        if at + 2 > _FKP:
            return None
        (style,) = unpack_from("<H", page, at)
        return style if 1 <= style <= _MOST_LEVEL else None


def _paragraphs(text: str) -> Iterator[tuple[str, int]]:
    """Yield the paragraphs and the rows of tables, each with where its last mark stands."""
    start = depth = 0
    for found in re.finditer(r"[\r\x0c]|\x07\x07|\Z", text):
        raw = text[start : found.start()]
        shown, depth = _without_fields(raw, depth)
        cells = [join_surrogates(cell).strip() for cell in shown.translate(_MARKS).split("\x07")]
        yield "\t".join(cell for cell in cells if cell), found.start()
        start = found.end()


def _without_fields(text: str, depth: int) -> tuple[str, int]:
    """Leave out the instructions of fields, of which `depth` are open; their results stay."""
    shown: list[str] = []
    start = 0
    for found in _FIELDS.finditer(text):
        if depth == 0:
            shown.append(text[start : found.start()])
        if found[0] == "\x13":
            depth += 1
        elif found[0] == "\x14":
            depth = max(depth - 1, 0)
        start = found.end()
    if depth == 0:
        shown.append(text[start:])
    return "".join(shown), depth
