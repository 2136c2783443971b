"""Bytes to text: finding the encoding, and what every extracted text is cleaned of."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter

from narwhal.ingest.alphabets import encodings_by_alphabet

# Longest first: UTF-16's mark is the beginning of UTF-32's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
# What tools write for an encoding that is really its superset.
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "tis-620": "cp874",
}
# Windows's numbers of encodings, where Python has no codec of that number.
_CODEPAGES = {
    936: "gb18030",
    1361: "johab",
    10000: "mac_roman",
    20127: "cp1252",
    20866: "koi8_r",
    21866: "koi8_u",
    **{28590 + part: f"iso8859_{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 15)},
    50220: "iso2022_jp",
    51932: "euc_jp",
    51949: "cp949",
    54936: "gb18030",
    65001: "utf-8",
}
# The characters beyond ASCII of Western European text, as bytes of cp1252.
_WESTERN = frozenset(
    "äöüßéèêëàâáåãæçîïíìñôóòõøœúùûÄÖÜÉÈÊËÀÂÁÅÃÆÇÎÏÍÑÔÓÕØŒÚÙÛ€£§©®°·«»\u2013\u2014\u2018\u2019\u201c\u201d\u201e\u2026\xa0".encode(
        "cp1252"
    )
)
_FEW = 8  # strange bytes: too few for statistics
_MANY = 24
_LINE = 300  # characters
_SAMPLE = 64 * 1024
_FEW_LETTERS = 16
_LATIN_WORD = re.compile("[A-Za-z\u00c0-\u024f]{3,}")
_VOWEL = re.compile("[AEIOUYaeiouy\u00c0-\u024f]")
_ESCAPES_2022 = re.compile(rb"\x1b\$[@B]|\x1b\([BJI]|\x1b\$\([CD]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def clean(text: str) -> str:
    r"""Make a text storable and comparable, and change nothing else.

    NUL and lone surrogates go (Postgres stores neither), line ends become "\n", and the
    characters are composed (NFC), so that equal words are equal strings.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _UNSTORABLE.sub("", text)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_illegible(text: str) -> bool:
    """Whether a page's text says next to nothing, or is noise, as fonts without a mapping give.

    Noise is private and replacement characters, or Latin words most of which have no vowel.
    """
    letters = sum(map(str.isalnum, text))
    if letters < _FEW_LETTERS:
        return True
    if sum(map(_is_noise, text)) > 0.2 * letters:
        return True
    words = _LATIN_WORD.findall(text)
    if len(words) < _FEW_LETTERS or sum(map(len, words)) < 0.5 * letters:
        return False
    return sum(1 for word in words if _VOWEL.search(word)) < 0.6 * len(words)


def _is_noise(character: str) -> bool:
    return character == "\ufffd" or (
        unicodedata.category(character) in ("Co", "Cn", "Cc") and (character not in "\n\t\f")
    )


def join_surrogates(text: str) -> str:
    """Join the halves in which formats of 16 bits write a character; single ones become U+FFFD."""
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", errors="replace")


def decode(data: bytes, declared: str | None = None) -> tuple[str, str]:
    """Decode `data` in whatever encoding it is; returns the text and the encoding's name.

    A byte order mark is believed first, then valid UTF-8, then UTF-16 or 32 without a mark, then
    `declared` (a header's or a page's own word), then the statistics of the letters. Bytes that
    the encoding does not know become U+FFFD: part of a text is more use than none.
    """
    charset = find_charset(data, declared)
    for mark, name in _MARKS:
        if name == charset and data.startswith(mark):
            data = data[len(mark) :]
            break
    return data.decode(charset, errors="replace"), charset


def codec_of(codepage: int) -> str:
    """The Python codec of one of Windows's codepages; Western European for an unknown one."""
    return _codec(_CODEPAGES.get(codepage, f"cp{codepage}")) or "cp1252"


def find_charset(data: bytes, declared: str | None = None) -> str:
    """Name the encoding of `data`, as a Python codec; see `decode` for the order of trust."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    sample = data[:_SAMPLE]
    if _ESCAPES_2022.search(sample):
        for name in ("iso2022_jp_2", "iso2022_kr"):
            if _decodes(data, name):
                return name
    utf8 = _is_utf8(data)
    # Even Russian in UTF-16 is valid UTF-8, by accident, but then half of it is control bytes.
    if not utf8 or sum(sample.count(byte) for byte in range(32)) * 4 > len(sample):
        wide = _wide(sample, is_certain=utf8)
        if wide:
            return wide
    if utf8:
        return "utf-8"
    named = _codec(declared)
    if named and not named.startswith("utf") and _decodes(data, named):
        return named
    return _guess(_tell_tale(data))


def _guess(sample: bytes) -> str:
    """The encoding by the statistics of the letters; the commonest one where there are too few."""
    strange = [byte for byte in sample if byte >= 0x80]
    # In Latin letters, most of a text is ASCII.
    likely = encodings_by_alphabet(sample) if len(strange) * 2 < len(sample) else []
    is_western = len(strange) < _FEW and all(byte in _WESTERN for byte in strange)
    if is_western and (not likely or likely[0] == "cp1252"):
        return "cp1252"
    if len(likely) == 1:
        return likely[0]
    # Imported late: it is large, and most texts are UTF-8.
    import chardet

    # The encodings of old Macs and of DOS are rare by now: a short text is in none of them.
    eras = chardet.EncodingEra.ALL
    if len(strange) < _MANY:
        eras = chardet.EncodingEra.MODERN_WEB | chardet.EncodingEra.LEGACY_ISO
    guessed = _codec(chardet.detect(sample, encoding_era=eras)["encoding"])
    if likely and guessed not in likely:
        return likely[0]
    return guessed if guessed and not guessed.startswith("utf") else "cp1252"


def _codec(name: str | None) -> str | None:
    """The Python codec of a charset's name, widened to the superset that is really in use."""
    if not name:
        return None
    try:
        found = codecs.lookup(name.strip().strip("\"'"))
    except (LookupError, ValueError):
        return None
    # Codecs such as zlib or rot13 are no character sets.
    if not getattr(found, "_is_text_encoding", True):
        return None
    return _SUPERSETS.get(found.name, found.name)


def _decodes(data: bytes, charset: str) -> bool:
    try:
        data.decode(charset)
    except (UnicodeDecodeError, LookupError):
        return False
    return True


def _is_utf8(data: bytes) -> bool:
    """Whether `data` is UTF-8, allowing for a few broken places in a long text."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", errors="replace")
        wrong = text.count("\ufffd")
        right = sum(1 for character in text[:_SAMPLE] if character > "\x7f") - wrong
        return right > 20 * wrong
    return True


def _wide(sample: bytes, *, is_certain: bool) -> str | None:
    """Recognise UTF-16 and UTF-32 without a mark by where the small bytes stand."""
    sample = sample[: len(sample) // 4 * 4]
    if len(sample) < 4:
        return None
    rare = sum(sample.count(byte) for byte in (0, 1, 2))
    # Text in any other encoding holds next to no control bytes; even Chinese in UTF-16 has them,
    # as half of its spaces, line ends and full stops.
    if rare * 200 < len(sample) and not is_certain:
        return None
    candidates = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
    best, name = max((_plausible(sample, name), name) for name in candidates)
    return name if best > 0 else None


def _plausible(sample: bytes, charset: str) -> float:
    """How much `sample`, so decoded, looks like writing: 0 for not at all, 2 at most."""
    text = sample.decode(charset, errors="replace")
    telling = sum(1 for character in text if _is_telling(character)) / len(text)
    usual = telling + sum(
        1
        for character in text
        if ("\xa0" <= character <= "\u2dff" and not "\u2000" <= character <= "\u2007")
        or "\u3400" <= character <= "\u9fff"
        or "\uac00" <= character <= "\ud7a3"
        or "\ufb50" <= character <= "\ufdff"
        or "\U00010000" <= character <= "\U0002ffff"
    ) / len(text)
    # A line without any of those is in letters of one alphabet, as it is not with bytes swapped.
    if telling == 0 and len(text) < _LINE and _is_of_one_alphabet(text):
        return usual
    # With its bytes swapped, Latin text is all Chinese, and Chinese stays so: what tells is how
    # many spaces, line ends and marks of punctuation there are.
    return usual + telling if usual > 0.9 and telling > 0.01 else 0


def _is_of_one_alphabet(text: str) -> bool:
    blocks = Counter(
        ord(character) >> 7
        for character in text
        if character >= "\u0370" and unicodedata.category(character)[0] in "LM"
    )
    return bool(blocks) and blocks.most_common(1)[0][1] > 0.9 * len(text)


def _is_telling(character: str) -> bool:
    return (
        " " <= character <= "~"
        or character in "\t\n\r"
        or "\u3000" <= character <= "\u30ff"
        or "\uff00" <= character <= "\uff65"
    )


def _tell_tale(data: bytes) -> bytes:
    """A sample for the statistics that holds what is not ASCII, wherever in the file it begins."""
    first = re.search(rb"[\x80-\xff]", data)
    start = max(0, first.start() - _SAMPLE // 4) if first else 0
    return data[start : start + _SAMPLE]
