# ruff: noqa: RUF001
"""Insights: found without a model, in any language, each with its place."""

from __future__ import annotations

import random

import pytest

from narwhal.ingest.document import Page
from narwhal.ingest.insights import Insight, analyse, sketch

KELP = (
    "Kelp nursery\n\nThe kelp nursery at Skerrow grows sugar kelp on twine. Every spring our divers"
    " plant the twine on the reef. Sugar kelp needs cold water and a lot of light. Last year storms"
    " tore half of the sugar kelp from the reef, and the kelp nursery had to begin again."
    " Visitors are welcome on Sundays."
)


def page(text: str, number: int = 1) -> Page:
    return Page(number, text)


def found(text: str, name: str = "a.txt", kind: str = "text") -> dict[str, Insight]:
    return {insight.kind: insight for insight in analyse([page(text)], name, kind)}


def entities(text: str) -> list[tuple[str, str]]:
    insight = found(text).get("entities")
    return [(e["kind"], e["value"]) for e in insight.items] if insight else []


def test_every_finding_says_where_it_stands_and_how_it_was_found() -> None:
    pages = [page("Nothing here.", 1), page(KELP + " Write to kelp@example.com.", 2)]
    insights = analyse(pages, "kelp.txt", "text")
    assert {i.kind for i in insights} == {
        "languages", "key_phrases", "summary", "entities", "category",
    }  # fmt: skip
    assert all(insight.method and insight.method_version for insight in insights)
    for insight in insights:
        for item in insight.items:
            if "start" in item:
                there = pages[item["page"] - 1].text[item["start"] : item["end"]]
                assert " ".join(there.split()) == item["text"]


def test_key_phrases_and_summary_tell_what_a_text_is_about() -> None:
    insights = found(KELP)
    phrases = [item["text"].casefold() for item in insights["key_phrases"].items]
    assert "sugar kelp" in phrases[:3]
    assert "kelp nursery" in phrases[:3]
    sentences = [item["text"] for item in insights["summary"].items]
    assert 1 <= len(sentences) <= 3
    assert "Visitors are welcome on Sundays." not in sentences
    starts = [item["start"] for item in insights["summary"].items]
    assert starts == sorted(starts)


@pytest.mark.parametrize(
    ("text", "language", "phrase"),
    [
        (
            "Die Windkraftanlage steht am Deich. Die Windkraftanlage liefert Strom für das Dorf."
            " Im Winter liefert die Windkraftanlage mehr.",
            "de",
            "windkraftanlage",
        ),
        (
            "中华白海豚生活在海湾里。我们每天观察白海豚。白海豚的数量今年增加了，白海豚喜欢温暖的海水。",
            "zh",
            "白海豚",
        ),
        (
            "محطة الطاقة الشمسية في الصحراء. تنتج محطة الطاقة الشمسية الكهرباء للمدينة."
            " تم بناء محطة الطاقة الشمسية العام الماضي.",
            "ar",
            "الطاقة",
        ),
        (
            "Морская станция изучает тюленей. Морская станция стоит на острове."
            " Каждый год морская станция принимает студентов.",
            "ru",
            "морская станция",
        ),
        (
            "カタログの更新について。新しいカタログは来月公開します。カタログは印刷しません。",
            "ja",
            "カタログ",
        ),
        (
            "समुद्री केंद्र द्वीप पर है। समुद्री केंद्र में छात्र आते हैं। समुद्री केंद्र हर साल खुला रहता है।",
            "hi",
            "समुद्री",
        ),
    ],
)
def test_every_language_has_phrases_and_sentences(text: str, language: str, phrase: str) -> None:
    insights = found(text)
    assert insights["languages"].items[0]["code"] == language
    assert any(phrase in item["text"].casefold() for item in insights["key_phrases"].items[:3])
    assert 1 <= len(insights["summary"].items) <= 3
    assert max(len(item["text"]) for item in insights["summary"].items) < len(text)


def test_entities_have_forms_and_checksums() -> None:
    text = (
        "Mail Ana.Ruiz+x@Example.co.uk or call +49 (0)30 901820, today 030 901 820-0. "
        "IBAN DE89 3704 0044 0532 0130 00, not DE89 3704 0044 0532 0130 01. "
        "Card 4111 1111 1111 1111, not 4111 1111 1111 1112. "
        "Due 2026-03-31, 31.03.2026, 3/31/2026, 1 March 2026, 1. März 2026, 2026年3月1日, "
        "not 31.02.2026. Pay €1,234.50 or 1.234,50 EUR or $5 or 300 CHF; version 1.2.3."
    )
    assert entities(text) == [
        ("email", "ana.ruiz+x@example.co.uk"),
        ("iban", "DE89370400440532013000"),
        ("card", "•••• 1111"),
        ("date", "2026-03-31"),
        ("date", "2026-03-01"),
        ("amount", "EUR 1234.50"),
        ("amount", "USD 5"),
        ("amount", "CHF 300"),
        ("phone", "+49030901820"),
        ("phone", "0309018200"),
    ]
    dates = [e for e in found(text)["entities"].items if e["kind"] == "date"]
    assert [e["count"] for e in dates] == [3, 3]


def test_a_card_is_never_repeated_whole() -> None:
    assert "4111 1111" not in str(found("Card: 4111 1111 1111 1111 today")["entities"].items)


@pytest.mark.parametrize(
    ("text", "name", "kind", "category"),
    [
        ("Invoice no. 17\nBill to: Skerrow\nAmount due: 5", "17.pdf", "pdf", "invoice"),
        ("Rechnung\nRechnungsnummer 17", "scan.pdf", "pdf", "invoice"),
        ("合同\n甲方和乙方", "合同.docx", "docx", "contract"),
        ("one two three", "talk.pptx", "pptx", "presentation"),
        ("a, b", "figures.csv", "csv", "spreadsheet"),
        ("The weather was fine.", "a.txt", "text", "document"),
    ],
)
def test_the_kind_of_document_shows_in_its_words(
    text: str, name: str, kind: str, category: str
) -> None:
    (item,) = found(text, name, kind)["category"].items
    assert item["text"] == category


def _alike(one: list[Page], other: list[Page]) -> float:
    (a, _), (b, _) = sketch(one), sketch(other)
    assert a is not None
    assert b is not None
    return sum(x == y for x, y in zip(a, b, strict=True)) / 64


def _words(rng: random.Random, count: int) -> list[str]:
    return ["".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(count)]


def test_sketches_tell_how_much_two_texts_share() -> None:
    words = _words(random.Random(1), 800)
    text = " ".join(words)
    edited = " ".join([*words[:40], "edited", *words[45:]])
    other = " ".join(_words(random.Random(2), 800))
    assert _alike([page(text)], [page(text)]) == 1
    # other pages, marks and case are no difference
    assert _alike([page(text)], [page(text[:2400].upper()), page(text[2400:], 2)]) == 1
    assert _alike([page(text)], [page(edited)]) > 0.85
    assert _alike([page(text)], [page(other)]) < 0.1
    assert set(sketch([page(text)])[1]) & set(sketch([page(edited)])[1])
    assert not set(sketch([page(text)])[1]) & set(sketch([page(other)])[1])
    assert sketch([page("too short")]) == (None, [])


def test_numbers_of_a_sketch_fit_the_database() -> None:
    places, bands = sketch([page(KELP)])
    assert places is not None
    assert all(0 <= place < 1 << 31 for place in places)
    assert all(-(1 << 63) <= band < 1 << 63 for band in bands)
    assert (len(places), len(bands)) == (64, 16)


def test_hostile_texts_end_soon() -> None:
    for text in ("a" * 50_000, "1 " * 20_000, "@." * 20_000, "+1 " * 20_000, "\u4e2d" * 20_000):
        analyse([page(text)], "a", "text")
        sketch([page(text)])
