"""Taking a file apart: what the sandbox found inside of it, checked and put together.

One member at a time is held in memory, which the limits allow for.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from narwhal.ingest.document import ReadError
from narwhal.ingest.limits import Limits, unpack_in_sandbox
from narwhal.ingest.text import clean

_MOST_MEMBER = 500  # characters, as the table that notes them has it
_MOST_MIME = 255


@dataclass(frozen=True)
class Unpacked:
    """A file from inside of another; without its bytes when a limit keeps it there."""

    member: str
    name: str
    mime: str | None
    data: bytes
    is_refused: bool = False


def unpack(
    path: Path, name: str, mime: str | None, wanted: dict[str, int], limits: Limits
) -> Iterator[Unpacked]:
    """Yield the files inside of the one at `path`.

    `wanted` is `{most_count, most_bytes, most_total_bytes}`; what is beyond is refused. Raises
    ReadError as `read_in_sandbox` does.
    """
    answers = unpack_in_sandbox(path, name, mime, wanted, limits)
    left = wanted["most_total_bytes"]
    for count, answer in enumerate(_whole(answers, wanted["most_bytes"])):
        if not answer.is_refused:
            left -= len(answer.data)
            if left < 0 or count >= wanted["most_count"]:
                raise _unusable()
        yield answer


def _whole(answers: Iterator[dict[str, Any]], most_bytes: int) -> Iterator[Unpacked]:
    for head in answers:
        try:
            member, name, size = str(head["member"]), str(head["name"]), int(head["size"])
            mime = None if head["mime"] is None else str(head["mime"])[:_MOST_MIME]
            is_refused = bool(head["is_refused"])
            if len(member) > _MOST_MEMBER or clean(name + member) != name + member or size < 0:
                raise ValueError("a name that cannot be stored")
            data = bytearray()
            while not is_refused and len(data) < size:
                data += binascii.a2b_base64(next(answers)["data"])
                if len(data) > min(size, most_bytes):
                    raise ValueError("more bytes than were announced")
        except (KeyError, TypeError, ValueError, StopIteration):
            raise _unusable() from None
        yield Unpacked(member, name, mime, bytes(data), is_refused)


def _unusable() -> ReadError:
    return ReadError("corrupt", "Taking the file apart gave no usable answer.")
