"""Comma and tab separated values: a line a row, the cells' values as they are, parted by tabs."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Iterator

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.reading import read_text
from narwhal.ingest.limits import Limits

PAGED = False

_DELIMITERS = ",;\t|"
_SAMPLE = 64 * 1024
_SAMPLE_LINES = 50


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield all rows as one page."""
    text = read_text(source, limits, share=1)
    delimiter = "\t" if source.detected.format == "tsv" else find_delimiter(text)
    # A quote left open makes one cell of the rest of the file: its text is still all there.
    csv.field_size_limit(limits.characters)
    blocks = Blocks(limits)
    for row in csv.reader(_lines(text), delimiter=delimiter):
        blocks.add("\t".join(row), gap=1)
    yield blocks.page(1)


def _lines(text: str) -> Iterator[str]:
    """The lines, one at a time: a copy of a long text as a file takes four times its memory."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def find_delimiter(text: str) -> str:
    """The delimiter that cuts the first rows most evenly, and into most cells; else a comma."""
    # Excel's own hint, in a first line that other programs show as a row.
    if text[:4].lower() == "sep=" and text[4:5] in _DELIMITERS:
        return text[4]
    sample = list(itertools.islice(io.StringIO(text[:_SAMPLE], newline=""), _SAMPLE_LINES))
    best, delimiter = (0.0, 0), ","
    for candidate in _DELIMITERS:
        widths = Counter(len(row) for row in csv.reader(sample, delimiter=candidate) if row)
        if not widths:
            continue
        width, rows = widths.most_common(1)[0]
        if width > 1:
            score = (round(rows / widths.total(), 1), width)
            if score > best:
                best, delimiter = score, candidate
    return delimiter
