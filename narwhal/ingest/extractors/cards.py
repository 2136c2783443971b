"""Calendars and address cards (iCalendar, vCard): a paragraph an entry, a line a field."""

from __future__ import annotations

import quopri
import re
from collections.abc import Iterator

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.reading import read_text
from narwhal.ingest.limits import Limits
from narwhal.ingest.text import decode

PAGED = False

_FIELD = re.compile(r"(?:[\w-]+\.)?([\w-]+)((?:;(?:\"[^\"]*\"|[^:;\"])*)*):(.*)", re.DOTALL)
_NAME = re.compile(r";CN=(?:\"([^\"]*)\"|([^:;]*))", re.IGNORECASE)
_CHARSET = re.compile(r";CHARSET=\"?([\w-]+)", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(.)")
# Fields for programs.
_SKIPPED = {
    "BEGIN", "VERSION", "PRODID", "CALSCALE", "METHOD", "UID", "DTSTAMP", "SEQUENCE", "REV",
    "TRIGGER", "TRANSP", "TZID", "TZOFFSETFROM", "TZOFFSETTO", "PHOTO", "LOGO", "SOUND", "KEY",
}  # fmt: skip


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield all entries as one page."""
    blocks = Blocks(limits)
    for line in _unfolded(read_text(source, limits)):
        field = _FIELD.fullmatch(line)
        if not field:
            blocks.add(line, gap=1)
            continue
        name, parameters, value = field[1].upper(), field[2], field[3]
        if name == "END":
            blocks.apart()
        elif name not in _SKIPPED and not _is_bytes(parameters, value):
            blocks.add(f"{name}: {_value(parameters, value)}", gap=1)
    yield blocks.page(1)


def _unfolded(text: str) -> Iterator[str]:
    """Yield the lines, each with the lines that go on with it."""
    pieces: list[str] = []
    for line in text.split("\n"):
        if pieces and pieces[-1].endswith("=") and "QUOTED-PRINTABLE" in pieces[0].upper():
            pieces[-1] = pieces[-1][:-1]
            pieces.append(line)
        elif line[:1] in (" ", "\t") and pieces:
            pieces.append(line[1:])
        else:
            if pieces:
                yield "".join(pieces)
            pieces = [line]
    yield "".join(pieces)


def _is_bytes(parameters: str, value: str) -> bool:
    coded = re.search(r";ENCODING=\"?(?:B|BASE64)\b", parameters, re.IGNORECASE)
    return coded is not None or value.startswith("data:")


def _value(parameters: str, value: str) -> str:
    if "QUOTED-PRINTABLE" in parameters.upper():
        charset = _CHARSET.search(parameters)
        data = quopri.decodestring(value.encode("utf-8", "surrogatepass"))
        value = decode(data, charset[1] if charset else None)[0]
    value = _ESCAPE.sub(lambda found: "\n" if found[1] in "nN" else found[1], value)
    # The parts of a name or an address.
    value = ", ".join(part.strip() for part in value.split(";") if part.strip())
    person = _NAME.search(parameters)
    if person:
        value = f"{person[1] or person[2]} {value}"
    return value
