"""Reading a file of nothing but text."""

from __future__ import annotations

import codecs
import re

from narwhal.ingest.extractors import Source
from narwhal.ingest.limits import MIB, Limits
from narwhal.ingest.text import clean, decode, find_charset

_MOST_BYTES = 4  # of a character, in any encoding
_WHOLE = 8 * MIB  # bytes of a file that is decoded in one go
_PIECE = MIB
# Bytes written as letters (Base64), in one piece or in lines.
_CODED = re.compile(r"[A-Za-z0-9+/=_-]{400,}+|(?:[A-Za-z0-9+/=_-]{60,}+\s++){6,}+[\w+/=-]*")


def read_text(
    source: Source, limits: Limits, declared: str | None = None, *, share: int = _MOST_BYTES
) -> str:
    """The whole file as clean text, see `decode`.

    Of a file of more than `share` times the allowed characters the beginning, and the source is
    marked as cut: markup may have so much more than what is shown of it.
    """
    data = source.file.read(_WHOLE + 1)
    most = limits.characters * share
    if len(data) <= _WHOLE:
        text, _ = decode(data, declared)
        if len(text) > most:
            source.is_cut = True
        return clean(text[: most + 1])
    return clean(_decode_long(source, data, declared, most))


def _decode_long(source: Source, beginning: bytes, declared: str | None, most: int) -> str:
    """The first `most` characters of a long file, decoded piece by piece."""
    # The sample ends between two lines, so that it holds no half of a character.
    sample = beginning[: beginning.rfind(b"\n") + 1 or len(beginning) // 4 * 4]
    charset = find_charset(sample, declared)
    decoder = codecs.getincrementaldecoder(charset)(errors="replace")
    pieces = [decoder.decode(beginning).removeprefix("\ufeff")]
    del beginning, sample
    length = len(pieces[0])
    while length <= most:
        data = source.file.read(_PIECE)
        pieces.append(decoder.decode(data, final=not data))
        length += len(pieces[-1])
        if not data:
            break
    text = "".join(pieces)
    if len(text) > most:
        source.is_cut = True
    return text[: most + 1]


def without_bytes(text: str) -> str:
    """Leave out pictures and the like that a text carries as letters: they are no words."""
    return _CODED.sub(" ", text) if len(text) >= 400 else text
