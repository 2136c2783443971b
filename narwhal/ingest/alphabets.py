# ruff: noqa: RUF001
"""Short Latin texts in old encodings, told apart by the alphabets of their languages.

Statistics need more letters than a note or a subject line has. But a wrong encoding seldom gives
letters that all belong to one language: Polish read as Western European has superscripts within its
words, German from DOS has quotation marks there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import combining

# The letters beyond ASCII of each language; below, the encodings that its texts come in, those met
# more often first.
_WESTERN = (
    "äöüß",  # German
    "àâæçéèêëîïôœùûüÿ",  # French
    "áéíñóúü¿¡ªº",  # Spanish
    "àáâãçéêíóôõúüªº",  # Portuguese
    "àèéìíîòóùúªº",  # Italian
    "æøåéèêôòóü",  # Danish, Norwegian
    "åäöéèàü",  # Swedish, Finnish
    "áéëèïíóöüúêç",  # Dutch
    "àçèéíïòóúü·",  # Catalan
)
_CENTRAL = (
    "ąćęłńóśźż",  # Polish
    "áčďéěíňóřšťúůýž",  # Czech
    "áäčďéíĺľňóôŕšťúýž",  # Slovak
    "áéíóöőúüű",  # Hungarian
    "ăâîşţ",  # Romanian
    "čćđšž",  # Croatian, Slovene
)
_BALTIC = ("ąčęėįšųūž", "āčēģīķļņšūž", "äõöüšž")  # Lithuanian, Latvian, Estonian
_ALPHABETS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("cp1252", _WESTERN),
    ("iso8859_15", _WESTERN),
    ("cp1250", _CENTRAL),
    ("iso8859_2", _CENTRAL),
    ("iso8859_16", ("ăâîșț",)),  # Romanian with commas
    ("cp1254", ("çğıöşüâîûİ",)),  # Turkish
    ("cp850", _WESTERN),
    ("cp1252", ("áðéíóúýþæö",)),  # Icelandic
    ("cp1257", _BALTIC),
    ("cp1258", ("ăâđêôơư\u0300\u0301\u0303\u0309\u0323",)),  # Vietnamese
)
_MARKS = frozenset("\xa0«»„“”‚‘’–—…€£§©®°·•¿¡²³½¼×ªº™\x85")
_BETWEEN_LETTERS = frozenset("’·–—\xa0")
# Of the languages of Western Europe only Portuguese has these, followed by no other letters.
_NASAL = re.compile(r"ã[^\Woes\d_]|õ[^\We\d_]", re.IGNORECASE)


def encodings_by_alphabet(data: bytes) -> list[str]:
    """The encodings in which all letters of `data` belong to one language, likelier ones first."""
    found: dict[str, None] = {}
    for encoding, alphabets in _ALPHABETS:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        letters = _letters(text)
        if letters is None or (alphabets is _WESTERN and _NASAL.search(text)):
            continue
        if any(letters <= set(alphabet) for alphabet in alphabets):
            found.setdefault(encoding)
    return list(found)


def _letters(text: str) -> set[str] | None:
    """The letters beyond ASCII, in lower case; None where what stands in words is no letter."""
    found: set[str] = set()
    for before, character, after in _strange(text):
        if character in _MARKS:
            in_word = before.isalpha() and after.isalpha()
            if in_word and character not in _BETWEEN_LETTERS:
                return None
        elif character.isalpha() or combining(character):
            found.add("İ" if character == "İ" else character.lower())
        else:
            return None
    return found


def _strange(text: str) -> Iterator[tuple[str, str, str]]:
    for match in re.finditer(r"[^\x00-\x7f]", text):
        at = match.start()
        yield text[at - 1 : at], match[0], text[at + 1 : at + 2]
