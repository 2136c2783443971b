"""What is inside of a file and can be taken out: the attachments of a mail, as bytes.

Runs in the sandbox. Names are made harmless here; Postgres decides whether it takes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from narwhal.ingest.document import ReadError
from narwhal.ingest.extractors import Source, mail, msg
from narwhal.ingest.media_types import EXTENSIONS, MEDIA, MIMES
from narwhal.ingest.text import clean

MOST_NAME = 255  # bytes
MOST_MEMBER = 500  # characters
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069/\\\\]+")
_BLANK = re.compile("[\\s\u200b-\u200d\u2060-\u2064\ufeff]*")


@dataclass(frozen=True)
class Member:
    """A file inside of another.

    `member` tells it from all others in there and stays the same when the file is taken apart
    again; `name` is that of the file which it becomes.
    """

    member: str
    name: str
    mime: str | None
    data: bytes


def members(source: Source) -> Iterator[Member]:
    """Yield the attachments of a mail in their order; pictures of its own layout are not any.

    Raises ReadError `unsupported_media` for what is not a mail.
    """
    if source.detected.format == "eml":
        yield from _distinct(mail.attachments(source.file))
    elif source.detected.format == "msg":
        yield from _distinct(msg.attachments(source.file))
    else:
        raise ReadError("unsupported_media", "Nothing is taken out of files of this type.")


def _distinct(attachments: Iterable[tuple[str, str | None, bytes]]) -> Iterator[Member]:
    seen: dict[str, int] = {}
    for given, mime, data in attachments:
        name = safe_name(given) or "attachment" + _extension(mime)
        member = name[: MOST_MEMBER - 20]
        count = seen[member.lower()] = seen.get(member.lower(), 0) + 1
        yield Member(member if count == 1 else f"{member}/{count}", name, mime, data)


def safe_name(name: str) -> str:
    """A name that a file may have, as near to `name` as can be; "" when nothing is left of it."""
    name = " ".join(_HIDDEN.sub(" ", clean(name)).split())
    if _BLANK.fullmatch(name) or name in (".", ".."):
        return ""
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension) > 16:
        stem, extension = name, ""
    end = f".{extension}" if extension else ""
    room = MOST_NAME - len(end.encode())
    return stem.encode()[:room].decode(errors="ignore") + end


def _extension(mime: str | None) -> str:
    """The extension of a type that has one, with its dot."""
    formats = [name for name, value in {**MIMES, **MEDIA}.items() if value == mime]
    names = [name for name, value in EXTENSIONS.items() if value in formats]
    return f".{(names or formats)[0]}" if formats else ""
