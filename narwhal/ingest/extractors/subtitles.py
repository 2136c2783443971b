"""Subtitles (SubRip, WebVTT): what is said, line after line, without numbers and times."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.reading import read_text
from narwhal.ingest.limits import Limits

PAGED = False

_TIMES = re.compile(r"\s*(?:\d+:)?\d+:\d+[.,]\d+\s*-->\s*(?:\d+:)?\d+:\d+[.,]\d+")
_UNSAID = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)\b")
_STYLE = re.compile(r"<[^<>]{0,200}>|\{\\[^{}]{0,200}\}")


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield all that is said as one page."""
    blocks = Blocks(limits)
    for cue in re.split(r"\n[^\S\n]*(?:\n\s*)+", read_text(source, limits)):
        for line in _said(cue.strip("\ufeff\n")):
            text = unescape(_STYLE.sub("", line)).replace("\\N", " ").strip()
            blocks.add(text, gap=1)
    yield blocks.page(1)


def _said(cue: str) -> list[str]:
    """The lines of a cue after its times; of the notes between cues, nothing."""
    lines = cue.split("\n")
    for index, line in enumerate(lines):
        if _TIMES.match(line):
            return lines[index + 1 :]
    return [] if _UNSAID.match(cue) else lines
