"""Outlook's own mail files: header, message and attachments, as `mail` reads them of any mail.

The file is an archive (OLE) of streams, each a property with its number and type in its name.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import BinaryIO

import olefile

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.html import declared_charset, read_html
from narwhal.ingest.extractors.mail import (
    MOST_DEPTH,
    add_file,
    bare_name,
    distinct,
    read_mail,
)
from narwhal.ingest.extractors.msg_rtf import unpack_rtf
from narwhal.ingest.extractors.rtf import read_rtf
from narwhal.ingest.limits import Limits
from narwhal.ingest.text import codec_of, decode

PAGED = False

_PROPERTIES = "__properties_version1.0"
_MOST_ATTACHMENTS = 1_000
_MOST_RECIPIENTS = 1_000
_UNICODE, _STRING, _BINARY, _OBJECT = "001F", "001E", "0102", "000D"
_SUBJECT, _BODY, _HTML, _RTF = "0037", "1000", "1013", "1009"
_SENDER_NAMES, _SENDER_ADDRESSES = ("0C1A", "0042"), ("5D01", "5D02", "0C1F", "0065")
_SHOWN_TO, _SHOWN_CC = "0E04", "0E03"
_NAME, _ADDRESSES = "3001", ("39FE", "3003")
_DATA, _FILE_NAMES, _MIME, _CONTENT_ID = "3701", ("3707", "3704", "3001"), "370E", "3712"
# Properties of a fixed length, by number and type.
_SENT, _RECEIVED = 0x00390040, 0x0E060040
_CODEPAGE, _HTML_CODEPAGE = 0x3FFD0003, 0x3FDE0003
_RECIPIENT_KIND = 0x0C150003
_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the whole message, attachments included, as one page."""
    blocks = Blocks(limits)
    with olefile.OleFileIO(source.file) as archive:
        _add_message(_Folder(archive, (), 32), blocks, limits, depth=0)
    yield blocks.page(1)


def attachments(file: BinaryIO) -> Iterator[tuple[str, str | None, bytes]]:
    """Yield (name, type, bytes) of each file that the message carries.

    A message inside of it is no file; the files that it carries are yielded, too.
    """
    with olefile.OleFileIO(file) as archive:
        yield from _attachments(_Folder(archive, (), 32), 0)


def _attachments(message: _Folder, depth: int) -> Iterator[tuple[str, str | None, bytes]]:
    for index, attachment in enumerate(message.folders("__attach_version1.0_#", 8)):
        if index == _MOST_ATTACHMENTS:
            return
        inner = attachment.message()
        if inner and depth < MOST_DEPTH:
            yield from _attachments(inner, depth + 1)
        elif not inner and not _is_layout(attachment):
            name = bare_name(attachment.text(*_FILE_NAMES))
            yield name, attachment.text(_MIME) or None, attachment.data(_DATA)


class _Folder:
    """A message, recipient or attachment: a folder of streams; `skip` bytes precede its list."""

    def __init__(
        self, archive: olefile.OleFileIO, path: tuple[str, ...], skip: int, codec: str = ""
    ) -> None:
        self._archive = archive
        self.path = path
        self.numbers: dict[int, int] = {}
        listed = self._stream(_PROPERTIES)[skip:]
        for start in range(0, len(listed) - 15, 16):
            tag = int.from_bytes(listed[start : start + 4], "little")
            self.numbers[tag] = int.from_bytes(listed[start + 8 : start + 16], "little")
        codepage = self._low(_CODEPAGE) or self._low(_HTML_CODEPAGE) or 1252
        self.codec = codec or codec_of(codepage)

    def _low(self, tag: int) -> int:
        return self.numbers.get(tag, 0) & 0xFFFFFFFF

    def _stream(self, name: str) -> bytes:
        path = [*self.path, name]
        if self._archive.get_type(path) != olefile.STGTY_STREAM:
            return b""
        with self._archive.openstream(path) as stream:
            return bytes(stream.read())

    def text(self, *properties: str) -> str:
        """The first of `properties` that is there, as text."""
        for number in properties:
            data = self._stream(f"__substg1.0_{number}{_UNICODE}")
            if data:
                return data.decode("utf-16-le", errors="replace").strip("\0")
            data = self._stream(f"__substg1.0_{number}{_STRING}")
            if data:
                return decode(data, self.codec)[0].strip("\0")
        return ""

    def data(self, number: str) -> bytes:
        """The bytes of a property."""
        return self._stream(f"__substg1.0_{number}{_BINARY}")

    def html(self) -> str:
        """The message as HTML."""
        data = self.data(_HTML)
        if not data:
            return self.text(_HTML)
        codepage = self._low(_HTML_CODEPAGE)
        charset = codec_of(codepage) if codepage else declared_charset(data)
        return decode(data, charset)[0]

    def kind(self) -> int:
        """Of a recipient: 1 for To, 2 for Cc."""
        return self._low(_RECIPIENT_KIND)

    def folders(self, prefix: str, skip: int) -> Iterator[_Folder]:
        """The folders inside whose names begin so, in order."""
        depth = len(self.path)
        names = {
            path[depth]
            for path in self._archive.listdir(streams=False, storages=True)
            if len(path) == depth + 1
            and tuple(path[:depth]) == self.path
            and path[depth].startswith(prefix)
        }
        for name in sorted(names):
            yield _Folder(self._archive, (*self.path, name), skip, self.codec)

    def message(self) -> _Folder | None:
        """The message that an attachment is."""
        path = (*self.path, f"__substg1.0_{_DATA}{_OBJECT}")
        if not self._archive.exists([*path, _PROPERTIES]):
            return None
        return _Folder(self._archive, path, 24)


def _add_message(message: _Folder, blocks: Blocks, limits: Limits, *, depth: int) -> None:
    """Add a message: its header, its body, its attachments."""
    blocks.add(" ".join(message.text(_SUBJECT).split()), level=depth + 1)
    for name, value in _header(message):
        if value:
            blocks.add(f"{name}: {' '.join(value.split())}", gap=1)
    for text in _bodies(message, limits):
        blocks.add(text)
    for index, attachment in enumerate(message.folders("__attach_version1.0_#", 8)):
        if index < _MOST_ATTACHMENTS:
            _add_attachment(attachment, blocks, limits, depth)


def _header(message: _Folder) -> Iterator[tuple[str, str]]:
    sender = _person(message.text(*_SENDER_NAMES), *(message.text(a) for a in _SENDER_ADDRESSES))
    people: dict[int, list[str]] = {}
    for index, recipient in enumerate(message.folders("__recip_version1.0_#", 8)):
        if index < _MOST_RECIPIENTS:
            person = _person(recipient.text(_NAME), *(recipient.text(a) for a in _ADDRESSES))
            people.setdefault(recipient.kind(), []).append(person)
    yield "From", sender
    yield "To", ", ".join(people.get(1, [])) or message.text(_SHOWN_TO)
    yield "Cc", ", ".join(people.get(2, [])) or message.text(_SHOWN_CC)
    yield "Date", _date(message.numbers.get(_SENT) or message.numbers.get(_RECEIVED) or 0)


def _person(name: str, *addresses: str) -> str:
    """A name with the first address that is one of the internet's."""
    address = next((address for address in addresses if "@" in address), "")
    if not address or address == name:
        return name or address
    return f"{name} <{address}>" if name else address


def _date(ticks: int) -> str:
    """A moment that is counted in tenths of a microsecond, as mail writes it."""
    try:
        return format_datetime(_EPOCH + timedelta(microseconds=ticks // 10)) if ticks else ""
    except OverflowError:
        return ""


def _bodies(message: _Folder, limits: Limits) -> list[str]:
    """The message in each of the forms that say something the others do not."""
    found = [message.text(_BODY)]
    html = message.html()
    if html:
        page = Blocks(limits)
        read_html(html, page)
        found.append(page.page(1).text)
    packed = message.data(_RTF)
    if packed and not any(text.strip() for text in found):
        page = Blocks(limits)
        read_rtf(unpack_rtf(packed, limits.inflated_bytes), page)
        found.append(page.page(1).text)
    return distinct(found)


def _is_layout(attachment: _Folder) -> bool:
    """Whether an attachment is a picture of the message's own layout."""
    return attachment.text(_MIME).startswith("image/") and bool(attachment.text(_CONTENT_ID))


def _add_attachment(attachment: _Folder, blocks: Blocks, limits: Limits, depth: int) -> None:
    """Add an attachment's name, and its text where it can be read."""
    inner = attachment.message()
    if inner:
        if depth < MOST_DEPTH:
            _add_message(inner, blocks, limits, depth=depth + 1)
        return
    if _is_layout(attachment):
        return
    mime = attachment.text(_MIME)
    name = bare_name(attachment.text(*_FILE_NAMES))
    blocks.add(name, level=depth + 2)
    file = io.BytesIO(attachment.data(_DATA))
    if add_file(blocks, file, name, mime or None, limits) == "eml":
        read_mail(file, blocks, limits, depth=depth + 1)
