"""Readers of the formats: one module a family, each turning an open file into pages.

An extractor is a module with `PAGED`, whether its page numbers are real, and
`read(source, limits)`, which yields the pages in order. It may raise anything for a broken
file: `extract_pages` makes a ReadError of it. Extractors run on untrusted bytes, so outside of
tests call them through `narwhal.ingest.limits.read_in_sandbox`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from narwhal.ingest.detect import Detected
from narwhal.ingest.document import Document, Page, ReadError
from narwhal.ingest.limits import Limits

# Imported on demand: a reading process starts fast, and loads no parser that it does not need.
FORMATS = {
    "pdf": "pdf",
    "image": "image",
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
    "srt": "subtitles",
    "vtt": "subtitles",
    "ics": "cards",
    "vcf": "cards",
}


@dataclass(frozen=True)
class Source:
    """An open, seekable file, what it was found to be, and passwords that may open it."""

    file: BinaryIO
    detected: Detected
    passwords: tuple[str, ...] = ()


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
    """Read the file at `path` in this process; ReadError when it cannot be read."""
    extractor = extractor_for(detected)
    with path.open("rb") as file:
        pages = tuple(extract_pages(Source(file, detected), limits or Limits()))
    return Document(pages=pages, paged=extractor.PAGED)


def extract_pages(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the pages of a file as they are read, within the limits on pages and characters."""
    extractor = extractor_for(source.detected)
    characters = 0
    try:
        for count, page in enumerate(extractor.read(source, limits), start=1):
            characters += len(page.text)
            if count > limits.pages:
                raise ReadError("limit_output", f"The file has more than {limits.pages} pages.")
            if characters > limits.characters:
                raise too_much_text(limits)
            yield page
    except (ReadError, MemoryError):
        raise
    except Exception as error:  # a parser may stumble over a broken file in any way
        kind = type(error).__name__
        raise ReadError("corrupt", f"The file is damaged ({kind}: {error})"[:300]) from error


def too_much_text(limits: Limits) -> ReadError:
    """The error for a document whose text exceeds `limits.characters`."""
    return ReadError("limit_output", f"The file has more than {limits.characters} characters.")
