# ruff: noqa: RUF001
from __future__ import annotations

import pytest

from narwhal.ingest.document import Document, Page
from narwhal.ingest.language import Languages, detect_language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The harbour stays closed until the storm has passed.", "en"),
        ("Die Seegraswiesen erholen sich nur sehr langsam von dem Sturm.", "de"),
        ("Le comité a décidé de reporter la séance à l'été prochain.", "fr"),
        ("Комиссия приняла решение отложить заседание.", "ru"),
        ("白海豚观察记录：湾口出现", "zh"),
        ("東京の会議は延期されました", "ja"),
        ("위원회는 회의를 연기했습니다", "ko"),
        ("قررت اللجنة تأجيل الاجتماع إلى العام المقبل.", "ar"),
    ],
)
def test_a_sentence_is_enough(text: str, language: str) -> None:
    assert detect_language(text) == language


@pytest.mark.parametrize(
    "text",
    ["", "ok", "Total 100.00 EUR", "4711 0815 2025-12-01 17:00", "a1b2c3 d4e5f6 x y z", "漢字"],
)
def test_too_little_text_has_no_language(text: str) -> None:
    assert detect_language(text) is None


def test_a_part_that_does_not_tell_has_the_language_of_its_document() -> None:
    german = "Die Seegraswiesen erholen sich nur sehr langsam von dem schweren Sturm. " * 3
    french = "Le comité a décidé de reporter la séance à l'été prochain."
    languages = Languages(
        Document((Page(1, german), Page(2, german), Page(3, "17,50")), paged=True)
    )

    assert languages.of("17,50 EUR") == "de"
    assert languages.of(french) == "fr"
    assert Languages(Document((Page(1, "17,50"),), paged=True)).of("17,50") is None
    assert Languages(Document((), paged=True)).of("") is None
