"""RTF as Outlook packs it (MS-OXRTFCP): references into a ring of the last 4,096 bytes."""

from __future__ import annotations

from narwhal.ingest.document import ReadError

_HEADER = 16
_PACKED, _PLAIN = b"LZFu", b"MELA"
_RING = 4096
_BEGINNING = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript "
    rb"\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0"
    b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)


def unpack_rtf(data: bytes, most: int) -> bytes:
    """The RTF inside of `data`, as far as it goes; ReadError for more than `most` bytes."""
    mark, body = data[8:12], data[_HEADER:]
    if mark == _PLAIN:
        return body
    if mark != _PACKED:
        return b""
    out = bytearray(_BEGINNING)
    place = 0
    while place < len(body):
        flags = body[place]
        place += 1
        for bit in range(8):
            if not flags >> bit & 1:
                out += body[place : place + 1]
                place += 1
                continue
            reference = int.from_bytes(body[place : place + 2], "big")
            place += 2
            # The ring as it stands at this byte; a reference to its own place ends the text.
            back = (len(out) - (reference >> 4)) % _RING
            if back == 0 or back > len(out):
                return bytes(out[len(_BEGINNING) :])
            for _ in range((reference & 15) + 2):
                out.append(out[-back])
        if len(out) > most:
            raise ReadError("limit_memory", "The message unfolds to more than is allowed.")
    return bytes(out[len(_BEGINNING) :])
