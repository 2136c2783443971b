"""Cutting pages into overlapping chunks that an embedding model can read whole.

A chunk ends at the best separator of its last half: a blank line, a line end, the end of a
sentence, a space, and only else anywhere. The next one begins `overlap` characters or a little more
before that end, so that a phrase cut in one chunk stands whole in the next.

A passage from the middle of a text seldom says what the text is about. So each chunk has a context:
the title and the headings above it. Search reads the context with the chunk; what is shown and
quoted is the chunk alone.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from narwhal.errors import NarwhalError
from narwhal.ingest.document import Box, Chunk, Document, Heading, Line, Page, Spoken
from narwhal.ingest.language import Languages

# From the strongest; a sentence may end in any script.
_SEPARATORS = (
    re.compile(r"\n[^\S\n]*\n\s*"),
    re.compile(r"\n\s*"),
    re.compile(r"(?:[.!?\u2026\u061f\u06d4\u0964][\"'\u201d\u2019)\]]*\s+)|[\u3002\uff01\uff1f]+"),
    re.compile(r"\s+"),
)
_HEADING_SEPARATOR = " \u203a "
_WORD = re.compile(r"[^\W\d_]")
_NOT_SPACE = re.compile(r"\S")
_LONGEST_GRAPHEME = 64
_LOOK_BACK = 80
_MOST_BOXES = 64
_LONGEST_TITLE = 200
_LONGEST_CONTEXT = 300
_CONTEXT_SHARE = 4  # of the tokens that the model reads, at most one in so many is context


@dataclass(frozen=True)
class _Cutter:
    """The bounds that every chunk keeps."""

    size: int
    overlap: int
    count_tokens: Callable[[str], int]
    max_tokens: int
    outline: _Outline

    def tokens(self, content: str, fresh: int) -> int:
        """Count what the model will read of a chunk whose new text begins at `fresh`."""
        self.outline.reach(fresh)
        return self.count_tokens(with_context(content, self.outline.context))


def chunk(
    document: Document,
    *,
    size: int = 1000,
    overlap: int = 200,
    count_tokens: Callable[[str], int],
    max_tokens: int,
) -> list[Chunk]:
    """Cut `document` into chunks of at most `size` characters and `max_tokens` tokens.

    `count_tokens` counts a text's tokens, special ones included; those of a chunk's context count,
    its characters do not. Chunks never span pages; white space at their ends is left out. At most
    half of a chunk is overlap, and a third where tokens bound it more than characters do. Raises
    NarwhalError INVALID_ARGUMENT unless 0 <= overlap < size and max_tokens >= 8.
    """
    return list(
        chunk_pages(
            document,
            document.pages,
            size=size,
            overlap=overlap,
            count_tokens=count_tokens,
            max_tokens=max_tokens,
        )
    )


def chunk_pages(
    beginning: Document,
    pages: Iterable[Page],
    *,
    size: int,
    overlap: int,
    count_tokens: Callable[[str], int],
    max_tokens: int,
) -> Iterator[Chunk]:
    """Like `chunk`, one chunk after the other, for documents that are not held whole.

    `pages` are all pages; `beginning` has the first of them, and tells the title, the language and
    whether pages are real.
    """
    _check(size, overlap, max_tokens)
    outline = _Outline(_title(beginning), count_tokens, max_tokens // _CONTEXT_SHARE)
    cutter = _Cutter(size, overlap, count_tokens, max_tokens, outline)
    languages = Languages(beginning)
    count = 0
    for page in pages:
        lines = _LineIndex(page.lines)
        outline.turn_to(page)
        for start, end, fresh in _spans(page.text, cutter, [h.start for h in page.headings]):
            # The path is that of the text which is new in this chunk, not of its overlap.
            outline.reach(fresh)
            content = page.text[start:end]
            yield Chunk(
                idx=count,
                page=page.number if beginning.paged else None,
                content=content,
                char_start=start,
                char_end=end,
                bboxes=lines.boxes(start, end),
                heading=outline.path,
                context=outline.context,
                language=languages.of(content),
                time_range_ms=_time_range(page.times, start, end),
            )
            count += 1
        outline.reach(len(page.text))


def with_context(content: str, context: str | None) -> str:
    """What is embedded of a chunk, as private.embedded_text has it."""
    return content if context is None or context in content else f"{context}\n\n{content}"


def _title(document: Document) -> str | None:
    """The title of a document: its first line, when that is short and stands apart.

    Before a blank line, or above a line that is a paragraph; lists, logs and tables have no title.
    """
    page = next((page for page in document.pages if not page.text.isspace() and page.text), None)
    if page is None:
        return None
    start = _skip_space(page.text, 0)
    line, _, rest = page.text[start:].partition("\n")
    heading = next((h.text for h in page.headings if h.start == start and h.text), None)
    title = heading or " ".join(line.split())
    below = rest.partition("\n")[0]
    is_apart = heading or not below.strip() or len(below) > _LONGEST_TITLE
    is_all = not rest.strip() and page is document.pages[-1]
    if is_all or not is_apart or len(title) > _LONGEST_TITLE or not _WORD.search(title):
        return None
    return title


class _Outline:
    """The headings above the place that was reached, and what they tell of a chunk there."""

    def __init__(
        self, title: str | None, count_tokens: Callable[[str], int], max_tokens: int
    ) -> None:
        self._title = title
        self._count_tokens = count_tokens
        self._max_tokens = max_tokens
        self._above: list[Heading] = []
        self._ahead: list[Heading] = []
        self._shortened: dict[str, str] = {}

    @property
    def path(self) -> str | None:
        """The headings above, outermost first."""
        return _HEADING_SEPARATOR.join(heading.text for heading in self._above) or None

    def turn_to(self, page: Page) -> None:
        """Begin a page; the headings of the pages before still stand above it."""
        self._ahead = list(reversed(page.headings))

    def reach(self, at: int) -> None:
        """Pass the headings up to `at`: each is the innermost and ends those of its level."""
        while self._ahead and self._ahead[-1].start <= at:
            heading = self._ahead.pop()
            while self._above and self._above[-1].level >= heading.level:
                self._above.pop()
            if heading.text:
                self._above.append(heading)

    @property
    def context(self) -> str | None:
        """The title and the headings above, as much as the model can read of them."""
        parts = [self._title] if self._title else []
        parts += [heading.text for heading in self._above if heading.text not in parts]
        whole = _HEADING_SEPARATOR.join(parts)
        if whole not in self._shortened:
            self._shortened[whole] = self._shorten(whole)
        return self._shortened[whole] or None

    def _shorten(self, context: str) -> str:
        context = context[:_LONGEST_CONTEXT]
        while context and (tokens := self._count_tokens(context)) > self._max_tokens:
            context = context[: min(len(context) - 1, len(context) * self._max_tokens // tokens)]
        return context.strip()


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
        tokens = cutter.tokens(text[start:end].rstrip(), fresh)
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


def _time_range(times: Sequence[Spoken], start: int, end: int) -> tuple[int, int] | None:
    """From when to when what stands at `start..end` was said."""
    first = bisect_right(times, start, key=lambda spoken: spoken.end)
    last = bisect_left(times, end, key=lambda spoken: spoken.start)
    if first >= last:
        return None
    said = times[first:last]  # lines of subtitles may be said at once
    return min(spoken.start_ms for spoken in said), max(spoken.end_ms for spoken in said)


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
