"""Reading a file of nothing but text."""

from __future__ import annotations

from narwhal.ingest.extractors import Source, too_much_text
from narwhal.ingest.limits import Limits
from narwhal.ingest.text import clean, decode

_MOST_BYTES = 4  # of a character, in any encoding


def read_text(source: Source, limits: Limits) -> str:
    """The whole file as clean text; ReadError `limit_output` when it is too long."""
    data = source.file.read(limits.characters * _MOST_BYTES + 1)
    if len(data) > limits.characters * _MOST_BYTES:
        raise too_much_text(limits)
    text, _ = decode(data)
    return clean(text)
