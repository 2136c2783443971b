"""OCR in languages that were asked for: by Tesseract where the system has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from narwhal.ingest import ocr, tesseract
from narwhal.ingest.limits import read_pictures_in_sandbox
from tests.database import Database
from tests.ingest.test_ocr import LIMITS, LINES, drawn, saved, words

needs_english = pytest.mark.skipif(
    "eng" not in tesseract.languages(), reason="Tesseract is not installed"
)


@needs_english
@pytest.mark.parametrize("turns", [0, 1])
def test_tesseract_reads_in_the_sandbox_whichever_way_a_picture_lies(
    tmp_path: Path, turns: int
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(saved(drawn(LINES).rotate(90 * turns, expand=True), "PNG"))
    (page,) = read_pictures_in_sandbox(path, path.name, None, [1], LIMITS, (), ["eng"])
    assert words(page.text) == words(" ".join(LINES))
    assert len(page.lines) == 3
    left, top, right, bottom = page.lines[0].box
    long, wide = (bottom - top, right - left) if turns else (right - left, bottom - top)
    assert long > 0.4
    assert wide < 0.2


@needs_english
def test_a_language_that_is_not_installed_is_no_reader() -> None:
    assert "tlh" not in tesseract.languages()
    assert not tesseract.can_read(["tlh"])
    assert not ocr.uses_tesseract(["eng", "tlh"])


def test_without_the_library_the_packaged_models_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tesseract, "languages", frozenset)
    assert tesseract.can_read([])
    assert tesseract.can_read(["deu", "chi_sim"])
    assert not tesseract.can_read(["ara"])
    assert not ocr.uses_tesseract(["deu"])


def test_a_script_that_the_models_do_not_know_goes_to_tesseract(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[str]] = []

    def see(_image: object, languages: list[str]) -> list[tuple[str, object, float]]:
        asked.append(languages)
        return [
            ("\u0627\u0644\u0645\u062f \u0648\u0627\u0644\u062c\u0632\u0631", (0, 0, 1, 0.1), 0.95)
        ]

    monkeypatch.setattr(ocr, "_see", lambda _image: [ocr.Seen("uJl", (0, 0, 1, 0.1), 0.6)])
    monkeypatch.setattr(tesseract, "languages_of", lambda _image: ["ara"])
    monkeypatch.setattr(tesseract, "see", see)
    page = ocr.read_picture(drawn(["x"]), 1, None, None)
    assert page.text == "\u0627\u0644\u0645\u062f \u0648\u0627\u0644\u062c\u0632\u0631"
    assert asked == [["ara"]]
    # Latin is what they know: nothing there is nothing
    monkeypatch.setattr(tesseract, "languages_of", lambda _image: ["eng"])
    assert ocr.read_picture(drawn(["x"]), 1, None, None).text == "uJl"
    assert asked == [["ara"]]
    # and what is read surely is not read again
    sure = [ocr.Seen("Tides follow the moon", (0, 0, 1, 0.1), 0.99)]
    monkeypatch.setattr(ocr, "_see", lambda _image: sure)
    monkeypatch.setattr(tesseract, "languages_of", lambda _image: ["ara"])
    assert ocr.read_picture(drawn(["x"]), 1, None, None).text == "Tides follow the moon"


@pytest.mark.parametrize(("confidence", "is_believed"), [(0.95, True), (0.7, False)])
def test_where_the_script_does_not_tell_only_sure_words_are_believed(
    monkeypatch: pytest.MonkeyPatch, confidence: float, is_believed: bool
) -> None:
    words = "\u0627\u0644\u0645\u062f \u0648\u0627\u0644\u062c\u0632\u0631"
    asked: list[list[str]] = []

    def see(_image: object, languages: list[str]) -> list[tuple[str, object, float]]:
        asked.append(languages)
        return [(words, (0, 0, 1, 0.1), confidence)]

    monkeypatch.setattr(ocr, "_see", lambda _image: [])
    monkeypatch.setattr(tesseract, "languages", lambda: frozenset({"ara", "eng"}))
    monkeypatch.setattr(tesseract, "languages_of", lambda _image: [])
    monkeypatch.setattr(tesseract, "see", see)
    page = ocr.read_picture(drawn(["x"]), 1, None, None)
    assert page.text == (words if is_believed else "")
    assert asked == [["ara"]]


def test_the_database_knows_the_packaged_languages(db: Database) -> None:
    codes = db.all("select code from private.ocr_languages where engine = 'rapidocr'")
    assert set(codes) == tesseract.PACKAGED
