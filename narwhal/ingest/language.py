"""Which language a text is in, when it is long enough to tell."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier  # type: ignore[import-untyped]

    from narwhal.ingest.document import Document

# The written languages with an ISO 639-1 code that the model tells apart well. Small neighbours
# of large languages are left out: on short or technical text they win by accident.
_NAMES = (
    "af ar az be bg bn bs ca cs cy da de el en es et eu fa fi fr ga gl gu he hi hr hu hy id is it "
    "ja ka kk km kn ko ky la lo lt lv mk ml mn mr ms mt my ne nl no pa pl ps pt ro ru si sk sl sq "
    "sr sv sw ta te th tl tr uk ur uz vi zh"
)
LANGUAGES = tuple(_NAMES.split())
_SAMPLE = 2_000
_LEAST_CONFIDENCE = 0.6
_LEAST_LETTERS = 20
# A character of these scripts says as much as a word elsewhere.
_DENSE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")
_DENSE_WEIGHT = 4
# The vowel signs of Indic scripts are part of words, too.
_WORDS = re.compile(r"(?:[^\W\d_]|[\u0900-\u0963\u0966-\u0dff])+")


def detect_language(text: str) -> str | None:
    """The language of `text`, ISO 639-1; None for too little text or a doubtful case."""
    # Identifiers, numbers and addresses are in no language.
    words = [word for word in _WORDS.findall(text[:_SAMPLE]) if len(word) > 1 or _DENSE.match(word)]
    joined = " ".join(words)
    letters = sum(map(len, words)) + (_DENSE_WEIGHT - 1) * len(_DENSE.findall(joined))
    if letters < _LEAST_LETTERS:
        return None
    language, confidence = _identifier().classify(joined)
    return language if confidence >= _LEAST_CONFIDENCE else None


class Languages:
    """The languages of a document's parts, with the document's own where a part does not tell."""

    def __init__(self, document: Document) -> None:
        self._document = _of_document(document)

    def of(self, text: str) -> str | None:
        """The language of a part of the document, ISO 639-1."""
        return detect_language(text) or self._document


def _of_document(document: Document) -> str | None:
    """The language of most samples from over the whole document."""
    texts = [page.text for page in document.pages if page.text.strip()]
    if not texts:
        return None
    step = max(1, len(texts) // 10)
    found: dict[str, int] = {}
    for text in islice(texts, 0, None, step):
        for start in range(0, len(text), max(_SAMPLE, len(text) // 5)):
            language = detect_language(text[start : start + _SAMPLE])
            if language:
                found[language] = found.get(language, 0) + 1
    return max(found, key=lambda language: found[language]) if found else None


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    # Imported on first use: the model takes 0.8 s to load and 100 MB.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier
