"""Subtitles (SubRip, WebVTT): what is said, line after line, and when; without their numbers."""

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

_TIME = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})\d*"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}")
_UNSAID = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)\b")
_STYLE = re.compile(r"<[^<>]{0,200}>|\{\\[^{}]{0,200}\}")


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield all that is said as one page."""
    blocks = Blocks(limits)
    for cue in re.split(r"\n[^\S\n]*(?:\n\s*)+", read_text(source, limits)):
        lines, when = _said(cue.strip("\ufeff\n"))
        before = blocks.length
        for line in lines:
            text = unescape(_STYLE.sub("", line)).replace("\\N", " ").strip()
            blocks.add(text, gap=1)
        if when:
            blocks.say(before, *when)
    yield blocks.page(1)


def _said(cue: str) -> tuple[list[str], tuple[int, int] | None]:
    """The lines of a cue after its times, and those in ms; of the notes between cues, nothing."""
    lines = cue.split("\n")
    for index, line in enumerate(lines):
        if times := _TIMES.match(line):
            values = times.groups(default="0")
            return lines[index + 1 :], (_ms(*values[:4]), _ms(*values[4:]))
    return ([] if _UNSAID.match(cue) else lines), None


def _ms(hours: str, minutes: str, seconds: str, fraction: str) -> int:
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(
        fraction.ljust(3, "0")
    )
