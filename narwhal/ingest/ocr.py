"""Reading text from pictures: lines with their boxes, in the order of reading.

RapidOCR with its packaged models (PP-OCR) reads Latin, Chinese and Japanese script on a CPU without
being told the language. Tesseract, where the system has it, reads the languages that were asked
for, and scripts that the packaged models do not know.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import accumulate
from statistics import median
from typing import Any

from PIL import Image

from narwhal.ingest import tesseract
from narwhal.ingest.document import Box, Page, joined
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.lines import PageText, is_apart
from narwhal.ingest.pictures import frame, pdf_page
from narwhal.ingest.text import clean

_SURE = 0.5  # least confidence of a line that is kept
_TALL = 1.5  # length over height of what is a line
_SURE_OF_ALL = 0.85  # mean square of confidence at which nobody asks which way is up
_MOST_LANGUAGES = 4  # that are tried where the script does not tell
_LEAST_READ = 10  # characters: fewer may be scraps of a script that the models do not know
_SAME_ROW = 0.5  # of the lower line's height, that two lines share
_GUTTER = 0.01  # of the page's width, between two columns
_GAP = 0.7  # line heights, between what stands above columns and these
_LEAST_COLUMN = 3  # lines
_LEAST_LETTERS = 6  # of a picture beside text: fewer are patterns


@dataclass(frozen=True)
class Seen:
    """A line of text on a picture: its box in 0..1 of the picture, and how sure the reader is."""

    text: str
    box: Box
    confidence: float


@cache
def load_reader() -> Any:
    """Load the models; one thread, since a locked process cannot start others."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import cv2
    import numpy as np
    from rapidocr import RapidOCR

    cv2.setNumThreads(0)
    reader = RapidOCR(
        params={
            "Global.use_cls": False,  # it turns single lines around, good ones too
            "Global.log_level": "critical",
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
    blank = np.zeros((48, 192, 3), np.uint8)  # models are loaded when they are first used
    reader(blank)
    reader(blank, use_det=False, use_rec=True)
    return reader


def read_pages(
    source: Source, numbers: Sequence[int], languages: Sequence[str] = ()
) -> Iterator[Page]:
    """Read pages of a picture or of a PDF by OCR, in this order; without languages, in any."""
    if source.detected.format == "pdf":
        from narwhal.ingest.extractors.pdf import open_document, pictures_of_text

        document = open_document(source.file, source.passwords)
        for number in numbers:
            width, height = document.get_page_size(number - 1)
            places = pictures_of_text(document, number)
            image = pdf_page(document, number)
            if places is None:
                yield read_picture(image, number, width, height, languages)
            else:
                empty = Page(number, "", width, height, "mixed")
                yield _read_places(image, places, empty, languages)
    else:
        for number in numbers:
            image = frame(source.file, number)
            size = float(image.width), float(image.height)
            yield read_picture(image, number, *size, languages)


def _read_places(
    image: Image.Image, places: Sequence[Box], page: Page, languages: Sequence[str]
) -> Page:
    """Read parts of a page; what they say is to be added to the text that the page has."""
    found = page
    for place in places:
        left, top, right, bottom = place
        corners = (
            int(left * image.width),
            int(top * image.height),
            math.ceil(right * image.width),
            math.ceil(bottom * image.height),
        )
        seen = read_picture(image.crop(corners), page.number, None, None, languages)
        if sum(map(str.isalnum, seen.text)) >= _LEAST_LETTERS:
            lines = tuple(replace(line, box=_within(place, line.box)) for line in seen.lines)
            found = joined(found, replace(seen, lines=lines))
    return found


def _within(place: Box, box: Box) -> Box:
    """A box of a part of a page, on that page."""
    width, height = place[2] - place[0], place[3] - place[1]
    return (
        place[0] + box[0] * width,
        place[1] + box[1] * height,
        place[0] + box[2] * width,
        place[1] + box[3] * height,
    )


def read_picture(
    image: Image.Image,
    number: int,
    width: float | None,
    height: float | None,
    languages: Sequence[str] = (),
) -> Page:
    """Read a picture as page `number`; boxes are of the picture as given, whichever way it lies."""
    text = PageText()
    last: Box | None = None
    seen, turns = _see_in(image, languages)
    for row in _rows(in_reading_order(seen)):
        for place, line in enumerate(row):
            separator = " " if place else "\n\n" if is_apart(last, line.box) else "\n"
            text.add(line.text, _turned_back(line.box, turns), separator)
            last = line.box
    return Page(
        number=number,
        text=text.joined(),
        width=width,
        height=height,
        source="ocr",
        lines=tuple(text.lines),
    )


def uses_tesseract(languages: Sequence[str]) -> bool:
    """Whether these languages are read by Tesseract alone."""
    return bool(languages) and set(languages) <= tesseract.languages()


def _see_in(image: Image.Image, languages: Sequence[str]) -> tuple[list[Seen], int]:
    """Read a picture in these languages, or in whatever it is; see `_see_upright`."""
    if uses_tesseract(languages):
        return _see_upright(image, partial(_see_words, languages=languages), (1, 2, 3), _LEAST_READ)
    best, turns = _see_upright(image, _see, (2,))
    if languages or _is_sure(best, _LEAST_READ):
        return best, turns
    told = tesseract.languages_of(image)
    # a line or two are too few to tell the script by: then the words must be the surer
    others = told or sorted(tesseract.languages() - tesseract.PACKAGED)[:_MOST_LANGUAGES]
    if not others or set(others) <= tesseract.PACKAGED:
        return best, turns
    seen, seen_turns = _see_upright(
        image, partial(_see_words, languages=others), (1, 2, 3) if told else (), _LEAST_READ
    )
    is_better = _weight(seen) > _weight(best) and (bool(told) or _is_sure(seen, _LEAST_READ))
    return (seen, seen_turns) if is_better else (best, turns)


def _see_words(image: Image.Image, languages: Sequence[str]) -> list[Seen]:
    found = (
        Seen(clean(text).strip(), box, confidence)
        for text, box, confidence in tesseract.see(image, languages)
    )
    return [line for line in found if line.text and line.confidence >= _SURE]


def _see_upright(
    image: Image.Image,
    see: Callable[[Image.Image], list[Seen]],
    unsure: tuple[int, ...],
    least: int = 0,
) -> tuple[list[Seen], int]:
    """Read a picture, turned by quarters until it reads best; boxes are of the turned one.

    `unsure` are the turns to try when what is read as it lies is doubtful, or of fewer characters
    than `least`.
    """
    best, best_turns = see(image), 0
    if _stands(best, image):
        # lines that run up or down are recognised, too, but not in their order
        others: tuple[int, ...] = (1, 3)
        best = []
    else:
        others = () if _is_sure(best, least) else unsure
    for turns in others:
        turned = image.rotate(90 * turns, expand=True)
        seen = see(turned)
        if _weight(seen) > _weight(best) and not _stands(seen, turned):
            best, best_turns = seen, turns
    return best, best_turns


def _is_sure(seen: list[Seen], least: int = 0) -> bool:
    """Whether what was read, so many characters at least, is too certain to be anything else."""
    length = sum(len(line.text) for line in seen)
    return length >= least and _weight(seen) >= _SURE_OF_ALL * length


def _weight(seen: list[Seen]) -> float:
    """How many characters were read, as far as they are sure."""
    return sum(len(line.text) * line.confidence**2 for line in seen)


def _stands(seen: list[Seen], image: Image.Image) -> bool:
    """Whether most of the text runs up or down the page."""
    standing = lying = 0
    for line in seen:
        width = (line.box[2] - line.box[0]) * image.width
        height = (line.box[3] - line.box[1]) * image.height
        standing += len(line.text) if height > _TALL * width else 0
        lying += len(line.text) if width > _TALL * height else 0
    return standing > lying


def _see(image: Image.Image) -> list[Seen]:
    import numpy as np

    found = load_reader()(np.asarray(image)[:, :, ::-1], use_det=True)
    if found.txts is None:
        return []
    width, height = image.size
    seen = []
    for text, corners, confidence in zip(found.txts, found.boxes, found.scores, strict=True):
        line = clean(text).strip()
        xs, ys = [c[0] / width for c in corners], [c[1] / height for c in corners]
        box = tuple(min(max(float(v), 0.0), 1.0) for v in (min(xs), min(ys), max(xs), max(ys)))
        if line and confidence >= _SURE:
            seen.append(Seen(line, box, float(confidence)))  # type: ignore[arg-type]
    return seen


def _turned_back(box: Box, turns: int) -> Box:
    """A box of a picture that was turned by quarters against the clock, in the picture before."""
    x0, y0, x1, y1 = box
    for _ in range(turns):
        x0, y0, x1, y1 = 1 - y1, x0, 1 - y0, x1
    return x0, y0, x1, y1


def in_reading_order(lines: list[Seen]) -> list[Seen]:
    """Column after column, each from top to bottom (XY-cut, Nagy and Seth 1984)."""
    if len(lines) < 2 * _LEAST_COLUMN:
        return sorted(lines, key=lambda line: (line.box[1], line.box[0]))
    height = median(line.box[3] - line.box[1] for line in lines)
    for axis, gap, least in ((0, _GUTTER, _LEAST_COLUMN), (1, _GAP * height, 1)):  # columns first
        parts = _cut(lines, axis, gap)
        if min(map(len, parts)) >= least:
            return [line for part in parts for line in in_reading_order(part)]
    return sorted(lines, key=lambda line: (line.box[1], line.box[0]))


def _cut(lines: list[Seen], axis: int, least: float) -> tuple[list[Seen], list[Seen]]:
    """Part lines where most is left free along an axis (0 across, 1 down), at least so much."""
    ordered = sorted(lines, key=lambda line: line.box[axis])
    ends = accumulate((line.box[axis + 2] for line in ordered), max)
    gaps = [line.box[axis] - end for line, end in zip(ordered[1:], ends, strict=False)]
    widest = max(gaps)
    if widest < least:
        return ordered, []
    place = gaps.index(widest) + 1
    return ordered[:place], ordered[place:]


def _rows(lines: list[Seen]) -> list[list[Seen]]:
    """Lines side by side as rows, from left to right."""
    rows: list[list[Seen]] = []
    for line in lines:
        if rows and _beside(rows[-1][-1].box, line.box):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: line.box[0]) for row in rows]


def _beside(one: Box, other: Box) -> bool:
    shared = min(one[3], other[3]) - max(one[1], other[1])
    return shared > _SAME_ROW * min(one[3] - one[1], other[3] - other[1])
