"""Office packages: zip members within limits, XML without entities, relationships.

Parts are parsed as a stream of events, never as a tree: memory stays flat however large or deeply
nested a part is. Names are matched without their namespace, since transitional and strict files
differ in nothing else that is read here.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO
from xml.parsers import expat

from narwhal.ingest.document import ReadError
from narwhal.ingest.limits import MIB, Limits

_PIECE = 64 * 1024
# XML of documents shrinks 5 to 30 times; only a part made to fill the memory shrinks far more.
_MOST_RATIO = 200
_RATIO_FREE = 32 * MIB


class Handler:
    """Receives the events of a part; override what matters.

    Names of elements come without a prefix, those of attributes as `_local` says.
    """

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""

    def end(self, name: str) -> None:
        """An element ends."""

    def text(self, text: str) -> None:
        """Character data, in one piece where the parser can."""


@dataclass(frozen=True)
class Relationship:
    """A link from one part to another: `kind` is the last word of its type, e.g. `comments`."""

    id: str
    kind: str
    target: str


class Package:
    """An open Office file."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._archive = zipfile.ZipFile(file)
        self._limits = limits
        # Producers disagree on the case of part names, which the standard ignores.
        self._members = {
            info.filename.replace("\\", "/").lstrip("/").lower(): info
            for info in self._archive.infolist()
        }

    def __contains__(self, part: str) -> bool:
        return part.lower() in self._members

    def main_part(self, *fallbacks: str) -> str:
        """The name of the part that the package is about; ReadError `corrupt` without one."""
        for relationship in self.relationships(""):
            if relationship.kind == "officeDocument" and relationship.target in self:
                return relationship.target
        for fallback in fallbacks:
            if fallback in self:
                return fallback
        raise ReadError("corrupt", "The document's main part is missing.")

    def relationships(self, part: str) -> list[Relationship]:
        """The relationships of `part` ("" for the package itself) to parts inside the file."""
        folder, name = posixpath.split(part)
        rels = posixpath.join(folder, "_rels", f"{name}.rels")
        if rels not in self:
            return []
        found: list[Relationship] = []

        class Reader(Handler):
            def start(self, name: str, attributes: dict[str, str]) -> None:
                if name != "Relationship" or attributes.get("TargetMode") == "External":
                    return
                target = attributes.get("Target", "").replace("\\", "/")
                path = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
                kind = attributes.get("Type", "").rpartition("/")[2]
                found.append(Relationship(attributes.get("Id", ""), kind, path))

        self.parse(rels, Reader())
        return found

    def targets(self, part: str, kind: str) -> list[str]:
        """The existing parts that `part` points to by relationships of `kind`."""
        return [
            relationship.target
            for relationship in self.relationships(part)
            if relationship.kind == kind and relationship.target in self
        ]

    def parse(self, part: str, handler: Handler) -> None:
        """Feed `part` to `handler`; ReadError for a bomb, a DTD or broken XML."""
        for _ in self.steps(part, handler):
            pass

    def steps(self, part: str, handler: Handler) -> Iterator[None]:
        """Like `parse`, in steps: what `handler` has made so far can be taken between two."""
        return parse_xml(self._pieces(part), part, handler)

    def open(self, part: str) -> BinaryIO:
        """The bytes of `part`, for parts that are no XML."""
        return io.BytesIO(b"".join(self._pieces(part)))

    def _pieces(self, part: str) -> Iterator[bytes]:
        """The inflated bytes of `part`, counted: what the archive says of its size is a claim."""
        info = self._members[part.lower()]
        self._check(part, info.file_size, info.compress_size)
        total = 0
        try:
            with self._archive.open(info) as member:
                while piece := member.read(_PIECE):
                    total += len(piece)
                    self._check(part, total, info.compress_size)
                    yield piece
        except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError) as error:
            raise ReadError("corrupt", f"The document is damaged: {part}: {error}") from error
        except RuntimeError as error:  # zipfile's word for an encrypted member
            raise ReadError("unsupported_media", "The document is locked.") from error

    def _check(self, part: str, size: int, compressed: int) -> None:
        bomb = size > _RATIO_FREE and size > compressed * _MOST_RATIO
        if bomb or size > self._limits.inflated_bytes:
            raise ReadError("limit_memory", f"{part} unfolds to {size // MIB} MiB or more.")


def parse_xml(pieces: Iterable[bytes], name: str, handler: Handler) -> Iterator[None]:
    """Feed the `pieces` of the XML called `name` to `handler`, one at each step."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    start, end = handler.start, handler.end
    parser.StartElementHandler = lambda name, attributes: start(
        name.rpartition(":")[2], _local(attributes)
    )
    parser.EndElementHandler = lambda name: end(name.rpartition(":")[2])
    parser.CharacterDataHandler = handler.text
    # An old document may name its type; one that declares anything is there to declare entities.
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        for piece in pieces:
            parser.Parse(piece, False)
            yield
        parser.Parse(b"", True)
        yield
    except expat.ExpatError as error:
        raise ReadError("corrupt", f"The document is damaged: {name}: {error}") from error


def _local(attributes: dict[str, str]) -> dict[str, str]:
    """Name attributes without their prefix; those that had one also with a bare colon.

    `<sldId id="256" r:id="rId2"/>` has `id` 256 and `:id` rId2.
    """
    if ":" not in "".join(attributes):
        return attributes
    found: dict[str, str] = {}
    for key, value in attributes.items():
        prefix, _, name = key.rpartition(":")
        if prefix:
            found.setdefault(name, value)
            found[f":{name}"] = value
        else:
            found[name] = value
    return found


def _refuse_doctype(_name: str, _system: str | None, _public: str | None, declares: int) -> None:
    if declares:
        raise ReadError("corrupt", "The document declares XML entities, as no office program does.")


def is_on(attributes: dict[str, str], name: str = "val") -> bool:
    """Whether an on-off property is on: present without a value means on."""
    return attributes.get(name, "1") not in ("0", "false", "off", "none")
