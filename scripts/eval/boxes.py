"""Whether chunks stand where their boxes say: cut out of the drawn page and read again.

Takes a folder with a manifest.jsonl. Of every PDF and picture some chunks are drawn by chance;
their boxes are cut out of the page as clients see it (144 dpi, WEBP), read by OCR, and compared:
`words` is the share of a chunk's words that are read in its boxes, `besides` the words read there
for each of its own. Scripts that OCR cannot read are left out.

Example: scripts/eval/run boxes path/to/documents --chunks 3 --json
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from narwhal.evaluation.manifest import fold, manifest, path_of
from narwhal.ingest.chunking import chunk
from narwhal.ingest.document import Box, Chunk, Document, ReadError
from narwhal.ingest.limits import (
    MIB,
    Limits,
    draw_in_sandbox,
    read_in_sandbox,
    read_pictures_in_sandbox,
)

ENOUGH = 0.9
MARGIN = 0.003  # of the page, around a box
GROUND = 40  # pixels of white around what was cut out: readers miss text at an edge
READABLE = re.compile(r"[0-9A-Za-z\u00c0-\u024f\u3040-\u30ff\u4e00-\u9fff]")
UNREADABLE = re.compile(r"[\u0370-\u1fff\uac00-\ud7af\ufb1d-\ufdff\ufe70-\ufeff]")


@dataclass
class Tally:
    """Figures of one format."""

    chunks: int = 0
    good: int = 0
    words: int = 0
    found: int = 0
    read: int = 0
    misses: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chunks", type=int, default=2, help="how many of each file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="files whose path contains this")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    tallies: dict[str, Tally] = defaultdict(Tally)
    for entry in manifest(options.folder):
        path = path_of(options.folder, entry)
        if options.only not in entry["path"]:
            continue
        for piece, page, kind in _sampled(path, entry, options.chunks, chance):
            _compare(tallies[kind], entry["path"], piece, page)
            print(".", end="", file=sys.stderr, flush=True)
    _report(tallies, as_json=options.json)


def _sampled(
    path: Path, entry: dict[str, Any], count: int, chance: random.Random
) -> Iterator[tuple[Chunk, Image.Image, str]]:
    """Yield chunks that have boxes, each with its page, and how that was read."""
    limits = Limits(seconds=600, memory_bytes=1536 * MIB)
    try:
        document = read_in_sandbox(path, path.name, entry.get("mime"), limits)
        if not any(page.lines or page.needs_ocr for page in document.pages):
            return
        pages = {page.number: page for page in document.pages}
        left = [page.number for page in document.pages if page.needs_ocr][: 2 * count]
        if left:
            for page in read_pictures_in_sandbox(path, path.name, None, left, limits):
                pages[page.number] = page
        chunks = chunk(
            Document(tuple(pages.values()), document.paged),
            size=1000,
            overlap=200,
            count_tokens=lambda text: len(text) // 4,
            max_tokens=256,
        )
        placed = [c for c in chunks if c.page and c.bboxes and _is_readable(c.content)]
        chosen = chance.sample(placed, min(count, len(placed)))
        drawn = _draw(path, sorted({c.page for c in chosen if c.page}), limits) if chosen else {}
    except ReadError:
        return
    for piece in chosen:
        assert piece.page is not None
        kind = f"{path.suffix[1:].lower()} {pages[piece.page].source}"
        yield piece, drawn[piece.page], kind


def _is_readable(text: str) -> bool:
    return len(READABLE.findall(text)) > 20 and not UNREADABLE.search(text)


def _draw(path: Path, numbers: list[int], limits: Limits) -> dict[int, Image.Image]:
    wanted = {"pages": numbers, "thumbnail": False, "dpi": 144, "most_pixels": 4_000_000}
    return {
        picture.page: Image.open(io.BytesIO(picture.data)).convert("RGB")
        for picture in draw_in_sandbox(
            path, path.name, None, wanted, replace(limits, memory_bytes=2048 * MIB)
        )
        if picture.page is not None
    }


def _compare(tally: Tally, name: str, piece: Chunk, page: Image.Image) -> None:
    from narwhal.ingest.ocr import read_picture

    texts = []
    for box in piece.bboxes:
        part = _cut(page, (box[0], box[1], box[2], box[3]))
        texts.append(read_picture(part, 1, None, None).text)
    own, read = _words(piece.content), _words("\n".join(texts))
    found = sum(min(number, _count(word, read)) for word, number in own.items())
    tally.chunks += 1
    tally.words += own.total()
    tally.found += found
    tally.read += read.total()
    if found >= ENOUGH * own.total():
        tally.good += 1
    else:
        missing = [word for word in own if not _count(word, read)]
        tally.misses.append(
            f"{name} page {piece.page}: {found} of {own.total()} words in"
            f" {len(piece.bboxes)} boxes; not {' '.join(missing[:8])}"
        )
        print(tally.misses[-1], file=sys.stderr, flush=True)


def _count(word: str, read: Counter[str]) -> int:
    """How often a word was read, a letter or two aside: OCR errs, too."""
    exact = read[word]
    if exact or len(word) < 4:
        return exact
    return sum(number for other, number in read.items() if _is_like(word, other))


def _is_like(one: str, other: str) -> bool:
    if abs(len(one) - len(other)) > 1:
        return False
    allowed = 1 if len(one) < 8 else 2
    ahead = list(range(len(other) + 1))  # edit distance, row by row
    for i, a in enumerate(one, start=1):
        row = [i]
        for j, b in enumerate(other, start=1):
            row.append(min(row[-1] + 1, ahead[j] + 1, ahead[j - 1] + (a != b)))
        ahead = row
    return ahead[-1] <= allowed


def _words(text: str) -> Counter[str]:
    """Count the words, of Chinese and Japanese the characters; marks do not count."""
    return Counter(
        re.findall(r"[\u3040-\u30ff\u4e00-\u9fff]|[^\W_\u3040-\u30ff\u4e00-\u9fff]+", fold(text))
    )


def _cut(page: Image.Image, box: Box) -> Image.Image:
    x0, y0 = (max(0.0, value - MARGIN) for value in box[:2])
    x1, y1 = (min(1.0, value + MARGIN) for value in box[2:])
    part = page.crop(
        (
            int(x0 * page.width), int(y0 * page.height),
            max(int(x1 * page.width), int(x0 * page.width) + 1),
            max(int(y1 * page.height), int(y0 * page.height) + 1),
        )
    )  # fmt: skip
    framed = Image.new("RGB", (part.width + 2 * GROUND, part.height + 2 * GROUND), "white")
    framed.paste(part, (GROUND, GROUND))
    return framed


def _report(tallies: dict[str, Tally], *, as_json: bool) -> None:
    total = Tally()
    for tally in tallies.values():
        for name in ("chunks", "good", "words", "found", "read"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
    rows = [*sorted(tallies.items()), ("all", total)]
    if as_json:
        print(json.dumps({name: vars(tally) for name, tally in rows}, indent=2))
        return
    print(f"{'format':16}{'chunks':>7}{'at least 90 %':>15}{'words':>8}{'besides':>9}")
    for name, tally in rows:
        share = tally.found / max(tally.words, 1)
        besides = (tally.read - tally.found) / max(tally.words, 1)
        print(f"{name:16}{tally.chunks:7}{tally.good:15}{share:8.1%}{besides:9.2f}")
    for tally in tallies.values():
        for miss in tally.misses:
            print("missed:", miss)


if __name__ == "__main__":
    main()
