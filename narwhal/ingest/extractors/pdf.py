"""PDF with a text layer: text in reading order, and the box of every line.

A page without text that can be read is left to OCR, and so are pictures of text beside text. Form
values and notes, which are not part of a page's content, follow its text.
"""

from __future__ import annotations

import ctypes
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pypdfium2 as pdfium  # type: ignore[import-untyped]
import pypdfium2.raw as raw  # type: ignore[import-untyped]

from narwhal.ingest.document import Box, Heading, Page, ReadError
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.lines import PageText, is_apart
from narwhal.ingest.extractors.pdf_annotations import annotation_texts
from narwhal.ingest.extractors.pdf_bombs import refuse_bombs
from narwhal.ingest.extractors.pdf_pictures import unread_pictures
from narwhal.ingest.limits import Limits
from narwhal.ingest.locks import locked
from narwhal.ingest.text import clean, is_illegible

PAGED = True

_HYPHEN, _LINE_END = 2, 10  # PDFium ends a line that a word is cut at with a code of its own
# Where a font names no characters, TeX's ligatures surface as the codes of its T1 encoding.
_CONTROLS: dict[int, str | None] = dict.fromkeys([*range(32), 0x7F, 0xFFFE, 0xFFFF])
_CONTROLS.update({9: " ", 0x1B: "ff", 0x1C: "fi", 0x1D: "fl", 0x1E: "ffi", 0x1F: "ffl"})
_CONTROLS.update({0xA0: " "})
# Presentation forms are shapes of a font, not characters that anybody types.
_SHAPES = re.compile("[\ufb00-\ufb4f\ufb50-\ufdff\ufe70-\ufefc]+")
_LAM, _ALEFS = 0x644, {0x622, 0x623, 0x625, 0x627}
_RTL = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc"
_TURNS = re.compile(f"(?<=[{_RTL}])(?=[A-Za-z])|(?<=[A-Za-z])(?=[{_RTL}])")
_DEVICE = 1_000_000  # PDFium maps to integer pixels: a fine grid keeps the boxes exact
_MAX_OUTLINE = 5_000
_MOST_BROKEN = 2_000  # pages in a row
_MOST_OBJECTS = 10_000  # of a page, that are looked at


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the pages; `encrypted_pdf` when the file asks for a password."""
    refuse_bombs(source.file)
    document = open_document(source.file, source.passwords)
    count = len(document)
    if count == 0:
        raise ReadError("corrupt", "The PDF has no pages.")
    form = None
    if document.get_formtype() != raw.FORMTYPE_NONE:
        document.init_forms()
        form = document.formenv
    outline = _outline(document, count)
    readable = last_readable = 0
    for index in range(min(count, limits.pages + 1)):  # one more than is allowed tells of the rest
        page = raw.FPDF_LoadPage(document.raw, index)
        if not page:  # one broken page does not spoil the others
            if index - last_readable > _MOST_BROKEN:
                raise ReadError("corrupt", f"The PDF claims {count} pages that it does not have.")
            yield Page(index + 1, "")
            continue
        try:
            readable += 1
            last_readable = index
            yield _page(page, index + 1, form.raw if form else None, outline.get(index, []))
        finally:
            raw.FPDF_ClosePage(page)
    if not readable:
        raise ReadError("corrupt", "None of the PDF's pages can be read.")


def open_document(file: BinaryIO, passwords: Sequence[str] = ()) -> pdfium.PdfDocument:
    """Open a PDF, by one of the passwords if it has a lock; ReadError if it stays locked."""
    # A path, where there is one: PDFium then reads what it needs instead of the whole file.
    name = getattr(file, "name", None)
    content = name if isinstance(name, str) else file.read()
    for password in (None, *passwords):
        try:
            return pdfium.PdfDocument(content, password=password)
        except pdfium.PdfiumError as error:
            code = getattr(error, "err_code", None)
            if code not in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY):
                raise ReadError("corrupt", "The PDF is damaged and cannot be opened.") from error
    raise ReadError("encrypted_pdf", locked("PDF", passwords))


def _page(page: Any, number: int, form: Any, outline: list[tuple[int, str]]) -> Page:
    width, height = raw.FPDF_GetPageWidthF(page), raw.FPDF_GetPageHeightF(page)
    text = _layer(page)
    layer = text.joined()
    needs_ocr = (
        _shows_something(page)
        if is_illegible(layer)
        else bool(unread_pictures(page, text.lines, page_box))
    )
    for note, corners in annotation_texts(page, form):
        note = clean(note).strip()
        if note:
            text.add(note, page_box(page, *corners), "\n")
    joined = text.joined()
    return Page(
        number=number,
        text=joined,
        width=float(width),
        height=float(height),
        lines=tuple(text.lines),
        headings=_headings(joined, outline),
        needs_ocr=needs_ocr,
    )


def _layer(page: Any) -> PageText:
    """The text layer of a page."""
    text = PageText()
    textpage = raw.FPDFText_LoadPage(page)
    if textpage:
        try:
            _read_lines(page, textpage, text)
        finally:
            raw.FPDFText_ClosePage(textpage)
    return text


def pictures_of_text(document: pdfium.PdfDocument, number: int) -> list[Box] | None:
    """Where a page shows pictures of text beside its text layer; None where it has no layer."""
    page = raw.FPDF_LoadPage(document.raw, number - 1)
    if not page:
        return None
    try:
        text = _layer(page)
        if is_illegible(text.joined()):
            return None
        return unread_pictures(page, text.lines, page_box)
    finally:
        raw.FPDF_ClosePage(page)


def _shows_something(page: Any) -> bool:
    """Whether anything is drawn that may be a picture of text; lines of text are not."""
    kinds = (raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_FORM, raw.FPDF_PAGEOBJ_PATH)
    return any(
        raw.FPDFPageObj_GetType(raw.FPDFPage_GetObject(page, index)) in kinds
        for index in range(min(raw.FPDFPage_CountObjects(page), _MOST_OBJECTS))
    )


def _read_lines(page: Any, textpage: Any, text: PageText) -> None:
    """Add the page's lines: words cut at a line's end are joined, wide gaps part paragraphs."""
    get = raw.FPDFText_GetUnicode
    codes = [get(textpage, index) for index in range(raw.FPDFText_CountChars(textpage))]
    _mend_ligatures(textpage, codes)
    start = 0
    hyphenated = False
    last: Box | None = None
    ends = [index for index, code in enumerate(codes) if code in (_HYPHEN, _LINE_END)]
    for end in [*ends, len(codes)]:
        line = _tidy("".join(map(chr, codes[start:end])))
        box = _line_box(page, textpage, start, end - start) if line else None
        start = end + 1
        if not line:
            continue
        separator = "\n\n" if is_apart(last, box) else "\n"
        if hyphenated:
            separator = _rejoin(text, line)
        text.add(line, box, separator)
        hyphenated = end < len(codes) and codes[end] == _HYPHEN
        last = box or last
    if hyphenated:
        text.add("-", None, "")


def _mend_ligatures(textpage: Any, codes: list[int]) -> None:
    """Put the letters of Arabic's lam-alef in order: PDFium turns the one glyph's two around."""
    x, y = ctypes.c_double(), ctypes.c_double()
    places: list[tuple[float, float]] = []
    for index in range(1, len(codes)):
        if codes[index] != _LAM or codes[index - 1] not in _ALEFS:
            continue
        places.clear()
        for at in (index - 1, index):
            if raw.FPDFText_GetCharOrigin(textpage, at, x, y):
                places.append((x.value, y.value))
        # Letters of two glyphs, as in the article, stand at two places.
        if len(places) == 2 and places[0] == places[1]:
            codes[index - 1], codes[index] = codes[index], codes[index - 1]


def _rejoin(text: PageText, line: str) -> str:
    """What stands between a line that ended in a hyphen and the next: usually nothing."""
    before = text.parts[-1].rpartition(" ")[2]
    # A hyphen that belongs to the word stays: before a capital or digit, after another hyphen.
    if line[0].islower() and before[-1:].islower() and "-" not in before:
        return ""
    return "-"


def _tidy(line: str) -> str:
    line = line.translate(_CONTROLS)
    # Where the direction changes, PDFium puts the space on the wrong side of the word.
    line = _TURNS.sub(" ", line)
    line = _SHAPES.sub(lambda shapes: unicodedata.normalize("NFKC", shapes.group()), line)
    return clean(line).strip()


def _line_box(page: Any, textpage: Any, start: int, count: int) -> Box | None:
    """The box around `count` characters from `start`."""
    left, top, right, bottom = (ctypes.c_double() for _ in range(4))
    corners: list[tuple[float, float, float, float]] = []
    for index in range(raw.FPDFText_CountRects(textpage, start, count)):
        if raw.FPDFText_GetRect(textpage, index, left, top, right, bottom):
            corners.append((left.value, top.value, right.value, bottom.value))
    if not corners:
        return None
    return page_box(
        page,
        min(corner[0] for corner in corners),
        max(corner[1] for corner in corners),
        max(corner[2] for corner in corners),
        min(corner[3] for corner in corners),
    )


def page_box(page: Any, left: float, top: float, right: float, bottom: float) -> Box | None:
    """Map a box of PDF coordinates to 0..1 of the page as shown, its rotation included."""
    xs, ys = [], []
    x, y = ctypes.c_int(), ctypes.c_int()
    for at_x, at_y in ((left, top), (right, bottom)):
        if not raw.FPDF_PageToDevice(page, 0, 0, _DEVICE, _DEVICE, 0, at_x, at_y, x, y):
            return None
        xs.append(min(max(x.value / _DEVICE, 0.0), 1.0))
        ys.append(min(max(y.value / _DEVICE, 0.0), 1.0))
    return min(xs), min(ys), max(xs), max(ys)


def _outline(document: pdfium.PdfDocument, pages: int) -> dict[int, list[tuple[int, str]]]:
    """The bookmarks by page index, as (level, title)."""
    found: dict[int, list[tuple[int, str]]] = {}
    try:
        for count, bookmark in enumerate(document.get_toc(max_depth=6)):
            if count >= _MAX_OUTLINE:
                break
            destination = bookmark.get_dest()
            index = destination.get_index() if destination else None
            title = " ".join(clean(bookmark.get_title() or "").split())
            if index is not None and 0 <= index < pages and title:
                found.setdefault(index, []).append((bookmark.level + 1, title))
    except pdfium.PdfiumError:
        pass  # an outline is a convenience: broken, it does not stop the text
    return found


def _headings(text: str, outline: list[tuple[int, str]]) -> tuple[Heading, ...]:
    """Place bookmarks at the first occurrence of their titles, else at the start of the page."""
    headings = []
    at = 0
    for level, title in outline:
        words = re.compile(r"\s+".join(map(re.escape, title.split())), re.IGNORECASE)
        found = words.search(text, at)
        if found:
            at = found.start()
        headings.append(Heading(at, level, title))
    return tuple(headings)
