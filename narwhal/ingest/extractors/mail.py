"""E-mail: the header a reader sees, the message, then the text of each attachment that can be read.

Messages inside messages are read too, and attachments of those, down to a fixed depth.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from email import policy
from email.errors import MessageError
from email.generator import BytesGenerator
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesParser
from typing import BinaryIO

from narwhal.ingest.detect import detect_file
from narwhal.ingest.document import Page, ReadError
from narwhal.ingest.extractors import Source, extract_pages
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.html import declared_charset, read_html
from narwhal.ingest.limits import Limits
from narwhal.ingest.text import decode

PAGED = False

_FIELDS = ("From", "To", "Cc", "Date")
MOST_DEPTH = 4  # messages within messages
_MOST_PARTS = 1_000
_SAME = 0.9  # of the words, and two alternatives say the same
_FLOWED = re.compile(r" \n(?![>\s]|-- )")


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the whole message, attachments included, as one page."""
    blocks = Blocks(limits)
    read_mail(source.file, blocks, limits)
    yield blocks.page(1)


def read_mail(file: BinaryIO, blocks: Blocks, limits: Limits, *, depth: int = 0) -> None:
    """Add a whole message to `blocks`, `depth` messages inside of others."""
    if depth <= MOST_DEPTH:
        _Reader(blocks, limits).add_message(_parse(file), depth=depth)


def attachments(file: BinaryIO) -> Iterator[tuple[str, str | None, bytes]]:
    """Yield (name, type, bytes) of each file that the message carries, messages among them."""
    for part, _ in _Leaves().of(_parse(file)):
        if _is_body(part) or _is_layout(part):
            continue
        payload = part.get_payload()
        if part.get_content_maintype() == "message" and isinstance(payload, list):
            for inner in payload:
                if isinstance(inner, Message):
                    yield f"{_header(inner, 'Subject')[:200]}.eml", "message/rfc822", _whole(inner)
        else:
            yield _filename(part), part.get_content_type(), _bytes(part)


def _whole(message: Message) -> bytes:
    """A message inside of another, as a file."""
    out = io.BytesIO()
    BytesGenerator(out, mangle_from_=False, policy=policy.compat32).flatten(message)
    return out.getvalue()


def _parse(file: BinaryIO) -> Message:
    # compat32 takes the malformed headers of real mail, at which the newer policy raises.
    return BytesParser(policy=policy.compat32).parse(file)


class _Leaves:
    """Finds the parts of messages that hold content, so many of all together."""

    def __init__(self) -> None:
        self._parts = 0

    def of(self, message: Message) -> Iterator[tuple[Message, int]]:
        """The parts that hold content, with a number that alternatives of each other share.

        Walks with a list, not by recursion: mail may nest as deep as its sender likes.
        """
        groups = 0
        pending: list[tuple[Message, int | None]] = [(message, None)]
        while pending and self._parts < _MOST_PARTS:
            part, group = pending.pop()
            payload = part.get_payload()
            if part.get_content_maintype() == "multipart" and isinstance(payload, list):
                if part.get_content_subtype() == "alternative" and group is None:
                    groups += 1
                    group = groups
                pending.extend((p, group) for p in reversed(payload) if isinstance(p, Message))
                continue
            self._parts += 1
            if group is None:
                groups += 1
            yield part, group or groups


class _Reader:
    """Adds messages to one page's blocks."""

    def __init__(self, blocks: Blocks, limits: Limits) -> None:
        self.blocks = blocks
        self._limits = limits
        self._leaves = _Leaves()

    def add_message(self, message: Message, *, depth: int) -> None:
        """Add a message: its header, its body, its attachments."""
        subject = _header(message, "Subject")
        self.blocks.add(subject, level=depth + 1)
        for name in _FIELDS:
            value = _header(message, name)
            if value:
                self.blocks.add(f"{name}: {value}", gap=1)
        attached = []
        bodies: dict[int, list[Message]] = {}
        for part, group in self._leaves.of(message):
            if _is_body(part):
                bodies.setdefault(group, []).append(part)
            else:
                attached.append(part)
        for alternatives in bodies.values():
            for text in distinct([self._body(part) for part in alternatives]):
                self.blocks.add(text)
        for part in attached:
            self._add_attachment(part, depth)

    def _body(self, part: Message) -> str:
        data = _bytes(part)
        charset = part.get_content_charset()
        if part.get_content_subtype() == "html":
            page = Blocks(self._limits)
            read_html(decode(data, charset or declared_charset(data))[0], page)
            return page.page(1).text
        text = decode(data, charset)[0].replace("\r\n", "\n")
        if str(part.get_param("format", "")).lower() == "flowed":
            text = _FLOWED.sub(" ", text)
        return text

    def _add_attachment(self, part: Message, depth: int) -> None:
        """Add an attachment's name, and its text where it can be read."""
        payload = part.get_payload()
        if part.get_content_maintype() == "message" and isinstance(payload, list):
            for inner in payload:
                if depth < MOST_DEPTH and isinstance(inner, Message):
                    self.add_message(inner, depth=depth + 1)
            return
        name = _filename(part)
        if _is_layout(part):
            return
        if name:
            self.blocks.add(name, level=depth + 2)
        file = io.BytesIO(_bytes(part))
        detected = add_file(self.blocks, file, name, part.get_content_type(), self._limits)
        if detected == "eml" and depth < MOST_DEPTH:
            self.add_message(_parse(file), depth=depth + 1)


def add_file(
    blocks: Blocks, file: BinaryIO, name: str, mime: str | None, limits: Limits
) -> str | None:
    """Add the text of an attached file, unless it is a message; returns the format."""
    try:
        detected = detect_file(file, name, mime)
        if detected.format and detected.format != "eml":
            for page in extract_pages(Source(file, detected), limits):
                blocks.add(page.text)
    except ReadError as error:
        # A broken attachment does not spoil the message; too much text spoils everything.
        if error.code == "limit_output":
            raise
        return None
    return detected.format


def _is_body(part: Message) -> bool:
    return (
        part.get_content_type() in ("text/plain", "text/html")
        and part.get_content_disposition() != "attachment"
        and not _filename(part)
    )


def _is_layout(part: Message) -> bool:
    """Whether a part is a picture of the message's own layout."""
    return part.get_content_maintype() == "image" and bool(part.get("Content-ID"))


def _bytes(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _header(message: Message, name: str) -> str:
    """A header's text, decoded as far as it can be."""
    value = next((v for key, v in message.raw_items() if key.lower() == name.lower()), "")
    # Bytes that should have been encoded surface as surrogates.
    raw = str(value).encode("utf-8", "surrogateescape")
    try:
        text = str(make_header(decode_header(decode(raw)[0])))
    except (MessageError, LookupError, ValueError):
        text = decode(raw)[0]
    return " ".join(text.split())


def _filename(part: Message) -> str:
    """The attachment's name without any folder; "" where it has none."""
    try:
        name = part.get_filename() or ""
        name = str(make_header(decode_header(name)))
    except (MessageError, LookupError, ValueError):
        name = ""
    return bare_name(name)


def bare_name(name: str) -> str:
    """A file's name without any folder."""
    return " ".join(name.replace("\\", "/").rpartition("/")[2].split())[:255]


def distinct(alternatives: list[str]) -> list[str]:
    """Drop the alternatives whose words another one has too; of equals the first stays."""
    kept: list[tuple[str, set[str]]] = []
    for text in sorted(alternatives, key=len, reverse=True):
        words = set(re.findall(r"\w+", text.lower()))
        if not words:
            continue
        if not any(len(words & other) >= _SAME * len(words) for _, other in kept):
            kept.append((text, words))
    texts = {text for text, _ in kept}
    return [text for text in dict.fromkeys(alternatives) if text in texts]
