"""RTF: paragraphs with headings, tables, notes and text boxes; codepages and Unicode undone.

A file is a stream of control words in nested groups. Some groups are destinations: tables of fonts
and styles, pictures, data of programs. What is no text of the document is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.rtf_flow import Emit, Flow
from narwhal.ingest.extractors.rtf_words import (
    ASIDES,
    CHARACTERS,
    CHARSETS,
    ENTERED,
    FURNITURE,
    LABELS,
    SKIPPED,
)
from narwhal.ingest.limits import Limits
from narwhal.ingest.text import codec_of

PAGED = False

_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})?[ ]?|\\'([0-9a-fA-F]{2})|\\(.)|([{}])|([^\\{}\r\n\x00]+)|.",
    re.DOTALL,
)
_BRACE = re.compile(rb"\\bin(\d{1,10})[ ]?|\\.|([{}])", re.DOTALL)
_HEADING = re.compile(r"heading ([1-9])", re.IGNORECASE)
_TARGETS = {"fonttbl": "fonts", "stylesheet": "styles"}
_CODEPAGES = {"mac": "mac_roman", "pc": "cp437", "pca": "cp850"}


@dataclass(frozen=True)
class _State:
    """What holds until its group ends."""

    font: int | None = None
    fallbacks: int = 1  # how many characters after one in Unicode stand in for it
    is_hidden: bool = False
    is_deleted: bool = False
    target: str = "text"  # or fonts, styles
    has_flow: bool = False  # whether the group has a flow of text of its own


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the document's whole text as one page: such files do not know their pages."""
    blocks = Blocks(limits)
    read_rtf(source.file.read(), blocks)
    yield blocks.page(1)


def read_rtf(data: bytes, blocks: Blocks) -> None:
    """Add the text of an RTF document to `blocks`."""
    reader = _Reader(lambda text, level, gap: blocks.add(text, level=level, gap=gap))
    reader.read(data)
    for text in dict.fromkeys(reader.furniture):
        if not re.fullmatch(r"[\W\d]*", text):  # a page number alone says nothing
            blocks.add(text)


class _Reader:
    """Walks through the tokens; groups are kept on a list, so deep nesting costs no stack."""

    def __init__(self, emit: Emit) -> None:
        self.furniture: list[str] = []  # texts of headers and footers
        self._state = _State()
        self._groups: list[_State] = []
        self._flows = [Flow(emit)]
        self._bytes = bytearray()  # characters that wait for the end of their encoding
        self._codec = "cp1252"
        self._default_font: int | None = None
        self._font = 0  # the one that the table of fonts is describing
        self._fonts: dict[int, str] = {}
        self._style = 0  # the same of styles
        self._style_name = ""
        self._levels: dict[int, int] = {}
        self._to_skip = 0  # characters that stand in for one in Unicode
        self._is_first = False  # whether the next token is its group's first
        self._starred = False

    def read(self, data: bytes) -> None:
        """Read a whole file; what comes after the outermost group is not part of it."""
        place = 0
        while found := _TOKEN.match(data, place):
            place = found.end()
            word, number, byte, symbol, brace, text = found.groups()
            if text is not None:
                self._put(text)
            elif byte is not None:
                self._put(bytes((int(byte, 16),)))
            elif word is not None:
                name = word.decode("ascii")
                if name == "bin":
                    place += max(int(number or 0), 0)
                elif self._is_unread(name):
                    place = _end_of_group(data, place)
                else:
                    self._word(name, int(number) if number else None)
            elif symbol is not None:
                self._symbol(symbol)
            elif brace == b"{":
                self._begin_group()
                continue
            elif brace == b"}":
                self._end_group()
                if not self._groups:
                    break
            else:  # a line end, which says nothing
                continue
            self._is_first = False
        self._flush()
        while self._flows:
            self._flows.pop().finish()

    def _is_unread(self, name: str) -> bool:
        """Whether the group that this word begins is no text of the document."""
        starred, self._starred = self._starred, False
        if name in LABELS:
            self._flows[-1].is_list = True
        return name in SKIPPED or (starred and name not in ENTERED)

    def _begin_group(self) -> None:
        self._flush()
        self._to_skip = 0
        self._is_first = True
        self._groups.append(self._state)
        self._state = replace(self._state, has_flow=False)

    def _end_group(self) -> None:
        self._flush()
        self._to_skip = 0
        if self._state.target == "styles":
            self._end_style()
        if self._state.has_flow:
            self._flows.pop().finish()
        if self._groups:
            self._state = self._groups.pop()

    def _begin_flow(self, kept: list[str]) -> None:
        """Read the rest of the group apart; its paragraphs go to `kept`."""

        def keep(text: str, _level: int | None, _gap: int) -> None:
            if text:
                kept.append(text)

        if not self._state.has_flow:
            self._flush()
            self._flows.append(Flow(keep))
            self._state = replace(self._state, has_flow=True)

    def _symbol(self, symbol: bytes) -> None:
        if symbol == b"*":
            self._starred = self._is_first
        elif symbol in b"\\{}":
            self._put(symbol)
        elif symbol == b"~":
            self._write("\xa0")
        elif symbol == b"_":
            self._write("-")
        elif symbol in b"\r\n":
            self._text_word("par", None)

    def _word(self, name: str, number: int | None) -> None:
        if name in _TARGETS:
            self._state = replace(self._state, target=_TARGETS[name])
        elif self._state.target == "fonts":
            self._font_word(name, number or 0)
        elif self._state.target == "styles":
            self._style_word(name, number)
        elif name in ASIDES:
            self._begin_flow(self._flows[-1].after)
        elif name in FURNITURE:
            self._begin_flow(self.furniture)
        else:
            self._text_word(name, number)

    def _font_word(self, name: str, number: int) -> None:
        if name == "f":
            self._font = number
        elif name == "fcharset" and number in CHARSETS:
            self._fonts[self._font] = CHARSETS[number]
        elif name == "cpg":
            self._fonts[self._font] = codec_of(number)

    def _style_word(self, name: str, number: int | None) -> None:
        if name == "s":
            self._style = number or 0
        elif name == "outlinelevel" and number is not None and 0 <= number < 9:
            self._levels[self._style] = number + 1

    def _end_style(self) -> None:
        name = self._style_name.strip(" ;").lower()
        numbered = _HEADING.fullmatch(name)
        if numbered:
            self._levels.setdefault(self._style, int(numbered[1]))
        elif name == "title":
            self._levels.setdefault(self._style, 1)
        self._style, self._style_name = 0, ""

    def _text_word(self, name: str, number: int | None) -> None:
        if name == "u":
            self._unicode(number or 0)
        elif name in CHARACTERS:
            self._write(CHARACTERS[name])
        elif name in ("f", "plain", "uc", "v", "deleted"):
            self._style_characters(name, number)
        elif name == "ansicpg":
            self._codec = codec_of(number or 1252)
        elif name in _CODEPAGES:
            self._codec = _CODEPAGES[name]
        elif name == "deff":
            self._default_font = number
        else:
            self._paragraph_word(name, number)

    def _paragraph_word(self, name: str, number: int | None) -> None:
        flow = self._flows[-1]
        if name in ("par", "sect", "page", "cell", "row"):
            self._flush()
        if name in ("par", "sect", "page"):
            flow.end_paragraph()
        elif name == "cell":
            flow.end_cell()
        elif name == "row":
            flow.end_row()
        elif name == "pard":
            flow.reset()
        elif name == "intbl":
            flow.in_table = True
        elif name == "s":
            flow.level = self._levels.get(number or 0)
        elif name == "outlinelevel" and number is not None:
            flow.level = number + 1 if 0 <= number < 9 else None
        elif name == "ls":
            flow.is_list = True

    def _style_characters(self, name: str, number: int | None) -> None:
        self._flush()
        if name == "f":
            self._state = replace(self._state, font=number)
        elif name == "plain":
            self._state = replace(self._state, font=None, is_hidden=False, is_deleted=False)
        elif name == "uc":
            self._state = replace(self._state, fallbacks=max(number or 0, 0))
        elif name == "v":
            self._state = replace(self._state, is_hidden=number != 0)
        else:
            self._state = replace(self._state, is_deleted=number != 0)

    def _unicode(self, number: int) -> None:
        code = number & 0xFFFF
        # Private characters are pictures of a symbol font.
        self._write("" if 0xE000 <= code <= 0xF8FF else chr(code))
        self._to_skip = self._state.fallbacks

    def _put(self, data: bytes) -> None:
        """Take characters in the encoding of the font."""
        skipped = min(self._to_skip, len(data))
        self._to_skip -= skipped
        self._bytes += data[skipped:]

    def _write(self, text: str) -> None:
        """Take a character that needs no decoding."""
        self._to_skip = 0
        self._flush()
        self._pass_on(text)

    def _flush(self) -> None:
        """Decode the characters that have come so far."""
        if self._bytes:
            font = self._default_font if self._state.font is None else self._state.font
            codec = self._codec if font is None else self._fonts.get(font, self._codec)
            self._pass_on(self._bytes.decode(codec, errors="replace"))
            self._bytes.clear()

    def _pass_on(self, text: str) -> None:
        state = self._state
        if state.target == "styles":
            self._style_name = (self._style_name + text)[-100:]
        elif state.target == "text" and not (state.is_hidden or state.is_deleted):
            self._flows[-1].pieces.append(text)


def _end_of_group(data: bytes, place: int) -> int:
    """Where the group that is open at `place` ends: before its closing brace."""
    depth = 1
    while found := _BRACE.search(data, place):
        place = found.end()
        if found[1]:
            place += int(found[1])
        elif found[2] == b"{":
            depth += 1
        elif found[2] == b"}":
            depth -= 1
            if depth == 0:
                return found.start()
    return len(data)
