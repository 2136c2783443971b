"""Cutting pages into overlapping chunks that an embedding model can read whole.

A chunk ends at the best separator of its last half: a blank line, a line end, the end of a
sentence, a space, and only else anywhere. The next one begins `overlap` characters or a little more
before that end, so that a phrase cut in one chunk stands whole in the next.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from narwhal.errors import NarwhalError
from narwhal.ingest.document import Box, Chunk, Document, Heading, Line
from narwhal.ingest.language import Languages

# From the strongest; a sentence may end in any script.
_SEPARATORS = (
    re.compile(r"\n[^\S\n]*\n\s*"),
    re.compile(r"\n\s*"),
    re.compile(r"(?:[.!?\u2026\u061f\u06d4\u0964][\"'\u201d\u2019)\]]*\s+)|[\u3002\uff01\uff1f]+"),
    re.compile(r"\s+"),
)
_HEADING_SEPARATOR = " \u203a "
_NOT_SPACE = re.compile(r"\S")
_LONGEST_GRAPHEME = 64
_LOOK_BACK = 80
_MOST_BOXES = 64


@dataclass(frozen=True)
class _Cutter:
    """The bounds that every chunk keeps."""

    size: int
    overlap: int
    count_tokens: Callable[[str], int]
    max_tokens: int


def chunk(
    document: Document,
    *,
    size: int = 1000,
    overlap: int = 200,
    count_tokens: Callable[[str], int],
    max_tokens: int,
) -> list[Chunk]:
    """Cut `document` into chunks of at most `size` characters and `max_tokens` tokens.

    `count_tokens` counts a text's tokens, special ones included. Chunks never span pages; white
    space at their ends is left out. At most half of a chunk is overlap, and a third where tokens
    bound it more than characters do. Raises NarwhalError INVALID_ARGUMENT unless
    0 <= overlap < size and max_tokens >= 8.
    """
    _check(size, overlap, max_tokens)
    cutter = _Cutter(size, overlap, count_tokens, max_tokens)
    languages = Languages(document)
    chunks: list[Chunk] = []
    above: list[Heading] = []
    for page in document.pages:
        lines = _LineIndex(page.lines)
        passed = 0
        for start, end, fresh in _spans(page.text, cutter, [h.start for h in page.headings]):
            # The path is that of the text which is new in this chunk, not of its overlap.
            while passed < len(page.headings) and page.headings[passed].start <= fresh:
                _enter(above, page.headings[passed])
                passed += 1
            content = page.text[start:end]
            chunks.append(
                Chunk(
                    idx=len(chunks),
                    page=page.number if document.paged else None,
                    content=content,
                    char_start=start,
                    char_end=end,
                    bboxes=lines.boxes(start, end),
                    heading=_path(above),
                    language=languages.of(content),
                )
            )
        for heading in page.headings[passed:]:
            _enter(above, heading)
    return chunks


def _enter(above: list[Heading], heading: Heading) -> None:
    """Make `heading` the innermost: it ends those of its level and below."""
    while above and above[-1].level >= heading.level:
        above.pop()
    if heading.text:
        above.append(heading)


def _path(above: Sequence[Heading]) -> str | None:
    return _HEADING_SEPARATOR.join(heading.text for heading in above) or None


def _check(size: int, overlap: int, max_tokens: int) -> None:
    for wrong, name, rule in (
        (size < 1, "chunk_size", "at least 1"),
        (overlap < 0 or overlap >= size, "chunk_overlap", f"at least 0 and less than {size}"),
        (max_tokens < 8, "max_tokens", "at least 8"),
    ):
        if wrong:
            raise NarwhalError(
                f"{name} must be {rule}.",
                "Chunks of 1000 characters that overlap by 200 suit most documents.",
                error="INVALID_ARGUMENT",
                status=422,
                details={"field": name},
            )


def _spans(text: str, cutter: _Cutter, headings: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, first new character) of each chunk; the work grows with the text only."""
    start = fresh = _skip_space(text, 0)
    while start < len(text):
        end, is_dense = _end(text, start, fresh, cutter, headings)
        if end <= fresh:  # the overlap alone is all that the model can read
            start = fresh
            continue
        stripped = end
        while text[stripped - 1].isspace():
            stripped -= 1
        yield start, stripped, fresh
        fresh = _skip_space(text, end)
        if fresh >= len(text):
            return
        length = end - start
        overlap = min(cutter.overlap, length // 2)
        if is_dense:
            overlap = min(overlap, length // 3)
        start = _skip_space(text, _start(text, start + 1, end - overlap)) if overlap else fresh


def _end(
    text: str, start: int, fresh: int, cutter: _Cutter, headings: Sequence[int]
) -> tuple[int, bool]:
    """Where the chunk from `start` ends, and whether its tokens decided that.

    The end lies beyond `fresh` unless the model cannot read that far; from `fresh` itself it can.
    """
    limit = min(start + cutter.size, len(text))
    is_dense = False
    while True:
        end = limit if limit == len(text) else _cut(text, start, fresh, limit, headings)
        tokens = cutter.count_tokens(text[start:end].rstrip())
        if tokens <= cutter.max_tokens or end - start <= 1:
            return end, is_dense
        # Shrink in proportion, and a little more, so that few rounds are needed.
        is_dense = True
        shrunk = int((end - start) * cutter.max_tokens / tokens * 0.95)
        limit = start + max(1, min(shrunk, end - start - 1))
        if limit <= fresh and fresh > start:
            return limit, is_dense


def _cut(text: str, start: int, fresh: int, limit: int, headings: Sequence[int]) -> int:
    """The best place for an end in the last half of `start..limit`, which lies inside the text."""
    floor = max(start + (limit - start) // 2, min(fresh, limit - 1))
    last = bisect_right(headings, limit) - 1
    if last >= 0 and headings[last] > floor:
        return headings[last]
    for separator in _SEPARATORS:
        found = 0
        for match in separator.finditer(text, floor, limit):
            if match.end() > floor and _is_boundary(text, match.end()):
                found = match.end()
        if found:
            return found
    for end in range(limit, max(floor, limit - _LONGEST_GRAPHEME), -1):
        if _is_boundary(text, end):
            return end
    return limit


def _start(text: str, low: int, target: int) -> int:
    """A good beginning at or shortly before `target`, not before `low`."""
    low = max(low, target - _LOOK_BACK)
    if low >= target:
        return max(low, target)
    for separator in _SEPARATORS[1:]:
        found = 0
        for match in separator.finditer(text, low, target):
            if _is_boundary(text, match.end()):
                found = match.end()
        if found:
            return found
    for start in range(target, low, -1):
        if _is_boundary(text, start):
            return start
    return target


def _skip_space(text: str, at: int) -> int:
    found = _NOT_SPACE.search(text, at)
    return found.start() if found else len(text)


def _is_boundary(text: str, at: int) -> bool:
    """Whether `text` may be cut before `at` without tearing a character that people see as one."""
    if at <= 0 or at >= len(text):
        return True
    before, after = text[at - 1], text[at]
    if after < "\u0300":  # nothing below combines with what stands before it
        return before != "\u200d"
    if after == "\u200d" or before == "\u200d" or "\U0001f3fb" <= after <= "\U0001f3ff":
        return False
    if unicodedata.category(after) in ("Mn", "Me", "Mc"):
        return False
    if "\u1160" <= after <= "\u11ff" and "\u1100" <= before <= "\u11ff":  # a Korean syllable
        return False
    if _is_flag(before) and _is_flag(after):  # two letters are one flag
        first = at - 1
        while first > 0 and at - first < _LONGEST_GRAPHEME and _is_flag(text[first - 1]):
            first -= 1
        return (at - first) % 2 == 0
    return True


def _is_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


class _LineIndex:
    """Finds the boxes of the lines that a span touches."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self._starts = [line.start for line in lines]
        self._ends = [line.end for line in lines]

    def boxes(self, start: int, end: int) -> tuple[Box, ...]:
        """The boxes of `start..end`, lines of one column merged into one."""
        merged: list[Box] = []
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
        for line in self._lines[first:last]:
            if merged and _is_below(merged[-1], line.box):
                top, box = merged[-1], line.box
                merged[-1] = (
                    min(top[0], box[0]),
                    min(top[1], box[1]),
                    max(top[2], box[2]),
                    max(top[3], box[3]),
                )
            else:
                merged.append(line.box)
        return tuple(merged[:_MOST_BOXES])


def _is_below(block: Box, line: Box) -> bool:
    """Whether `line` continues `block`: in its last line or close below, and over or under it."""
    height = max(line[3] - line[1], 0.001)
    near = -height <= line[1] - block[3] <= 1.5 * height
    return near and line[0] < block[2] + height and block[0] < line[2] + height
