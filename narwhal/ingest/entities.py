"""Things in a text that have a form of their own, checked where the form has a checksum."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any

from narwhal.ingest.document import Page

_MOST = 100  # of a kind
_MONTHS = {
    name: number
    for names in (
        "january february march april may june july august september october november december",
        "jan feb mar apr may jun jul aug sep oct nov dec",
        "januar februar märz april mai juni juli august september oktober november dezember",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre"
        " dicembre",
        "januari februari maart april mei juni juli augustus september oktober november december",
    )
    for number, name in enumerate(names.split(), start=1)
}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_MONEY = "€|\\$|£|¥|₹|₽|元|円|EUR|USD|GBP|CHF|JPY|CNY|INR|SEK|NOK|DKK|PLN|CZK"
_CODES = {
    "€": "EUR",
    "$": "USD",
    "£": "GBP",
    "¥": "JPY",
    "₹": "INR",
    "₽": "RUB",
    "元": "CNY",
    "円": "JPY",
}
_NUMBER = r"\d{1,3}(?:[ .,'\u00a0\u202f]\d{3})+(?:[.,]\d{1,2})?|\d+(?:[.,]\d{1,2})?"
_IBAN_LENGTHS = {
    "AT": 20, "BE": 16, "BG": 22, "CH": 21, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "EE": 20,
    "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GR": 27, "HR": 21, "HU": 28, "IE": 22, "IS": 26,
    "IT": 27, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MT": 31, "NL": 18, "NO": 15, "PL": 28,
    "PT": 25, "RO": 24, "SE": 24, "SI": 19, "SK": 24, "TR": 26, "AE": 23, "SA": 24, "IL": 23,
}  # fmt: skip


def find_entities(pages: Sequence[Page]) -> list[dict[str, Any]]:
    """[{kind, text, value, page, start, end, count}], kinds together, each in the text's order.

    `value` is the normal form: ISO 8601 of dates, digits of numbers, of a card the last four alone.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    counts: dict[str, int] = {}
    for page in pages:
        for kind, start, end, value in _of_page(page.text):
            key = (kind, value)
            if key in found:
                found[key]["count"] += 1
            elif counts.get(kind, 0) < _MOST:
                counts[kind] = counts.get(kind, 0) + 1
                text = value if kind == "card" else page.text[start:end]
                found[key] = {
                    "kind": kind, "text": text, "value": value, "page": page.number,
                    "start": start, "end": end, "count": 1,
                }  # fmt: skip
    order = list(_PATTERNS)
    return sorted(found.values(), key=lambda e: (order.index(e["kind"]), e["page"], e["start"]))


def _of_page(text: str) -> Iterator[tuple[str, int, int, str]]:
    """Yield (kind, start, end, value); a place is one thing only, the kind that is surer."""
    taken: list[tuple[int, int]] = []
    for kind, (pattern, normal) in _PATTERNS.items():
        for match in pattern.finditer(text):
            value = normal(match)
            if value is None or any(s < match.end() and match.start() < e for s, e in taken):
                continue
            taken.append(match.span())
            yield kind, match.start(), match.end(), value


def _iban(match: re.Match[str]) -> str | None:
    """Checked by its country's length and ISO 7064's remainder of 97."""
    value = re.sub(r"\s", "", match[0])
    if len(value) != _IBAN_LENGTHS.get(value[:2], len(value)):
        return None
    digits = "".join(str(int(c, 36)) for c in value[4:] + value[:4])
    return value if int(digits) % 97 == 1 else None


def _card(match: re.Match[str]) -> str | None:
    """Checked by Luhn's sum, and told by its last four digits only."""
    digits = [int(c) for c in match[0] if c.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) < 2:
        return None
    doubled = [d * 2 - 9 * (d > 4) for d in digits[-2::-2]]
    if (sum(doubled) + sum(digits[-1::-2])) % 10:
        return None
    return "•••• " + "".join(map(str, digits[-4:]))


def _phone(match: re.Match[str]) -> str | None:
    digits = "".join(str(int(c)) for c in match[0] if c.isdigit())
    if not 7 <= len(digits) <= 15:
        return None
    return ("+" if match[0].startswith("+") else "") + digits


def _date(match: re.Match[str]) -> str | None:
    parts = match.groupdict()
    try:
        if parts["iso_year"]:
            found = date(int(parts["iso_year"]), int(parts["iso_month"]), int(parts["iso_day"]))
        elif parts["cjk_year"]:
            found = date(int(parts["cjk_year"]), int(parts["cjk_month"]), int(parts["cjk_day"]))
        elif parts["year"]:
            day, month, year = (int(parts[name]) for name in ("first", "second", "year"))
            found = _numeric(day, month, year, is_slashed="/" in match[0])
        else:
            name = (parts["month"] or parts["month2"]).casefold()
            year = int(parts["month_year"] or parts["month_year2"])
            found = date(year, _MONTHS[name], int(parts["day"] or parts["day2"]))
    except ValueError:
        return None
    return found.isoformat() if 1500 <= found.year <= 2200 else None


def _numeric(first: int, second: int, year: int, *, is_slashed: bool) -> date:
    """Day before month with dots; with slashes too, unless only the other order is a date."""
    if is_slashed and first <= 12 < second:
        return date(year, first, second)
    return date(year, second, first)


def _amount(match: re.Match[str]) -> str | None:
    unit = match["before"] or match["after"]
    number = re.sub(r"[ '\u00a0\u202f]", "", match["number"] or match["number2"])
    whole, mark, cents = re.fullmatch(r"(.*?)(?:([.,])(\d{1,2}))?", number).groups()  # type: ignore[union-attr]
    whole = re.sub(r"[.,]", "", whole)
    return f"{_CODES.get(unit, unit)} {whole}" + (f".{cents.ljust(2, '0')}" if mark else "")


_PATTERNS: dict[str, tuple[re.Pattern[str], Callable[[re.Match[str]], str | None]]] = {
    "email": (
        re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}\b"),
        lambda match: match[0].casefold(),
    ),
    "iban": (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _iban),
    "card": (
        re.compile(r"(?<![\d-])(?<![A-Z]{2}\d{2} )[3-6]\d{3}(?:[ -]?\d{2,7}){2,4}(?![\d-])"),
        _card,
    ),
    "date": (
        re.compile(
            r"(?<![\d.])(?:"
            r"(?P<iso_year>\d{4})-(?P<iso_month>\d{2})-(?P<iso_day>\d{2})"
            r"|(?P<cjk_year>\d{4})\s?年\s?(?P<cjk_month>\d{1,2})\s?月\s?(?P<cjk_day>\d{1,2})\s?日"
            r"|(?P<first>\d{1,2})[./](?P<second>\d{1,2})[./](?P<year>\d{4})"
            rf"|(?P<day>\d{{1,2}})(?:\.|st|nd|rd|th)?\s+(?:de\s+)?(?P<month>{_MONTH})\.?,?\s+"
            r"(?:de\s+)?(?P<month_year>\d{4})"
            rf"|(?P<month2>{_MONTH})\.?\s+(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?,?\s+"
            r"(?P<month_year2>\d{4})"
            r")(?!\d)",
            re.IGNORECASE,
        ),
        _date,
    ),
    "amount": (
        re.compile(
            rf"(?<![\w.,])(?:(?P<before>{_MONEY})\s?(?P<number>{_NUMBER})"
            rf"|(?P<number2>{_NUMBER})\s?(?P<after>{_MONEY}))(?!\w)"
        ),
        _amount,
    ),
    "phone": (
        re.compile(
            r"(?<![\w.,/+-])(?:\+\d{1,3}[ .-]?)?(?:\(0?\d{1,5}\)[ .-]?)?"
            r"\d{2,5}(?:[ ./-]\d{1,7}){1,5}"
            r"(?![\w/-]|[.,]\d)"
        ),
        lambda match: _phone(match) if match[0][0] in "+(0" else None,
    ),
}
