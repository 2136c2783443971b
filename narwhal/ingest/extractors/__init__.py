"""Readers of the formats: one module a family, each turning an open file into pages.

An extractor is a module with `PAGED`, whether its page numbers are real, and
`read(source, limits)`, which yields the pages in order. It may raise anything for a broken
file: `extract_pages` makes a ReadError of it. Extractors run on untrusted bytes, so outside of
tests call them through `narwhal.ingest.limits.read_in_sandbox`.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from narwhal.ingest.detect import Detected
from narwhal.ingest.document import Document, Page, ReadError
from narwhal.ingest.limits import Limits

# Imported on demand: a reading process starts fast, and loads no parser that it does not need.
FORMATS = {
    "pdf": "pdf",
    "image": "image",
    "audio": "media",
    "video": "media",
    "docx": "docx",
    "pptx": "pptx",
    "xlsx": "xlsx",
    "odt": "odt",
    "ods": "ods",
    "odp": "odp",
    "doc": "doc",
    "xls": "xls",
    "ppt": "ppt",
    "msg": "msg",
    "epub": "epub",
    "rtf": "rtf",
    "zip": "archive",
    "tar": "archive",
    "html": "html",
    "markdown": "plain",
    "text": "plain",
    "csv": "table",
    "tsv": "table",
    "eml": "mail",
    "json": "json_text",
    "xml": "xml_text",
    "svg": "svg",
    "srt": "subtitles",
    "vtt": "subtitles",
    "ics": "cards",
    "vcf": "cards",
}


@dataclass
class Source:
    """An open, seekable file, what it was found to be, and passwords that may open it.

    `is_cut` is set by a reader that gives less text than the file has.
    """

    file: BinaryIO
    detected: Detected
    passwords: tuple[str, ...] = ()
    is_cut: bool = False


class FullError(ReadError):
    """A limit was reached in the middle of a page; `page(number)` makes it of what there is."""

    def __init__(self, code: str, message: str, page: Callable[[int], Page]) -> None:
        super().__init__(code, message)
        self.page = page


class Extractor(Protocol):
    """The shape of an extractor module."""

    PAGED: bool

    def read(self, source: Source, limits: Limits) -> Iterator[Page]:
        """Yield the pages of the file."""


def extractor_for(detected: Detected) -> Extractor:
    """Import the module that reads `detected`; ReadError `unsupported_media` where none does."""
    module = FORMATS.get(detected.format or "")
    if module is None:
        raise ReadError("unsupported_media", f"Nothing here reads {detected.mime}.")
    return cast(Extractor, importlib.import_module(f"{__name__}.{module}"))


def extract(path: Path, detected: Detected, limits: Limits | None = None) -> Document:
    """Read the whole file at `path` in this process; ReadError when that is not possible."""
    extractor = extractor_for(detected)
    with path.open("rb") as file:
        pages = tuple(extract_pages(Source(file, detected), limits or Limits()))
    return Document(pages=pages, paged=extractor.PAGED)


def extract_pages(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the pages of a file as they are read, as many as the limits allow.

    Raises ReadError after the last of them when a limit was reached before the end.
    """
    extractor = extractor_for(source.detected)
    count = 0
    left = limits.characters
    try:
        for page in extractor.read(source, limits):
            if count == limits.pages:
                raise ReadError("limit_output", f"The file has more than {limits.pages} pages.")
            yield _beginning(page, left)
            count += 1
            left -= len(page.text)
            _allow(limits.time_for(page))
            if left < 0:
                raise too_much_text(limits)
            check_time(limits)
        if source.is_cut:
            raise too_much_text(limits)
    except FullError as full:
        if left > 0 and count < limits.pages:
            yield _beginning(full.page(count + 1), left)
        raise
    except (ReadError, MemoryError):
        raise
    except Exception as error:  # a parser may stumble over a broken file in any way
        kind = type(error).__name__
        raise ReadError("corrupt", f"The file is damaged ({kind}: {error})"[:300]) from error


def _beginning(page: Page, most: int) -> Page:
    """The page, or as many characters of it as are allowed, cut between two words."""
    if len(page.text) <= most:
        return page
    end = max(page.text.rfind(" ", 0, most), page.text.rfind("\n", 0, most))
    text = page.text[: end if end > most // 2 else most].rstrip()
    return replace(
        page,
        text=text,
        lines=tuple(line for line in page.lines if line.end <= len(text)),
        headings=tuple(heading for heading in page.headings if heading.start < len(text)),
        times=tuple(spoken for spoken in page.times if spoken.end <= len(text)),
    )


_deadline = math.inf


def stop_reading_at(deadline: float) -> None:
    """Let readers end by themselves, with what they have, at this `time.monotonic()`."""
    global _deadline
    _deadline = deadline


def _allow(seconds: float) -> None:
    global _deadline
    _deadline += seconds


def is_late() -> bool:
    """Whether it is time to end."""
    return time.monotonic() > _deadline


def check_time(limits: Limits) -> None:
    """Raise ReadError `limit_time` when it is time to end."""
    if is_late():
        raise took_too_long(limits)


def took_too_long(limits: Limits) -> ReadError:
    """The error for a document that takes longer than `limits.seconds`."""
    return ReadError("limit_time", f"Reading takes longer than {limits.seconds:g} s.")


def too_much_text(limits: Limits) -> ReadError:
    """The error for a document whose text exceeds `limits.characters`."""
    return ReadError("limit_output", f"The file has more than {limits.characters} characters.")
