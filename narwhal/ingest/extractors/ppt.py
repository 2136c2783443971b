"""PowerPoint's older files (97 to 2003): a page a slide, title first, speaker notes last.

The main stream is a tree of records. A directory says where each slide is stored; the list of
slides gives their order, and holds the texts of their placeholders. MS-PPT describes all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import unpack_from

import olefile

from narwhal.ingest.document import Page, ReadError
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.limits import Limits

PAGED = True

_LOCKED_TOKEN = 0xF3D1C4DF
_USER_EDIT, _DIRECTORY = 4085, 6002
_DOCUMENT_ATOM, _SLIDE_ATOM = 1001, 1007
_SLIDE_LIST, _SLIDE_PERSIST = 4080, 1011
_TEXT_HEADER, _TEXT_UNICODE, _TEXT_BYTES, _TEXT_REFERENCE = 3999, 4000, 4008, 3998
_TITLES, _NOTES, _OTHER = {0, 6}, 2, 4
_SLIDES, _NOTES_LIST = 0, 2
_TEXT_BOX = 0xF00D
_CONTAINER = 15
_POINTS = 72 / 576  # a master unit
_MARKS = str.maketrans({"\r": "\n", "\x0b": "\n", "\xad": None})


@dataclass(frozen=True)
class _Record:
    """A record's kind and instance, and where its content is."""

    kind: int
    instance: int
    is_container: bool
    start: int
    end: int


@dataclass
class _Slide:
    """A slide or its notes, as the list of them has it."""

    reference: int
    number: int
    texts: list[tuple[int, str]] = field(default_factory=list)  # with the kind of place


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the slides in the order in which they are shown."""
    with olefile.OleFileIO(source.file) as archive:
        current = archive.openstream("Current User").read()
        data = archive.openstream("PowerPoint Document").read()
    token, edit = unpack_from("<II", current, 12)
    if token == _LOCKED_TOKEN:
        raise ReadError("encrypted", "The presentation is locked with a password.")
    deck = _Deck(data, edit)
    notes = {slide.number: slide for slide in deck.slides(_NOTES_LIST)}
    for number, slide in enumerate(deck.slides(_SLIDES), start=1):
        blocks = Blocks(limits)
        texts = deck.texts(slide)
        title = " ".join(text for kind, text in texts if kind in _TITLES)
        if title.strip():
            blocks.add(" ".join(title.split()), level=1)
        else:
            blocks.mark(1, "")  # the last slide's title is not this slide's
        for kind, text in texts:
            if kind not in _TITLES:
                blocks.add(text)
        said = notes.get(deck.notes_of(slide))
        for kind, text in deck.texts(said) if said else []:
            if kind == _NOTES:
                blocks.add(text)
        yield blocks.page(number, deck.width, deck.height)


class _Deck:
    """The records of a presentation, found by their references."""

    def __init__(self, data: bytes, edit: int) -> None:
        self._data = data
        self._places: dict[int, int] = {}
        document = self._read_directories(edit)
        self._document = self._record(self._places.get(document, -1))
        self.width: float | None = None
        self.height: float | None = None
        for record in self._children(self._document):
            if record.kind == _DOCUMENT_ATOM:
                width, height = unpack_from("<ii", data, record.start)
                self.width, self.height = width * _POINTS, height * _POINTS

    def _read_directories(self, edit: int) -> int:
        """Note where everything is, the latest edit first; returns the document's reference."""
        document = 0
        seen: set[int] = set()
        while edit and edit not in seen:
            seen.add(edit)
            record = self._record(edit)
            if record.kind != _USER_EDIT:
                raise ReadError("corrupt", "The presentation's directory is damaged.")
            before, directory, reference = unpack_from("<III", self._data, record.start + 8)
            document = document or reference
            self._read_directory(self._record(directory))
            edit = before
        return document

    def _read_directory(self, record: _Record) -> None:
        at = record.start
        while at + 4 <= record.end and record.kind == _DIRECTORY:
            (head,) = unpack_from("<I", self._data, at)
            first, count = head & 0xFFFFF, min(head >> 20, (record.end - at - 4) // 4)
            places = unpack_from(f"<{count}I", self._data, at + 4)
            for reference, place in enumerate(places, start=first):
                self._places.setdefault(reference, place)
            at += 4 + 4 * count

    def _record(self, place: int) -> _Record:
        if not 0 <= place <= len(self._data) - 8:
            return _Record(0, 0, False, 0, 0)
        head, kind, length = unpack_from("<HHI", self._data, place)
        start = place + 8
        end = min(start + length, len(self._data))
        return _Record(kind, head >> 4, head & 15 == _CONTAINER, start, end)

    def _children(self, record: _Record) -> Iterator[_Record]:
        at = record.start
        while at + 8 <= record.end:
            child = self._record(at)
            yield child
            at = child.end

    def _inside(self, record: _Record) -> Iterator[_Record]:
        """All records inside that hold no others, in order; deep nesting costs no stack."""
        pending = [record]
        while pending:
            record = pending.pop()
            if record.is_container or record.kind == _TEXT_BOX:
                pending.extend(reversed(list(self._children(record))))
            else:
                yield record

    def slides(self, instance: int) -> list[_Slide]:
        """The slides, or all notes, in order, with the texts that their list has of them."""
        found: list[_Slide] = []
        for listed in self._children(self._document):
            if listed.kind != _SLIDE_LIST or listed.instance != instance:
                continue
            for record in self._children(listed):
                if record.kind == _SLIDE_PERSIST:
                    reference, _, _, number = unpack_from("<IIII", self._data, record.start)
                    found.append(_Slide(reference, number))
                elif found:
                    self._take(record, found[-1].texts)
        return found

    def notes_of(self, slide: _Slide) -> int:
        """The number of a slide's notes."""
        for record in self._children(self._record(self._places.get(slide.reference, -1))):
            if record.kind == _SLIDE_ATOM:
                return int(unpack_from("<I", self._data, record.start + 16)[0])
        return 0

    def texts(self, slide: _Slide) -> list[tuple[int, str]]:
        """The texts of a slide or of notes, with the kinds of their places."""
        found: list[tuple[int, str]] = []
        used: set[int] = set()
        for record in self._inside(self._record(self._places.get(slide.reference, -1))):
            if record.kind == _TEXT_REFERENCE:
                (index,) = unpack_from("<I", self._data, record.start)
                if index < len(slide.texts) and index not in used:
                    used.add(index)
                    found.append(slide.texts[index])
            else:
                self._take(record, found)
        unused = [text for index, text in enumerate(slide.texts) if index not in used]
        return [(kind, text) for kind, text in [*unused, *found] if text.strip("* \n")]

    def _take(self, record: _Record, texts: list[tuple[int, str]]) -> None:
        """Add what a record says: the kind of a place, then the text in it."""
        data = self._data[record.start : record.end]
        if record.kind == _TEXT_HEADER:
            texts.append((int.from_bytes(data[:4], "little"), ""))
        elif record.kind in (_TEXT_UNICODE, _TEXT_BYTES):
            codec = "utf-16-le" if record.kind == _TEXT_UNICODE else "latin-1"
            text = data.decode(codec, errors="replace").translate(_MARKS)
            kind = texts.pop()[0] if texts and not texts[-1][1] else _OTHER
            texts.append((kind, text))
