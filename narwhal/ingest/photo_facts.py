"""What a photo says of itself (EXIF), and where it was taken."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from PIL import Image

from narwhal.ingest.text import clean

_EXIF, _GPS = 0x8769, 0x8825
_TEXTS = {0x010F: "make", 0x0110: "model", 0x0131: "software"}
_PHOTO_TEXTS = {0xA434: "lens"}
_NUMBERS = {0x829A: "exposure_s", 0x829D: "f_number", 0x8827: "iso", 0x920A: "focal_length_mm"}
_TAKEN_AT = (0x9003, 0x9004)
_OFFSET = 0x9011

Facts = dict[str, str | float]
Location = tuple[float, float, float | None]


def photo_facts(image: Image.Image) -> tuple[Facts, Location | None]:
    """Read the EXIF of an image; what is damaged or odd is left out."""
    facts: Facts = {}
    with suppress(Exception):  # parsers of EXIF stumble in every way
        exif = image.getexif()
        details = exif.get_ifd(_EXIF)
        for tags, names in ((exif, _TEXTS), (details, _PHOTO_TEXTS)):
            for tag, name in names.items():
                text = _text(tags.get(tag))
                if text:
                    facts[name] = text
        for tag, name in _NUMBERS.items():
            number = _number(details.get(tag))
            if number is not None:
                facts[name] = number
        taken_at = _time(details)
        if taken_at:
            facts["taken_at"] = taken_at
    return facts, _location(image)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return " ".join(clean(value).split())[:200] if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    if isinstance(value, tuple):
        value = value[0] if value else None
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return round(number, 6) if math.isfinite(number) and 0 <= number < 1e9 else None


def _time(details: Any) -> str:
    """`2026-11-22T10:20:30`, with the offset from UTC where the camera knew it."""
    for tag in _TAKEN_AT:
        parts = _text(details.get(tag)).split()
        if len(parts) == 2 and len(parts[0]) == 10 and parts[0][:4].isdigit() and parts[0] > "0001":
            offset = _text(details.get(_OFFSET))
            known = len(offset) == 6 and offset[0] in "+-"
            return f"{parts[0].replace(':', '-')}T{parts[1][:8]}{offset if known else ''}"
    return ""


def _location(image: Image.Image) -> Location | None:
    try:
        tags = image.getexif().get_ifd(_GPS)
        latitude = _degrees(tags.get(2), tags.get(1), "S")
        longitude = _degrees(tags.get(4), tags.get(3), "W")
    except Exception:
        return None
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    altitude = _number(tags.get(6))
    if altitude is not None and tags.get(5) in (1, b"\x01"):  # below the sea
        altitude = -altitude
    return latitude, longitude, altitude


def _degrees(parts: Any, side: Any, negative: str) -> float | None:
    numbers = [_number(part) for part in parts or ()]
    if len(numbers) != 3 or None in numbers:
        return None
    degrees, minutes, seconds = (number or 0.0 for number in numbers)
    value = round(degrees + minutes / 60 + seconds / 3600, 7)
    return -value if _text(side).upper() == negative else value
