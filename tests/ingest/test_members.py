"""Taking a mail apart: what its attachments are called, and their bytes."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

import pytest

from narwhal.ingest.document import ReadError
from narwhal.ingest.limits import Limits
from narwhal.ingest.members import safe_name
from narwhal.ingest.unpacking import Unpacked, unpack
from tests.ingest.test_ole import attachment, message, ole, properties

WANTED = {"most_count": 100, "most_bytes": 2**21, "most_total_bytes": 2**22}


def taken(tmp_path: Path, data: bytes, name: str = "a.eml", **wanted: int) -> list[Unpacked]:
    path = tmp_path / "stored"
    path.write_bytes(data)
    return list(unpack(path, name, None, WANTED | wanted, Limits()))


def letter(subject: str = "Tide") -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = subject
    mail["From"] = "a@x.test"
    mail["Date"] = "Fri, 21 Nov 2025 10:00:00 +0100"
    mail.set_content("See attached.")
    return mail


def attach(mail: EmailMessage, data: bytes, name: str | None) -> None:
    mail.add_attachment(data, "application", "pdf", filename=name)


def test_attachments_come_with_their_names_types_and_bytes(tmp_path: Path) -> None:
    mail = letter()
    large = bytes(range(256)) * 8192  # several pieces
    attach(mail, large, "плани/../résumé.pdf")
    attach(mail, b"", "leer.pdf")
    attach(mail, b"%PDF", None)
    mail.add_attachment("words", filename="note.txt")
    inner = letter("Re: a/b")
    attach(inner, b"inner", "x.pdf")
    mail.add_attachment(inner)
    mail.add_attachment(b"logo", "image", "png", cid="<1@x>", filename="logo.png")
    found = taken(tmp_path, mail.as_bytes())
    assert [(m.name, m.mime, len(m.data)) for m in found[:4]] == [
        ("résumé.pdf", "application/pdf", len(large)),
        ("leer.pdf", "application/pdf", 0),
        ("attachment.pdf", "application/pdf", 4),
        ("note.txt", "text/plain", 6),
    ]
    assert found[0].data == large
    (nested,) = found[4:]
    assert (nested.name, nested.mime) == ("Re: a b.eml", "message/rfc822")
    assert [m.data for m in taken(tmp_path, nested.data)] == [b"inner"]


def test_equal_names_stay_apart_and_the_same_each_time(tmp_path: Path) -> None:
    mail = letter()
    for data in (b"one", b"two", b"three"):
        attach(mail, data, "a.pdf" if data != b"two" else "A.pdf")
    found = taken(tmp_path, mail.as_bytes())
    assert [(m.member, m.name) for m in found] == [
        ("a.pdf", "a.pdf"), ("A.pdf/2", "A.pdf"), ("a.pdf/3", "a.pdf"),
    ]  # fmt: skip
    assert taken(tmp_path, mail.as_bytes()) == found


def test_what_is_beyond_a_limit_stays_inside(tmp_path: Path) -> None:
    mail = letter()
    for name, size in (("a.pdf", 10), ("b.pdf", 30), ("c.pdf", 15), ("d.pdf", 5), ("e.pdf", 1)):
        attach(mail, bytes(size), name)
    found = taken(tmp_path, mail.as_bytes(), most_bytes=20, most_total_bytes=20, most_count=4)
    assert [(m.name, m.is_refused) for m in found] == [
        ("a.pdf", False), ("b.pdf", True), ("c.pdf", True), ("d.pdf", False), ("e.pdf", True),
    ]  # fmt: skip


def test_attachments_of_outlook_mail(tmp_path: Path) -> None:
    inner = "__attach_version1.0_#00000001/__substg1.0_3701000D/"
    nested = {inner + name: data for name, data in attachment(0, "deep.txt", b"deep", "").items()}
    data = ole(
        {
            **message("Seal survey", "We dived."),
            **attachment(0, "..\\plan.pdf", b"%PDF-1.4", "application/pdf"),
            "__attach_version1.0_#00000001/__properties_version1.0": properties(8, {}),
            **message("Older", "Long ago.", 24, inner),
            **nested,
        }
    )
    found = taken(tmp_path, data, "a.msg")
    assert [(m.name, m.data) for m in found] == [("plan.pdf", b"%PDF-1.4"), ("deep.txt", b"deep")]


def test_other_files_are_not_taken_apart(tmp_path: Path) -> None:
    with pytest.raises(ReadError) as error:
        taken(tmp_path, b"words", "a.txt")
    assert error.value.code == "unsupported_media"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("a\x00b\u202efdp.exe", "ab fdp.exe"),
        ("..", ""),
        (" \u200b ", ""),
        ("e\u0301.txt", "\u00e9.txt"),
        ("\u00e9" * 200 + ".docx", "\u00e9" * 125 + ".docx"),
        ("no.extension " + "x" * 300, "no.extension " + "x" * 242),
    ],
)
def test_names_are_made_harmless(given: str, name: str) -> None:
    assert safe_name(given) == name
    assert len(name.encode()) <= 255
