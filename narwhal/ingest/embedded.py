"""Images in documents: where they stand, the text around them, their bytes.

Of PDFs those that are drawn by a page itself; of DOCX, PPTX, EPUB, HTML and mail those that come
with the file. What a document only links to is never fetched.
"""

from __future__ import annotations

import base64
import binascii
import email
import email.policy
import html.parser
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from narwhal.ingest.document import Box
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.drawing import alt_text
from narwhal.ingest.extractors.html import declared_charset
from narwhal.ingest.extractors.ooxml import Handler, Package
from narwhal.ingest.limits import Limits
from narwhal.ingest.text import clean, decode

MOST_IMAGES = 500  # of a file
LEAST_SIDE = 32  # pixels; what is smaller is a line or a bullet
_BEFORE, _AFTER = 300, 200  # characters of context
_PICTURE_NAME = re.compile(r"\.(?:png|jpe?g|gif|bmp|tiff?|webp|heic|avif)$", re.IGNORECASE)
_EMU_ROOM = re.compile(r"-?\d{1,12}")


@dataclass(frozen=True)
class Found:
    """An image as a document holds it."""

    data: bytes
    page: int | None = None
    box: Box | None = None
    context: str = ""
    description: str = ""


def find_images(source: Source, limits: Limits) -> Iterator[Found]:
    """Yield the images of a document that is no PDF, in its order; at most MOST_IMAGES."""
    finders = {"docx": _docx, "pptx": _pptx, "epub": _epub, "html": _html, "eml": _mail}
    finder = finders.get(source.detected.format or "")
    if finder is None:
        return
    for count, found in enumerate(finder(source, limits)):
        if count >= MOST_IMAGES:
            return
        yield found


def cover(source: Source, limits: Limits) -> bytes | None:
    """The picture of the whole that an Office document carries, if it does."""
    if source.detected.format not in ("docx", "pptx"):
        return None
    package = Package(source.file, limits)
    for part in package.targets("", "thumbnail"):
        if _PICTURE_NAME.search(part):
            return package.open(part).read()
    return None


def around(text: str, at: int) -> str:
    """The text around a place in it, cut at words."""
    start, end = max(0, at - _BEFORE), at + _AFTER
    piece = text[start:end]
    if start and " " in piece[:40]:
        piece = piece.split(" ", 1)[1]
    if end < len(text) and " " in piece[-40:]:
        piece = piece.rsplit(" ", 1)[0]
    return " ".join(clean(piece).split())


# Office ------------------------------------------------------------------------------------------


class _Story(Handler):
    """The text of a part, and the images anchored in it: (relationship, place, alt text)."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.length = 0
        self.images: list[tuple[str, int, str]] = []
        self.boxes: list[tuple[int, int, int, int] | None] = []
        self._is_text = 0
        self._description = ""
        self._offset: tuple[int, int] | None = None
        self._room: tuple[int, int, int, int] | None = None
        self._skipped = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if self._skipped or name == "Fallback":
            self._skipped += 1
        elif name == "t":
            self._is_text += 1
        elif name in ("docPr", "cNvPr"):
            self._description = alt_text(attributes)
        elif name in ("blip", "imagedata"):
            relation = attributes.get(":embed") or attributes.get(":id") or ""
            if relation:
                self.images.append((relation, self.length, self._description))
                self.boxes.append(None)
        elif name == "off":
            self._offset = _pair(attributes, "x", "y")
        elif name == "ext" and self._offset and "cx" in attributes:
            size = _pair(attributes, "cx", "cy")
            self._room = (*self._offset, *size) if size else None
        elif name == "pic":
            self._offset = self._room = None

    def text(self, text: str) -> None:
        if self._is_text and not self._skipped:
            self._write(text)

    def end(self, name: str) -> None:
        if self._skipped:
            self._skipped -= 1
        elif name == "t":
            self._is_text -= 1
        elif name in ("p", "br", "tab"):
            self._write("\n" if name == "p" else " ")
        elif name == "pic" and self.boxes:
            # its place is said after the picture itself
            self.boxes[-1] = self._room

    def _write(self, text: str) -> None:
        self.pieces.append(text)
        self.length += len(text)


def _pair(attributes: dict[str, str], one: str, other: str) -> tuple[int, int] | None:
    values = attributes.get(one, ""), attributes.get(other, "")
    if not all(_EMU_ROOM.fullmatch(value) for value in values):
        return None
    return int(values[0]), int(values[1])


def _stories(package: Package, part: str) -> Iterator[tuple[bytes, _Story, int]]:
    """Yield the images of a part, each with its story and its number there."""
    story = _Story()
    package.parse(part, story)
    targets = {r.id: r.target for r in package.relationships(part) if r.kind == "image"}
    for number, (relation, _, _) in enumerate(story.images):
        target = targets.get(relation, "")
        if target in package and _PICTURE_NAME.search(target):
            yield package.open(target).read(), story, number


def _docx(source: Source, limits: Limits) -> Iterator[Found]:
    package = Package(source.file, limits)
    main = package.main_part("word/document.xml")
    for data, story, number in _stories(package, main):
        _, at, description = story.images[number]
        context = around("".join(story.pieces), at)
        yield Found(data, context=context, description=clean(description))


def _pptx(source: Source, limits: Limits) -> Iterator[Found]:
    from narwhal.ingest.extractors.pptx import slides_of

    package = Package(source.file, limits)
    parts, size = slides_of(package)
    for page, part in enumerate(parts, start=1):
        if part not in package:
            continue
        for data, story, number in _stories(package, part):
            _, at, description = story.images[number]
            context = around("".join(story.pieces), at)
            yield Found(
                data, page, _on_slide(story.boxes[number], size), context, clean(description)
            )


def _on_slide(
    room: tuple[int, int, int, int] | None, size: tuple[float | None, float | None]
) -> Box | None:
    """A place in EMU as a box on the slide, whose size is in points."""
    if room is None or not size[0] or not size[1]:
        return None
    width, height = size[0] * 12_700, size[1] * 12_700
    x, y, wide, high = room
    values = (x / width, y / height, (x + wide) / width, (y + high) / height)
    x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) for value in values)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


# HTML, books, mail -------------------------------------------------------------------------------


class _Reader(html.parser.HTMLParser):
    """The text of a page, and its images: (source, place, alt text)."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.length = 0
        self.images: list[tuple[str, int, str]] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag in ("script", "style"):
            self._hidden += 1
        elif tag == "img" and values.get("src"):
            self.images.append((values["src"], self.length, values.get("alt", "")))
        elif tag == "image":  # of SVG, in which covers of books stand
            link = values.get("xlink:href") or values.get("href")
            if link:
                self.images.append((link, self.length, ""))
        elif self.pieces and self.pieces[-1] != " ":
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style") and self._hidden:
            self._hidden -= 1

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.pieces.append(data)
            self.length += len(data)


def _read(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader


def _html(source: Source, limits: Limits) -> Iterator[Found]:
    source.file.seek(0)
    data = source.file.read(limits.characters * 4)
    reader = _read(decode(data, declared_charset(data))[0])
    text = "".join(reader.pieces)
    for link, at, description in reader.images:
        inline = data_uri(link)
        if inline is not None:
            yield Found(inline, context=around(text, at), description=_described(description))


def _described(text: str) -> str:
    return " ".join(clean(text).split())[:500]


def data_uri(link: str) -> bytes | None:
    """The bytes of a data URI of an image; None for any other link."""
    head, comma, body = link.partition(",")
    if not comma or head[:11].lower() != "data:image/":
        return None
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode("".join(unquote(body).split()))
    except (binascii.Error, ValueError):
        return None


def _epub(source: Source, limits: Limits) -> Iterator[Found]:
    from narwhal.ingest.extractors.epub import chapters_of

    package = Package(source.file, limits)
    seen: set[str] = set()
    for part in chapters_of(package):
        data = package.open(part).read()
        reader = _read(decode(data, declared_charset(data))[0])
        text = "".join(reader.pieces)
        for link, at, description in reader.images:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(part), unquote(link)))
            if target in package and target not in seen and _PICTURE_NAME.search(target):
                seen.add(target)
                yield Found(
                    package.open(target).read(),
                    context=around(text, at),
                    description=_described(description),
                )


def _mail(source: Source, _limits: Limits) -> Iterator[Found]:
    source.file.seek(0)
    message = email.message_from_binary_file(source.file, policy=email.policy.compat32)
    text, images = "", []
    for part in message.walk():
        kind = part.get_content_type()
        if kind.startswith("image/"):
            images.append(part)
        elif kind in ("text/plain", "text/html") and not part.get_filename() and not text:
            body = _payload(part)
            plain = decode(body, part.get_content_charset())[0]
            text = "".join(_read(plain).pieces) if kind == "text/html" else plain
    for part in images:
        data = _payload(part)
        if data:
            yield Found(data, context=around(text, 0), description=_described(_name(part)))


def _payload(part: Any) -> bytes:
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def _name(part: Any) -> str:
    try:
        return str(part.get_filename() or "")
    except (ValueError, LookupError):
        return ""
