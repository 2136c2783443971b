"""Tesseract as a library, where the system has one: languages that the packaged models lack.

Called through its C interface, so that it runs inside of the reading process, which may start no
program. Without the library, or without a language, there is nothing here and that is no error.
"""

from __future__ import annotations

import csv
import ctypes
import os
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from narwhal.ingest.document import Box, ReadError

_LIBRARIES = ("libtesseract.so.5", "libtesseract.so.4", "libtesseract.5.dylib")
_NAME = re.compile(r"[a-z]{3}(_[a-z]+)?")
_AUTOMATIC, _ORIENTATION = 3, 0  # modes of page segmentation
# Languages of the packaged models, as private.ocr_languages has them.
_PACKAGED = (
    "cat ces chi_sim chi_tra dan deu eng est fin fra hrv hun isl ita jpn lav lit nld nor pol por "
    "ron slk slv spa swe tur"
)
PACKAGED = frozenset(_PACKAGED.split())
_WORD = "5"  # level of a row of its table
# Of each script that it tells, the languages to read it with, as far as they are installed.
_SCRIPTS = {
    "Latin": ("eng", "deu", "fra", "spa"),
    "Cyrillic": ("rus", "ukr", "bul", "srp"),
    "Arabic": ("ara", "fas", "urd"),
    "Greek": ("ell",),
    "Hebrew": ("heb", "yid"),
    "Hangul": ("kor",),
    "Korean": ("kor",),
    "Han": ("chi_sim", "chi_tra"),
    "Japanese": ("jpn",),
    "Devanagari": ("hin", "mar", "nep"),
    "Bengali": ("ben",),
    "Tamil": ("tam",),
    "Telugu": ("tel",),
    "Thai": ("tha",),
    "Georgian": ("kat",),
    "Armenian": ("hye",),
    "Ethiopic": ("amh",),
}


def can_read(wanted: Sequence[str]) -> bool:
    """Whether OCR here reads all of these languages."""
    return set(wanted) <= PACKAGED or set(wanted) <= languages()


@cache
def languages() -> frozenset[str]:
    """The languages that are installed, by Tesseract's codes; none without the library."""
    library = _library()
    if library is None:
        return frozenset()
    handle = library.TessBaseAPICreate()
    try:
        if library.TessBaseAPIInit3(handle, None, b"osd") and library.TessBaseAPIInit3(
            handle, None, b"eng"
        ):
            return frozenset()
        found = library.TessBaseAPIGetAvailableLanguagesAsVector(handle)
        names = []
        at = 0
        while found[at]:
            names.append(found[at].decode("ascii", "replace"))
            at += 1
        library.TessDeleteTextArray(found)
    finally:
        library.TessBaseAPIDelete(handle)
    return frozenset(name for name in names if _NAME.fullmatch(name) and name != "osd")


def see(image: Any, wanted: Sequence[str]) -> list[tuple[str, Box, float]]:
    """The lines on a picture: text, box in 0..1, and confidence in 0..1, in reading order."""
    shades = image.convert("L")
    lines: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in csv.DictReader(
        _table(shades, tuple(wanted)).splitlines(),
        fieldnames=_COLUMNS,
        delimiter="\t",
        quoting=csv.QUOTE_NONE,
    ):
        if row["level"] == _WORD and (row["text"] or "").strip():
            lines.setdefault((row["block"], row["paragraph"], row["line"]), []).append(row)
    return [_line(words, shades.size) for words in lines.values()]


_COLUMNS = (
    "level", "page", "block", "paragraph", "line", "word", "left", "top", "width", "height",
    "confidence", "text",
)  # fmt: skip


def languages_of(image: Any) -> list[str]:
    """The languages to read a picture with, by the script on it; none where it does not tell."""
    library = _library()
    if library is None:
        return []
    handle = _reader(("osd",))
    if handle is None:
        return []
    shades = image.convert("L")
    data = shades.tobytes()
    degrees, sure, sure_of_script = ctypes.c_int(), ctypes.c_float(), ctypes.c_float()
    script = ctypes.c_char_p()
    library.TessBaseAPISetPageSegMode(handle, _ORIENTATION)
    library.TessBaseAPISetImage(handle, data, shades.width, shades.height, 1, shades.width)
    told = library.TessBaseAPIDetectOrientationScript(
        handle,
        ctypes.byref(degrees),
        ctypes.byref(sure),
        ctypes.byref(script),
        ctypes.byref(sure_of_script),
    )
    if not told or not script.value:
        return []
    candidates = _SCRIPTS.get(script.value.decode("ascii", "replace"), ())
    return [name for name in candidates if name in languages()]


def _line(words: list[dict[str, str]], size: tuple[int, int]) -> tuple[str, Box, float]:
    corners = [(int(w["left"]), int(w["top"]), int(w["width"]), int(w["height"])) for w in words]
    box = (
        max(0.0, min(x for x, _, _, _ in corners) / size[0]),
        max(0.0, min(y for _, y, _, _ in corners) / size[1]),
        min(1.0, max(x + width for x, _, width, _ in corners) / size[0]),
        min(1.0, max(y + height for _, y, _, height in corners) / size[1]),
    )
    confidence = sum(float(w["confidence"]) for w in words) / len(words) / 100
    return " ".join(w["text"].strip() for w in words), box, min(max(confidence, 0.0), 1.0)


def _table(shades: Any, wanted: tuple[str, ...]) -> str:
    library, handle = _library(), _reader(wanted)
    if library is None or handle is None:
        raise ReadError("unsupported_media", f"OCR here does not read {', '.join(wanted)}.")
    data = shades.tobytes()
    library.TessBaseAPISetPageSegMode(handle, _AUTOMATIC)
    library.TessBaseAPISetImage(handle, data, shades.width, shades.height, 1, shades.width)
    library.TessBaseAPISetSourceResolution(handle, 200)
    text = library.TessBaseAPIGetTsvText(handle, 0)
    try:
        return ctypes.string_at(text).decode("utf-8", "replace") if text else ""
    finally:
        if text:
            library.TessDeleteText(text)
        library.TessBaseAPIClear(handle)


@cache
def _reader(wanted: tuple[str, ...]) -> Any:
    """A reader of these languages; None where one is not installed."""
    library = _library()
    if library is None:
        return None
    handle = library.TessBaseAPICreate()
    if library.TessBaseAPIInit3(handle, None, "+".join(wanted).encode()):
        library.TessBaseAPIDelete(handle)
        return None
    return handle


@cache
def _library() -> Any:
    os.environ.setdefault("OMP_THREAD_LIMIT", "1")
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        break
    else:
        return None
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "TessBaseAPICreate": (pointer, []),
        "TessBaseAPIDelete": (None, [pointer]),
        "TessBaseAPIClear": (None, [pointer]),
        "TessBaseAPIInit3": (ctypes.c_int, [pointer, text, text]),
        "TessBaseAPIGetAvailableLanguagesAsVector": (ctypes.POINTER(text), [pointer]),
        "TessDeleteTextArray": (None, [ctypes.POINTER(text)]),
        "TessBaseAPISetPageSegMode": (None, [pointer, ctypes.c_int]),
        "TessBaseAPISetSourceResolution": (None, [pointer, ctypes.c_int]),
        "TessBaseAPISetImage": (None, [pointer, text, *[ctypes.c_int] * 4]),
        "TessBaseAPIGetTsvText": (pointer, [pointer, ctypes.c_int]),
        "TessDeleteText": (None, [pointer]),
        "TessBaseAPIDetectOrientationScript": (ctypes.c_int, [pointer, *[pointer] * 4]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
