"""EPUB: the chapters in the order of the spine, headed by the book's title and their own."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import unquote

from narwhal.ingest.document import Page, ReadError
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.html import declared_charset, read_html
from narwhal.ingest.extractors.ooxml import Handler, Package
from narwhal.ingest.limits import Limits
from narwhal.ingest.text import decode

PAGED = False

_HEAD = 16 * 1024
_TITLE = re.compile(r"<title\b[^>]{0,300}>([^<]{0,300})</title\s*>", re.IGNORECASE)
# Ways of garbling a font's first bytes: no lock, and nothing to do with the text.
_FONTS = {"http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"}


class _Container(Handler):
    """Where the description of the book is."""

    def __init__(self) -> None:
        self.book = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "rootfile" and not self.book:
            self.book = attributes.get("full-path", "")


class _Locks(Handler):
    """Whether anything but fonts is encrypted."""

    def __init__(self) -> None:
        self.found = False
        self._is_data = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name in ("EncryptedData", "EncryptedKey"):
            self._is_data = name == "EncryptedData"
        elif name == "EncryptionMethod" and self._is_data:
            self.found = self.found or attributes.get("Algorithm", "") not in _FONTS


class _Book(Handler):
    """The title, the parts by their id, the chapters' ids in order, the tables of contents."""

    def __init__(self) -> None:
        self.title = ""
        self.parts: dict[str, str] = {}
        self.spine: dict[str, None] = {}
        self.contents: list[str] = []
        self._pieces: list[str] | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        identifier, link = attributes.get("id", ""), attributes.get("href", "")
        if name == "title" and not self.title:
            self._pieces = []
        elif name == "item":
            self.parts[identifier] = link
            navigates = "nav" in attributes.get("properties", "").split()
            if navigates or attributes.get("media-type") == "application/x-dtbncx+xml":
                self.contents.append(link)
        elif name == "itemref":
            self.spine.setdefault(attributes.get("idref", ""))

    def text(self, text: str) -> None:
        if self._pieces is not None:
            self._pieces.append(text)

    def end(self, name: str) -> None:
        if name == "title" and self._pieces is not None:
            self.title = " ".join("".join(self._pieces).split())
            self._pieces = None


class _Contents(Handler):
    """The titles that a table of contents gives to chapters, by their links."""

    def __init__(self) -> None:
        self.titles: dict[str, str] = {}
        self._pieces: list[str] = []
        self._link = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name in ("a", "navLabel"):
            self._pieces.clear()
            self._link = attributes.get("href", "")
        elif name == "content":
            self._add(attributes.get("src", ""))

    def text(self, text: str) -> None:
        self._pieces.append(text)

    def end(self, name: str) -> None:
        if name == "a":
            self._add(self._link)

    def _add(self, link: str) -> None:
        self.titles.setdefault(link.partition("#")[0], " ".join("".join(self._pieces).split()))


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the whole book as one page: its chapters have as many pages as the reader's screen."""
    package = Package(source.file, limits)
    main, book = _open_book(package)
    titles = _titles(package, main, book)
    blocks = Blocks(limits)
    blocks.add(book.title, level=1)
    for part in _chapters(package, main, book):
        _read_chapter(package, part, titles.get(part, ""), blocks, limits)
    yield blocks.page(1)


def chapters_of(package: Package) -> list[str]:
    """The parts of a book in the order of reading."""
    return _chapters(package, *_open_book(package))


def _open_book(package: Package) -> tuple[str, _Book]:
    """The part that describes the book, and what it says."""
    _refuse_locked(package)
    container, book = _Container(), _Book()
    if "META-INF/container.xml" in package:
        package.parse("META-INF/container.xml", container)
    if container.book not in package:
        raise ReadError("corrupt", "The book's description is missing.")
    package.parse(container.book, book)
    return container.book, book


def _chapters(package: Package, main: str, book: _Book) -> list[str]:
    parts = [_resolve(main, book.parts.get(identifier, "")) for identifier in book.spine]
    return [part for part in parts if part in package]


def _refuse_locked(package: Package) -> None:
    locks = _Locks()
    if "META-INF/encryption.xml" in package:
        package.parse("META-INF/encryption.xml", locks)
    if locks.found:
        raise ReadError("unsupported_media", "The book is locked by its seller (DRM).")


def _titles(package: Package, main: str, book: _Book) -> dict[str, str]:
    """The chapters' titles by their parts, from whichever table of contents can be read."""
    titles: dict[str, str] = {}
    for link in book.contents:
        part = _resolve(main, link)
        contents = _Contents()
        if part in package:
            try:
                package.parse(part, contents)
            except ReadError as error:
                if error.code != "corrupt":
                    raise
        for target, title in contents.titles.items():
            titles.setdefault(_resolve(part, target), title)
    return titles


def _read_chapter(package: Package, part: str, title: str, blocks: Blocks, limits: Limits) -> None:
    """Add a chapter; its title in the table of contents heads it where it has no heading."""
    data = package.open(part).read()
    text, _ = decode(data, declared_charset(data))
    # The name of the file's window, which few readers show: the chapter's own heading repeats it.
    named = _TITLE.search(text, 0, _HEAD)
    if named:
        text = text[: named.start()] + text[named.end() :]
        title = title or unescape(named[1])
    chapter = Blocks(limits)
    read_html(text, chapter)
    page = chapter.page(1)
    if page.text and not page.headings:
        blocks.mark(2, title)
    blocks.append(page, deeper=1)


def _resolve(base: str, link: str) -> str:
    """The part that a link in the part `base` leads to."""
    path = posixpath.join("/", posixpath.dirname(base), unquote(link.partition("#")[0]))
    return posixpath.normpath(path).lstrip("/")
