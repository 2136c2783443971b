"""Archives (zip, tar and compressed tar): a line for each file inside, with its path and size.

Nothing is unpacked but the list itself, and no archive inside of another is opened.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from narwhal.ingest.document import Page, ReadError
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.limits import Limits
from narwhal.ingest.text import decode

PAGED = False

_MOST_MEMBERS = 100_000
_MOST_PATH = 1_000  # characters
_UTF8 = 0x800
_ARCHIVE = re.compile(r"\.(?:zip|jar|7z|rar|tar|tgz|gz|bz2|xz)$", re.IGNORECASE)
# Control characters, and those that turn the direction of what follows: a name may lie with them.
_TRICKS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


@dataclass(frozen=True)
class _Member:
    path: str
    size: int
    checksum: int | None = None


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the list of the files inside as one page."""
    blocks = Blocks(limits)
    members = _zip(source) if source.detected.format == "zip" else _tar(source, limits, blocks)
    for count, member in enumerate(members):
        if count == _MOST_MEMBERS:
            blocks.add("\u2026")
            break
        blocks.add(f"{_harmless(member.path)}\t{member.size}", gap=1)
    yield blocks.page(1)


def _zip(source: Source) -> list[_Member]:
    with zipfile.ZipFile(source.file) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    # Without the mark of UTF-8 a name is in the encoding of the system that wrote it, which the
    # library takes for that of DOS; together, the names are enough to tell.
    old = [info for info in infos if not info.flag_bits & _UTF8 and not info.filename.isascii()]
    names = {id(info): info.filename for info in infos}
    if old:
        data = b"\n".join(info.orig_filename.encode("cp437", "replace") for info in old)
        for info, name in zip(old, decode(data)[0].split("\n"), strict=False):
            names[id(info)] = name
    members = [_Member(names[id(info)], info.file_size, info.CRC) for info in infos]
    _refuse_bombs(members, source.file.seek(0, 2))
    return members


def _refuse_bombs(members: Iterable[_Member], size: int) -> None:
    """Refuse archives that are made to be unpacked without end."""
    inner = [member for member in members if _ARCHIVE.search(member.path)]
    if any(member.size == size for member in inner):
        raise ReadError("unsupported_media", "The archive holds itself.")
    copies = {(member.size, member.checksum) for member in members}
    if len(inner) > 1 and len(copies) == 1:
        raise ReadError("unsupported_media", "The archive holds one archive over and over.")


def _tar(source: Source, limits: Limits, blocks: Blocks) -> Iterator[_Member]:
    # Read as a stream: a compressed archive has to be unfolded up to each next name.
    with tarfile.open(fileobj=source.file, mode="r|*", errorlevel=0) as archive:
        for member in archive:
            # The library keeps all that it has seen.
            archive.members.clear()  # type: ignore[attr-defined]
            if archive.offset > limits.inflated_bytes:
                message = "The archive unfolds to more than is allowed."
                blocks.end_with(ReadError("limit_memory", message))
            if not member.isdir():
                name = member.name.encode("utf-8", "surrogateescape")
                yield _Member(decode(name)[0], member.size)


def _harmless(path: str) -> str:
    """A path that leads nowhere but into a folder of its own."""
    path = _TRICKS.sub(" ", path).replace("\\", "/")
    path = re.sub(r"^(?:[A-Za-z]:)+", "", path)
    parts = (part.strip() for part in path.split("/"))
    return "/".join(part for part in parts if part not in ("", ".", ".."))[:_MOST_PATH]
