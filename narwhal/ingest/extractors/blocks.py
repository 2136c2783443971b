"""Building a page's text from blocks, with the headings' places kept."""

from __future__ import annotations

import re
from typing import NoReturn

from narwhal.ingest.document import Heading, Page, ReadError, Spoken
from narwhal.ingest.extractors import FullError, is_late, too_much_text, took_too_long
from narwhal.ingest.limits import Limits
from narwhal.ingest.text import clean

_MOST_PARTS = 1_000
_SPACES = re.compile(r"[^\S\n\t]*\n[^\S\n\t]*")


class Blocks:
    """A page's text as it grows, block by block (a paragraph, a heading, a row of a table)."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pieces: list[str] = []
        self._parts: list[str] = []  # since the last piece: many small strings take much memory
        self._headings: list[Heading] = []
        self._times: list[Spoken] = []
        self._gap = 0
        self.length = 0

    def add(self, text: str, *, level: int | None = None, gap: int = 2) -> None:
        """Append one block; `level` makes it a heading.

        `gap` line ends are kept to the blocks before and after (1 inside tables and lists, 2
        between paragraphs); of two neighbours' gaps the greater counts. Blank blocks are dropped.
        """
        text = clean(text).strip(" \n\r\f\v\xa0" if "\t" in text else None).rstrip()
        if not text or text.isspace():
            return
        self._separate(gap)
        if level is not None:
            self.mark(level, text)
        self._put(text, gap)

    def append(self, page: Page, *, deeper: int = 0) -> None:
        """Append another page's text with its headings, each `deeper` levels further down."""
        if not page.text:
            return
        self._separate(2)
        for heading in page.headings:
            place = self.length + heading.start
            self._headings.append(Heading(place, heading.level + deeper, heading.text))
        self._put(page.text, 2)

    def _separate(self, gap: int) -> None:
        if self.length:
            separator = "\n" * max(gap, self._gap)
            self._parts.append(separator)
            self.length += len(separator)

    def _put(self, text: str, gap: int) -> None:
        self._parts.append(text)
        self.length += len(text)
        self._gap = gap
        if self.length > self._limits.characters:
            self.end_with(too_much_text(self._limits))
        if len(self._parts) > _MOST_PARTS:
            self._pieces.append("".join(self._parts))
            self._parts.clear()
            if is_late():
                self.end_with(took_too_long(self._limits))

    def end_with(self, error: ReadError) -> NoReturn:
        """End reading because of a limit, with the text so far."""
        raise FullError(error.code, error.message, self.page)

    def apart(self) -> None:
        """Keep what comes next apart from what is there, as a paragraph."""
        self._gap = 2

    def mark(self, level: int, title: str) -> None:
        """Note a heading at the end of the text so far; an empty title ends all headings above."""
        self._headings.append(Heading(self.length, level, " ".join(clean(title).split())[:200]))

    def say(self, since: int, start_ms: int, end_ms: int) -> None:
        """Note when the blocks were said that were added since the text had that length."""
        if since < self.length and start_ms < end_ms:
            self._times.append(Spoken(since, self.length, start_ms, end_ms))

    def page(self, number: int, width: float | None = None, height: float | None = None) -> Page:
        """Make the page of what was added."""
        return Page(
            number=number,
            text="".join([*self._pieces, *self._parts]),
            width=width,
            height=height,
            headings=tuple(self._headings),
            times=tuple(self._times),
        )
