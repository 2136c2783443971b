"""Finding PDF streams that are made to fill the memory, before PDFium unfolds them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from narwhal.ingest.document import ReadError
from narwhal.ingest.limits import MIB

# No page is drawn with so much code; pictures, which may be larger, are not looked at.
MOST_INFLATED = 128 * MIB
# zlib shrinks 1032 times at most: a shorter stream cannot unfold to that size.
_LEAST_DEFLATED = MOST_INFLATED // 1032

_WINDOW = 4 * MIB
_DICTIONARY = 2048  # bytes before a stream in which its dictionary is looked for
_STREAM = re.compile(rb"(?<!end)stream\r?\n")
_LENGTH = re.compile(rb"/Length\s+(\d+)(?!\s+\d+\s+R)")
_FLATE = re.compile(rb"/(?:FlateDecode|Fl)\b")
_PICTURE = re.compile(rb"/Subtype\s*/Image\b")


def refuse_bombs(file: BinaryIO) -> None:
    """Raise ReadError `limit_memory` when a compressed stream other than a picture is a bomb.

    Streams that are encrypted, or compressed otherwise, pass: the memory limit is for those.
    """
    for start, layers in _suspects(file):
        if _unfolds_too_far(file, start, layers):
            raise ReadError("limit_memory", f"A page unfolds to over {MOST_INFLATED // MIB} MiB.")
    file.seek(0)


def _suspects(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Where streams worth a look begin, and how many layers of compression each declares."""
    file.seek(0)
    at, window = 0, b""
    while piece := file.read(_WINDOW):
        # The end of the last window is seen again: a dictionary may lie across the border.
        window = window[-_DICTIONARY:] + piece
        offset = at + len(piece) - len(window)
        for found in _STREAM.finditer(window):
            if offset + found.end() <= at:
                continue
            before = window[max(0, found.start() - _DICTIONARY) : found.start()]
            dictionary = before[before.rfind(b"obj") + 3 :]
            length = _LENGTH.search(dictionary)
            layers = len(_FLATE.findall(dictionary))
            short = length is not None and int(length[1]) < _LEAST_DEFLATED and layers == 1
            if layers and not short and not _PICTURE.search(dictionary):
                yield offset + found.end(), layers
        at += len(piece)
        file.seek(at)


def _unfolds_too_far(file: BinaryIO, start: int, layers: int) -> bool:
    """Whether the stream at `start` inflates beyond the bound, without ever holding it whole."""
    file.seek(start)
    inflaters = [zlib.decompressobj() for _ in range(min(layers, 4))]
    sizes = [0] * len(inflaters)

    def feed(data: bytes, layer: int) -> bool:
        inflater = inflaters[layer]
        while data and not inflater.eof:
            inflated = inflater.decompress(data, MIB)
            data = inflater.unconsumed_tail
            sizes[layer] += len(inflated)
            if sizes[layer] > MOST_INFLATED:
                return True
            if layer + 1 < len(inflaters) and feed(inflated, layer + 1):
                return True
        return False

    try:
        while not inflaters[0].eof and (piece := file.read(64 * 1024)):
            if feed(piece, 0):
                return True
    except zlib.error:
        return False  # damaged or encrypted
    return False
