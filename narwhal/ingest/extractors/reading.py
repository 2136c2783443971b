"""Reading a file of nothing but text."""

from __future__ import annotations

import re

from narwhal.ingest.extractors import Source, too_much_text
from narwhal.ingest.limits import Limits
from narwhal.ingest.text import clean, decode

_MOST_BYTES = 4  # of a character, in any encoding
# Bytes written as letters (Base64), in one piece or in lines.
_CODED = re.compile(r"[A-Za-z0-9+/=_-]{400,}+|(?:[A-Za-z0-9+/=_-]{60,}+\s++){6,}+[\w+/=-]*")


def read_text(source: Source, limits: Limits, declared: str | None = None) -> str:
    """The whole file as clean text, see `decode`; ReadError `limit_output` when it is too long."""
    data = source.file.read(limits.characters * _MOST_BYTES + 1)
    if len(data) > limits.characters * _MOST_BYTES:
        raise too_much_text(limits)
    text, _ = decode(data, declared)
    return clean(text)


def without_bytes(text: str) -> str:
    """Leave out pictures and the like that a text carries as letters: they are no words."""
    return _CODED.sub(" ", text) if len(text) >= 400 else text
