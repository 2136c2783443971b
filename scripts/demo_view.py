"""How scripts/demo shows itself: steps, a live table, and search hits as a person reads them."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
import time
import unicodedata
from collections.abc import Sequence
from typing import Any, TextIO

HAN = re.compile(r"[\u3400-\u9fff]{2,}")
WORD = re.compile(r"[^\W\u3400-\u9fff](?:[\w-]*\w)?")
STATUS_COLOUR = {"ready": "32", "failed": "31", "rejected": "31", "skipped": "33"}


def width_of(text: str) -> int:
    """Columns that a text takes on a terminal; Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def pad(text: str, width: int) -> str:
    """Fill up with spaces to a number of columns."""
    return text + " " * max(0, width - width_of(text))


def megabytes(size: int) -> str:
    """A size as people say it."""
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 1024:.1f} KiB"


class View:
    """Writes to a stream; colours and redraws only on a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self.columns = min(100, shutil.get_terminal_size((100, 24)).columns)
        self.started = time.monotonic()
        self._drawn = 0
        self._said: dict[str, str] = {}

    def paint(self, code: str, text: str) -> str:
        """Colour a text when somebody can see it."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.live else text

    def line(self, text: str = "") -> None:
        """Print one line."""
        print(text, file=self.stream, flush=True)

    def step(self, number: int, title: str) -> None:
        """Begin a step of the demo."""
        elapsed = f"{time.monotonic() - self.started:.1f} s"
        self.line()
        self.line(self.paint("1", f"{number}. {title}") + self.paint("2", f"   ({elapsed})"))

    def note(self, text: str) -> None:
        """Print an indented remark, folded to the terminal."""
        for line in textwrap.wrap(text, self.columns - 3, break_on_hyphens=False):
            self.line("   " + line)

    def table(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Show name, status and detail of each file; redrawn in place on a terminal.

        Elsewhere a row is printed when its status changed, so that a log stays readable.
        """
        names = max(width_of(name) for name, _, _ in rows)
        if self.live and self._drawn:
            self.stream.write(f"\x1b[{self._drawn}A")
        for name, status, detail in rows:
            text = f"   {pad(name, names)}  {pad(status, 10)}  {detail}"
            if self.live:
                plain = text[: self.columns - 1]
                colour = STATUS_COLOUR.get(status, "36")
                self.line("\x1b[2K" + plain.replace(status, self.paint(colour, status), 1))
            elif self._said.get(name) != status:
                self._said[name] = status
                self.line(text.rstrip())
        self._drawn = len(rows) if self.live else 0

    def table_done(self) -> None:
        """Leave the table where it stands."""
        self._drawn = 0
        self._said = {}

    def question(self, number: int, mode: str, query: str, why: str) -> None:
        """Announce a search."""
        self.line()
        self.line(f"   {number}. {self.paint('1;36', query)}   {self.paint('2', f'{mode}: {why}')}")

    def hit(self, hit: dict[str, Any], query: str) -> None:
        """Show one hit: file, page, score, and the passage with the query's words marked."""
        place = hit["name"] + (f", page {hit['page']}" if hit.get("page") else "")
        score = self.paint("2", f"{hit['score']:.3f}")
        self.line(f"      {self.paint('1', place)}   {score}")
        passage = " ".join(hit["snippet"].split())
        columns = self.columns - 9
        if passage:  # textwrap counts characters, a terminal counts columns
            columns = columns * len(passage) // width_of(passage)
        for line in textwrap.wrap(passage, columns, max_lines=3, placeholder=" …"):
            self.line("        " + self._mark(line, query))

    def _mark(self, text: str, query: str) -> str:
        """Mark words that begin like one of the query's, and Chinese pairs of characters."""
        beginnings = [
            word if re.search(r"\d", word) else word[: max(4, len(word) - 2)]
            for word in WORD.findall(query)
        ]
        pairs = [run[i : i + 2] for run in HAN.findall(query) for i in range(len(run) - 1)]
        wanted = [rf"\b{re.escape(word)}\w*" for word in beginnings if len(word) >= 4]
        wanted += [*HAN.findall(query), *map(re.escape, pairs)]
        if not wanted:
            return text
        pattern = re.compile("(?:" + "|".join(wanted) + ")+", re.IGNORECASE)
        return pattern.sub(
            lambda match: self.paint("1;33", match[0]) if self.live else f"«{match[0]}»", text
        )
