"""Documents that are locked with a password: opened by those that were given, in the sandbox."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from msoffcrypto.format.ooxml import OOXMLFile

from narwhal.ingest.document import ReadError
from narwhal.ingest.limits import detect_in_sandbox, read_in_sandbox
from tests.conftest import ROOT
from tests.ingest.files import docx, paragraph, pdf, text_at

PASSWORD = "corréct horse"
SAMPLE = ROOT / "scripts" / "samples" / "diving-handbook.docx"


@pytest.fixture(scope="module")
def locked_docx() -> bytes:
    out = io.BytesIO()
    with SAMPLE.open("rb") as file:
        OOXMLFile(file).encrypt(PASSWORD, out)
    return out.getvalue()


@pytest.fixture(scope="module")
def locked_pdf() -> bytes:
    return pdf(text_at(60, 720, "Tide tables"), user_password="horse")


def stored(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "stored"
    path.write_bytes(data)
    return path


def test_a_password_opens_an_office_document(tmp_path: Path, locked_docx: bytes) -> None:
    path = stored(tmp_path, locked_docx)
    passwords = ["wrong", PASSWORD]
    detected = detect_in_sandbox(path, "a.docx", passwords=passwords)
    assert detected.format == "docx"
    assert detected.mime.endswith("wordprocessingml.document")
    document = read_in_sandbox(path, "a.docx", passwords=passwords)
    assert document == read_in_sandbox(SAMPLE, "a.docx")
    assert len(document.pages[0].text) > 1000


def test_a_password_opens_a_pdf(tmp_path: Path, locked_pdf: bytes) -> None:
    path = stored(tmp_path, locked_pdf)
    assert detect_in_sandbox(path, "a.pdf").format == "pdf"
    document = read_in_sandbox(path, "a.pdf", passwords=["wrong", "horse"])
    assert [page.text for page in document.pages] == ["Tide tables"]


@pytest.mark.parametrize(("kind", "code"), [("docx", "encrypted"), ("pdf", "encrypted_pdf")])
def test_without_the_right_one_it_stays_locked(
    tmp_path: Path, kind: str, code: str, request: pytest.FixtureRequest
) -> None:
    path = stored(tmp_path, request.getfixturevalue(f"locked_{kind}"))
    told = []
    for passwords in ([], ["secret-guess"]):
        with pytest.raises(ReadError) as error:
            read_in_sandbox(path, f"a.{kind}", passwords=passwords)
        assert error.value.code == code
        told.append(error.value.message)
    assert "with a password" in told[0]
    assert "none of the passwords" in told[1]
    assert "secret-guess" not in told[1]


def test_what_is_not_locked_needs_none(tmp_path: Path) -> None:
    path = stored(tmp_path, docx(paragraph("Open")))
    assert read_in_sandbox(path, "a.docx", passwords=["x"]).pages[0].text == "Open"
