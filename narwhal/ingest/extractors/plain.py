"""Plain text and Markdown: the text as it is, with Markdown's headings noted."""

from __future__ import annotations

import re
from collections.abc import Iterator

from narwhal.ingest.document import Heading, Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.reading import read_text
from narwhal.ingest.limits import Limits

PAGED = False

_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_MARKUP = re.compile(r"\[([^\]]*)\]\([^)]*\)|[*_`]{1,3}")
# What begins a block of another kind: the line above a rule of dashes is then no heading.
_NO_PARAGRAPH = re.compile(r"\s*(?:$|[>|]|[-*+][ \t]|\d+[.)][ \t]| {4})")


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the whole text as one page."""
    text = read_text(source, limits, share=1)
    headings = tuple(_headings(text)) if source.detected.format == "markdown" else ()
    yield Page(1, text, headings=headings)


def _headings(text: str) -> Iterator[Heading]:
    """Find Markdown's headings, leaving out code and the metadata at the top."""
    fence: str | None = None
    before, before_at = "", 0
    at = 0
    metadata = text.startswith("---\n")
    for number, line in enumerate(text.split("\n")):
        start, at = at, at + len(line) + 1
        if metadata:
            metadata = number == 0 or line.rstrip() not in ("---", "...")
            continue
        fenced = _FENCE.match(line)
        if fence is not None:
            if fenced and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = None
            continue
        if fenced:
            fence, before = fenced[1], ""
            continue
        atx = _ATX.match(line)
        underlined = _SETEXT.match(line)
        if atx:
            yield Heading(start, len(atx[1]), _title(atx[2] or ""))
            before = ""
        elif underlined and before:
            yield Heading(before_at, 1 if underlined[1][0] == "=" else 2, _title(before))
            before = ""
        else:
            before = "" if _NO_PARAGRAPH.match(line) else line
            before_at = start


def _title(markdown: str) -> str:
    return " ".join(_MARKUP.sub(lambda found: found[1] or "", markdown).split())[:200]
