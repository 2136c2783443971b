r"""JSON and lines of JSON: a line for each named value, the escapes in strings undone.

Read token by token, so that comments, a missing end or anything else that is no JSON costs nothing
but its own place; nesting costs no memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import FullError, Source, is_late
from narwhal.ingest.extractors.reading import read_text, without_bytes
from narwhal.ingest.limits import Limits
from narwhal.ingest.text import clean, join_surrogates

PAGED = False

_TOKEN = re.compile(
    r'\s++|"((?:[^"\\]++|\\.)*+)(?:"|\\?\Z)(\s*+:)?|([^\s"{}\[\],:]++)(\s*+:(?!//))?|([{}\[\],])|.',
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CHARACTERS = {"b": " ", "f": " ", "n": "\n", "r": "\r", "t": "\t"}
_BETWEEN = ("", " ", ", ", "\n", "\n\n")  # in the order of their strength
_NOTHING, _SPACE, _COMMA, _LINE, _PARAGRAPH = range(5)
_AFTER = {"{": _LINE, "[": _NOTHING, ",": _COMMA, "]": _LINE, "}": _PARAGRAPH}


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the names and values of the whole file as one page."""
    pieces: list[str] = []
    length = 0
    for count, piece in enumerate(_pieces(read_text(source, limits))):
        pieces.append(piece)
        length += len(piece)
        if length > limits.characters:
            source.is_cut = True
            break
        if count % 10_000 == 0 and is_late():
            raise FullError("limit_time", "Reading takes too long.", lambda _: _page(pieces))
    yield _page(pieces)


def _page(pieces: list[str]) -> Page:
    return Page(1, clean("".join(pieces)).strip())


def _pieces(text: str) -> Iterator[str]:
    gap = _NOTHING
    is_empty = True
    for found in _TOKEN.finditer(text):
        string, is_key, word, is_word_key, mark = found.groups()
        if mark:
            gap = max(gap, _AFTER[mark])
            continue
        value = word if string is None else _unescape(string)
        if not value:
            continue
        if is_key or is_word_key:
            gap = max(gap, _LINE)
            value += ":"
        if not is_empty:
            yield _BETWEEN[gap]
        yield value
        is_empty = False
        gap = _NOTHING if value.endswith("\n") else _SPACE


def _unescape(string: str) -> str:
    if "\\" in string:
        string = join_surrogates(_ESCAPE.sub(_character, string))
    return without_bytes(string)


def _character(found: re.Match[str]) -> str:
    escaped = found[1]
    return chr(int(escaped[1:], 16)) if len(escaped) > 1 else _CHARACTERS.get(escaped, escaped)
