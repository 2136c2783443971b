"""What reading a file gives: pages of text with places on them, and the chunks cut from those.

Offsets count Python characters (code points) of `Page.text`, from 0. Boxes are
`(x0, y0, x1, y1)` in 0..1 of the page as it is shown (rotation applied), from the top left.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Line:
    """Where the characters `start..end` of a page's text stand on that page."""

    start: int
    end: int
    box: Box


@dataclass(frozen=True)
class Heading:
    """A heading that begins at `start` of its page's text; level 1 is the outermost."""

    start: int
    level: int
    text: str


@dataclass(frozen=True)
class Spoken:
    """When the characters `start..end` of a page's text were said, in ms of the recording."""

    start: int
    end: int
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class Page:
    """One page, slide or sheet, or the whole text of a file that has no pages.

    `number` counts from 1, `width` and `height` are points (1/72 inch) where the format knows
    them, `source` says how the text was won (`text`, `ocr`, `mixed`, `speech`), `needs_ocr` that
    the page shows something which its text does not tell, `times` when it was said.
    """

    number: int
    text: str
    width: float | None = None
    height: float | None = None
    source: str = "text"
    lines: tuple[Line, ...] = ()
    headings: tuple[Heading, ...] = ()
    needs_ocr: bool = False
    times: tuple[Spoken, ...] = ()


def joined(page: Page, found: Page) -> Page:
    """A page with what was found on pictures beside its text, as a paragraph of its own."""
    if not found.text:
        return page
    place = len(page.text) + 2 if page.text else 0
    moved = (replace(line, start=line.start + place, end=line.end + place) for line in found.lines)
    return replace(
        page,
        text=f"{page.text}\n\n{found.text}" if page.text else found.text,
        source="mixed",
        needs_ocr=False,
        lines=(*page.lines, *moved),
    )


@dataclass(frozen=True)
class Document:
    """A file's text. `paged` says that page numbers are real pages, slides or sheets.

    `truncated_by` is the limit (one of `LIMITS`) that ended reading before the file did.
    """

    pages: tuple[Page, ...]
    paged: bool
    truncated_by: str | None = None


@dataclass(frozen=True)
class Picture:
    """A picture to look at, as WEBP; `width` and `height` are pixels.

    `kind` is thumbnail (of the whole), page (`page` from 1), or image (`image` is the number of an
    EmbeddedImage).
    """

    kind: str
    page: int | None
    width: int
    height: int
    data: bytes
    image: int | None = None


@dataclass(frozen=True)
class EmbeddedImage:
    """A picture in a document, or the picture that a file is.

    `idx` orders those of a file, `box` is where it stands on its page, `context` the text around
    it, `description` what the document says that it shows, `sha256` that of its bytes in the file.
    `facts` are those that a photo carries, `location` where it was taken: latitude and longitude in
    degrees, altitude in metres or None.
    """

    idx: int
    page: int | None
    box: Box | None
    context: str
    description: str
    mime: str | None
    width: int
    height: int
    sha256: str
    facts: dict[str, str | float] = field(default_factory=dict)
    location: tuple[float, float, float | None] | None = None


@dataclass(frozen=True)
class Chunk:
    r"""A piece of one page: `content == page.text[char_start:char_end]`, always.

    `page` is None where the document has no pages, `heading` the path of headings above it,
    outermost first, joined by " \u203a ", `context` the title and that path, which search reads
    with the chunk, `language` an ISO 639-1 code or None when the text does not tell,
    `time_range_ms` from when to when it was said, None for what is read.
    """

    idx: int
    page: int | None
    content: str
    char_start: int
    char_end: int
    bboxes: tuple[tuple[float, ...], ...]
    heading: str | None
    context: str | None
    language: str | None
    time_range_ms: tuple[int, int] | None = None


READ_ERRORS = frozenset(
    {
        "encrypted_pdf",
        "encrypted",
        "corrupt",
        "unsupported_media",
        "magic_mismatch",
        "limit_time",
        "limit_memory",
        "limit_output",
        "infected",
    }
)


# Of these, what was read until then is kept.
LIMITS = frozenset({"limit_time", "limit_memory", "limit_output"})


class ReadError(Exception):
    """A file that cannot be read; reading it again would end the same way.

    `code` is one of `READ_ERRORS` and is stored with the job; `message` is a sentence for the
    person who uploaded the file.
    """

    def __init__(self, code: str, message: str) -> None:
        if code not in READ_ERRORS:
            raise ValueError(f"unknown read error {code!r}")
        super().__init__(message)
        self.code = code
        self.message = message
