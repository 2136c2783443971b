"""What a text tells about itself without a model, in any language: each finding with its place.

An `Analyst` is the shape of what makes one kind of insight; a language model can stand in for any
of those here, and then says so in `method`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from narwhal.ingest.document import Page
from narwhal.ingest.entities import find_entities
from narwhal.ingest.language import detect_language
from narwhal.ingest.words import CATEGORIES, FUNCTION_CHARACTERS, FUNCTION_WORDS

VERSION = "1"
_MOST_CHARACTERS = 300_000  # that phrases and sentences are taken from
_SAMPLE = 2_000
_MOST_PHRASES, _MOST_SENTENCES = 10, 3
_LONGEST_PHRASE = 3  # words
_LONGEST_SENTENCE, _SHORTEST_SENTENCE = 300, 20  # characters
# Letters and digits, with the signs that stand over and after them.
_LETTERS = r"(?:[^\W_]|[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff])+"
_TOKEN = re.compile(rf"{_LETTERS}(?:['\u2019-]{_LETTERS})*|[^\w\s]|\n")
_SENTENCE = re.compile(
    r"[^\s.!?\u3002\uff01\uff1f\u0964\u061f](?:[^.!?\u3002\uff01\uff1f\u0964\u061f\n]"
    r"|[.](?=\S)|\n(?!\s*\n))*"
    r"(?:[.!?\u3002\uff01\uff1f\u0964\u061f]+[\"'\u201d\u2019)\]]*)?"
)
# Scripts that put no spaces between words.
_RUN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]+|[\u30a1-\u30fa\u30fc]+|[\u0e00-\u0e7f]+")
_RUN_LENGTHS = range(2, 7)


@dataclass(frozen=True)
class Insight:
    """What was found of one kind, how, and by which release of the method."""

    kind: str
    items: list[dict[str, Any]]
    method: str
    method_version: str = VERSION


class Analyst(Protocol):
    """Finds one kind of insight in the pages of a document; `name` is a file's."""

    def __call__(self, pages: Sequence[Page], name: str, file_format: str | None, /) -> Insight:
        """Look at the pages."""


@dataclass
class _Tally:
    """How often something stands in a text, and where first."""

    text: str
    page: int
    start: int
    end: int
    count: int = 0
    words: tuple[str, ...] = field(default=())


def analyse(pages: Sequence[Page], name: str, file_format: str | None) -> list[Insight]:
    """All insights that have something to say, as `finish_insights` takes them."""
    found = [analyst(pages, name, file_format) for analyst in ANALYSTS]
    return [insight for insight in found if insight.items]


def insight_row(insight: Insight) -> dict[str, Any]:
    """Lay an insight out as `finish_insights` takes it."""
    return asdict(insight)


def languages(pages: Sequence[Page], _name: str, _format: str | None) -> Insight:
    """The languages of the text, by their share of it."""
    letters: Counter[str] = Counter()
    for page, start, end in _samples(pages):
        language = detect_language(page.text[start:end])
        if language:
            letters[language] += end - start
    total = sum(letters.values())
    items = [
        {"code": code, "share": round(count / total, 3)} for code, count in letters.most_common()
    ]
    return Insight("languages", items, "words")


def _samples(pages: Sequence[Page]) -> Iterator[tuple[Page, int, int]]:
    left = _MOST_CHARACTERS // 3
    for page in pages:
        for start in range(0, len(page.text), _SAMPLE):
            if left <= 0:
                return
            end = min(start + _SAMPLE, len(page.text))
            left -= end - start
            yield page, start, end


def key_phrases(pages: Sequence[Page], _name: str, _format: str | None) -> Insight:
    """What stands between function words (as in RAKE, Rose et al. 2010) often, or of such words."""
    tallies = _phrases(pages)
    scores = _scores(tallies)
    best = sorted(tallies.values(), key=lambda tally: (-scores[tally.text.casefold()], tally.start))
    chosen: list[_Tally] = []
    for tally in best:
        folded = tally.text.casefold()
        if all(folded not in c.text.casefold() and c.text.casefold() not in folded for c in chosen):
            chosen.append(tally)
        if len(chosen) == _MOST_PHRASES:
            break
    items = [
        _placed(tally) | {"score": round(scores[tally.text.casefold()], 3), "count": tally.count}
        for tally in chosen
    ]
    return Insight("key_phrases", items, "phrases")


def _placed(tally: _Tally) -> dict[str, Any]:
    return {"text": tally.text, "page": tally.page, "start": tally.start, "end": tally.end}


def _phrases(pages: Sequence[Page]) -> dict[str, _Tally]:
    tallies: dict[str, _Tally] = {}
    for page, text in _beginning(pages):
        for start, end, words in _candidates(text):
            found = " ".join(text[start:end].split())
            tally = tallies.setdefault(
                found.casefold(), _Tally(found, page.number, start, end, words=words)
            )
            tally.count += 1
    # what is always part of a longer one is none of its own
    for folded, tally in list(tallies.items()):
        if len(tally.words) == 1 and _RUN.fullmatch(folded) and tally.count < 2:
            del tallies[folded]
    return tallies


def _beginning(pages: Sequence[Page]) -> Iterator[tuple[Page, str]]:
    left = _MOST_CHARACTERS
    for page in pages:
        if left <= 0:
            return
        yield page, page.text[:left]
        left -= len(page.text)


def _candidates(text: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield (start, end, words): what stands between function words, marks and line ends."""
    run: list[tuple[int, int, str]] = []
    for match in _TOKEN.finditer(text):
        word = match[0].casefold()
        if _RUN.search(word):
            yield from _ended(run)
            run = []
            yield from _substrings(text, match.start(), match.end())
        elif not word[0].isalpha() or len(word) < 2 or word in FUNCTION_WORDS:
            yield from _ended(run)
            run = []
        else:
            run.append((match.start(), match.end(), word))
    yield from _ended(run)


def _ended(run: list[tuple[int, int, str]]) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    if 0 < len(run) <= _LONGEST_PHRASE and (len(run) > 1 or len(run[0][2]) > 3):
        yield run[0][0], run[-1][1], tuple(word for _, _, word in run)
    if len(run) > _LONGEST_PHRASE:
        for one, other in pairwise(run):
            yield one[0], other[1], (one[2], other[2])


def _substrings(text: str, start: int, end: int) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    for match in _RUN.finditer(text, start, end):
        for at in range(match.start(), match.end()):
            for length in _RUN_LENGTHS:
                stop = at + length
                if stop > match.end():
                    break
                if not FUNCTION_CHARACTERS & {*text[at:stop]}:
                    yield at, stop, (text[at:stop],)


def _scores(tallies: dict[str, _Tally]) -> dict[str, float]:
    """More for a phrase that comes again, whose words come again, and that has several."""
    frequency: Counter[str] = Counter()
    for tally in tallies.values():
        for word in tally.words:
            frequency[word] += tally.count
    scores = {}
    for folded, tally in tallies.items():
        if _RUN.fullmatch(folded):
            scores[folded] = (tally.count - 1) * (len(folded) - 1) ** 0.5
        else:
            often = sum(frequency[word] for word in tally.words) / len(tally.words)
            scores[folded] = (0.7 + 0.3 * len(tally.words)) * tally.count**0.75 * often**0.5
    return scores


def summary(pages: Sequence[Page], name: str, file_format: str | None) -> Insight:
    """The sentences that have most of the key phrases' words, in their order."""
    phrases = key_phrases(pages, name, file_format).items
    weights: dict[str, float] = {}
    for phrase in phrases:
        for word in _words(phrase["text"]):
            weights[word] = max(weights.get(word, 0.0), phrase["score"])
    sentences: list[tuple[float, int, dict[str, Any]]] = []
    for page, text in _beginning(pages):
        for match in _SENTENCE.finditer(text):
            shown = " ".join(match[0].split())
            if not _SHORTEST_SENTENCE // (1 + bool(_RUN.search(shown))) <= len(shown):
                continue
            if len(shown) > _LONGEST_SENTENCE:
                continue
            item: dict[str, Any] = {"text": shown, "page": page.number}
            item |= {"start": match.start(), "end": match.end()}
            words = _words(shown)
            worth = sum(weights.get(word, 0.0) for word in set(words)) / (8 + len(words)) ** 0.5
            worth *= 1 + 0.5 / (1 + len(sentences))  # what a text begins with is what it is about
            sentences.append((worth, len(sentences), item))
    best = sorted(sentences, key=lambda sentence: (-sentence[0], sentence[1]))
    seen: set[str] = set()
    chosen: list[tuple[int, dict[str, Any]]] = []
    for worth, place, item in best:
        if worth > 0 and item["text"].casefold() not in seen and len(chosen) < _MOST_SENTENCES:
            seen.add(item["text"].casefold())
            chosen.append((place, item))
    return Insight("summary", [item for _, item in sorted(chosen, key=lambda c: c[0])], "sentences")


def _words(text: str) -> list[str]:
    words = []
    for match in _TOKEN.finditer(text):
        word = match[0].casefold()
        if _RUN.search(word):
            words += [word[i : i + 2] for i in range(len(word) - 1)]
        elif word[0].isalnum() and word not in FUNCTION_WORDS:
            words.append(word)
    return words


def entities(pages: Sequence[Page], _name: str, _format: str | None) -> Insight:
    """Things that have a form of their own; see `narwhal.ingest.entities`."""
    return Insight("entities", find_entities(pages), "patterns")


def category(pages: Sequence[Page], name: str, file_format: str | None) -> Insight:
    """What kind of document it is, by its words and its name, else by its format."""
    text = "\n".join(page.text[:4000] for page in pages[:3])[:8000].casefold()
    scores: Counter[str] = Counter()
    for kind, words in CATEGORIES.items():
        for word in words:
            # a mark of the kind counts more in the title and in the name of the file
            at = text.find(word)
            if at >= 0:
                scores[kind] += 2 if at < 200 else 1
            if word in name.casefold():
                scores[kind] += 2
    if scores:
        (kind, score), *_ = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
        if score >= 2:
            sureness = round(min(1.0, score / 6), 3)
            return Insight("category", [{"text": kind, "score": sureness}], "words")
    kind = _BY_FORMAT.get(file_format or "", "document")
    return Insight("category", [{"text": kind, "score": 0.5}], "format")


_BY_FORMAT = {
    **dict.fromkeys(("pptx", "odp", "ppt"), "presentation"),
    **dict.fromkeys(("xlsx", "ods", "xls", "csv", "tsv"), "spreadsheet"),
    **dict.fromkeys(("eml", "msg"), "mail"),
    **dict.fromkeys(("zip", "tar"), "archive"),
    **dict.fromkeys(("json", "xml"), "data"),
    **dict.fromkeys(("srt", "vtt"), "subtitles"),
    "image": "picture",
    "audio": "recording",
    "video": "film",
    "epub": "book",
    "ics": "calendar",
    "vcf": "contacts",
    "html": "web page",
}
ANALYSTS: tuple[Analyst, ...] = (languages, key_phrases, summary, entities, category)


# Near duplicates ----------------------------------------------------------------------------------

_PLACES, _BAND = 64, 4
_SHINGLE = 9  # letters and digits
_LEAST_SHINGLES = 64
_MOST_LETTERS = 1_000_000


def sketch(pages: Sequence[Page]) -> tuple[list[int] | None, list[int]]:
    """MinHash of the text: 64 numbers of 31 bits, and 16 band hashes; None for too little text.

    Shingles are of letters and digits alone: marks, spaces, case and how a text is cut into pages
    make no difference, and scripts without spaces are as good as others.
    """
    import numpy as np

    text = "".join(page.text for page in pages)[:_MOST_LETTERS].casefold()
    letters = np.array([ord(c) for c in text if c.isalnum()], np.uint64)
    if len(letters) < _LEAST_SHINGLES + _SHINGLE:
        return None, []
    hashes = np.zeros(len(letters) - _SHINGLE + 1, np.uint64)
    for place in range(_SHINGLE):
        hashes = hashes * np.uint64(1_000_003) + letters[place : place + len(hashes)]
    hashes = np.unique(hashes)
    hashes ^= hashes >> np.uint64(29)
    random = np.random.default_rng(20261122)
    factors = random.integers(1, 1 << 62, _PLACES, np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = random.integers(0, 1 << 62, _PLACES, np.uint64)
    places = [
        int((hashes * factor + offset >> np.uint64(33)).min())
        for factor, offset in zip(factors, offsets, strict=True)
    ]
    bands = []
    for first in range(0, _PLACES, _BAND):
        told = f"{first}:{places[first : first + _BAND]}".encode()
        digest = hashlib.blake2b(told, digest_size=8).digest()
        bands.append(int.from_bytes(digest, "big", signed=True))
    return places, bands
