"""How Excel shows a stored number: dates, times and percentages by the cell's format."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from narwhal.ingest.extractors.ooxml import Handler

_BUILT_IN = {
    9: "0%",
    10: "0.00%",
    **dict.fromkeys((14, 15, 16, 17, *range(27, 32), 36, *range(50, 55), 57, 58), "yyyy-mm-dd"),
    **dict.fromkeys((18, 19, 20, 21, 32, 33, 34, 35, 55, 56), "hh:mm:ss"),
    22: "yyyy-mm-dd hh:mm",
    **dict.fromkeys((45, 47), "mm:ss"),
    46: "[h]:mm:ss",
}
# Literal text, colours, conditions, locales and padding: nothing in them says what a number is.
_LITERALS = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?!h+\]|m+\]|s+\])[^\]]*\]', re.IGNORECASE)


@dataclass(frozen=True)
class NumberFormat:
    """What matters of a format: `kind` is number, percent, date, time, moment or duration."""

    kind: str = "number"
    decimals: int | None = None
    from_1904: bool = False


class Formats(Handler):
    """The number format of each cell style, read from the styles part."""

    def __init__(self, *, from_1904: bool = False) -> None:
        self._from_1904 = from_1904
        self._codes: dict[int, str] = {}
        self._styles: list[int] = []
        self._in_cells = False
        self._known: dict[str, NumberFormat] = {}

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Collect format codes and the styles that use them."""
        number = attributes.get("numFmtId", "")
        if name == "numFmt" and number.isdecimal():
            self._codes[int(number)] = attributes.get("formatCode", "")
        elif name == "cellXfs":
            self._in_cells = True
        elif name == "xf" and self._in_cells:
            self._styles.append(int(number) if number.isdecimal() else 0)

    def end(self, name: str) -> None:
        """Leave the cells' styles."""
        if name == "cellXfs":
            self._in_cells = False

    def get(self, style: str) -> NumberFormat:
        """The format of a cell's style attribute; plain numbers for an unknown one."""
        if style not in self._known:
            index = int(style) if style.isdecimal() else -1
            number = self._styles[index] if 0 <= index < len(self._styles) else 0
            code = self._codes.get(number) or _BUILT_IN.get(number, "General")
            self._known[style] = parse_format(code, from_1904=self._from_1904)
        return self._known[style]


def parse_format(code: str, *, from_1904: bool = False) -> NumberFormat:
    """Reduce a format code to what it says about positive numbers."""
    code = _LITERALS.sub("", code.split(";")[0]).lower()
    if "general" in code:
        return NumberFormat()
    if re.search(r"\[[hms]+\]", code):
        return NumberFormat("duration")
    has_time = "h" in code or "s" in code
    has_date = "y" in code or "d" in code or ("m" in code and not has_time)
    if has_date or has_time:
        kind = "moment" if has_date and has_time else "date" if has_date else "time"
        return NumberFormat(kind, from_1904=from_1904)
    if "%" in code:
        return NumberFormat("percent", decimals=_decimals(code))
    return NumberFormat()


def _decimals(code: str) -> int:
    found = re.search(r"\.([0#?]+)", code)
    return len(found[1]) if found else 0


def show_number(value: str, form: NumberFormat) -> str:
    """Show the stored `value`; as it is stored where it is no number or fits no date."""
    try:
        number = float(value)
    except ValueError:
        return value
    if form.kind == "percent":
        return f"{_plain(round(number * 100, form.decimals))}%"
    if form.kind == "number" or number < 0:
        return _plain(number)
    try:
        return _show_time(number, form)
    except (OverflowError, ValueError):
        return _plain(number)


def _plain(number: float) -> str:
    """The shortest decimal with Excel's 15 digits, without an exponent where that is readable."""
    if abs(number) < 1e15 and number == int(number):
        return str(int(number))
    shown = f"{number:.15g}"
    if "e-" in shown and abs(number) >= 1e-9:
        return f"{number:.20f}".rstrip("0")[:24]
    return shown


def _show_time(number: float, form: NumberFormat) -> str:
    if form.kind == "duration":
        minutes, seconds = divmod(round(number * 86_400), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}"
    # Serial 60 is 29 February 1900, which never was: serials before it lie a day later.
    start = datetime(1904, 1, 1) if form.from_1904 else datetime(1899, 12, 30)
    if not form.from_1904 and 0 < number < 60:
        start += timedelta(days=1)
    moment = start + timedelta(seconds=round(number * 86_400))
    if form.kind == "time" or number < 1:
        return _clock(moment)
    if form.kind == "date":
        return moment.date().isoformat()
    return f"{moment.date().isoformat()} {_clock(moment)}"


def _clock(moment: datetime) -> str:
    return moment.strftime("%H:%M:%S" if moment.second else "%H:%M")
