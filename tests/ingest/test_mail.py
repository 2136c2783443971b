from __future__ import annotations

from email.message import EmailMessage

from narwhal.ingest.limits import Limits
from tests.ingest.conftest import Read
from tests.ingest.files import docx, paragraph


def mail(subject: str = "Storm warning") -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = "Jörg Hafen <jorg@example.org>"
    message["To"] = "crew@example.org"
    message["Date"] = "Fri, 21 Nov 2025 10:00:00 +0100"
    return message


def read_mail(read: Read, message: EmailMessage | bytes, limits: Limits | None = None) -> str:
    data = message if isinstance(message, bytes) else message.as_bytes()
    return read(data, "a.eml", limits).pages[0].text


def test_the_header_is_decoded_and_the_body_read(read: Read) -> None:
    message = mail("Sturm über Föhr: 暴風")
    message.set_content("Boote bleiben im Hafen.\n", charset="iso-8859-1")
    page = read(message.as_bytes(), "a.eml").pages[0]

    assert page.text.split("\n\n") == [
        "Sturm über Föhr: 暴風",
        "From: Jörg Hafen <jorg@example.org>\nTo: crew@example.org\n"
        "Date: Fri, 21 Nov 2025 10:00:00 +0100",
        "Boote bleiben im Hafen.",
    ]
    assert [(h.level, h.text) for h in page.headings] == [(1, "Sturm über Föhr: 暴風")]


def test_alternatives_that_say_the_same_are_read_once(read: Read) -> None:
    message = mail()
    message.set_content("Stay in the harbour until noon, all of you.")
    message.add_alternative(
        "<p>Stay in the <b>harbour</b> until noon, all of you.</p>", subtype="html"
    )
    assert read_mail(read, message).count("harbour") == 1


def test_alternatives_that_differ_are_both_read(read: Read) -> None:
    message = mail()
    message.set_content("Your mail program cannot show this.")
    message.add_alternative("<p>The ferry leaves at nine.</p>", subtype="html")
    text = read_mail(read, message)
    assert "cannot show" in text
    assert "ferry leaves" in text


def test_attachments_are_named_and_read_where_they_can_be(read: Read) -> None:
    message = mail()
    message.set_content("See attached.")
    message.add_attachment(
        docx(paragraph("Berth plan")), "application", "octet-stream", filename="plan.docx"
    )
    message.add_attachment(
        bytes(i * i * 7 % 251 for i in range(999)),
        "application",
        "octet-stream",
        filename="../x/blob.bin",
    )
    message.add_attachment(b"PK\x03\x04broken", "application", "zip", filename="broken.docx")
    page = read(message.as_bytes(), "a.eml").pages[0]

    assert page.text.endswith("plan.docx\n\nBerth plan\n\nblob.bin\n\nbroken.docx")
    assert [h.text for h in page.headings][1:] == ["plan.docx", "blob.bin", "broken.docx"]


def test_messages_in_messages_are_read_down_to_a_depth(read: Read) -> None:
    message = mail("level 9")
    message.set_content("text 9")
    for level in range(8, -1, -1):
        outer = mail(f"level {level}")
        outer.set_content(f"text {level}")
        outer.add_attachment(message)
        message = outer
    text = read_mail(read, message)
    assert "text 3" in text
    assert "text 9" not in text


def test_malformed_mail_is_read_as_far_as_it_goes(read: Read) -> None:
    raw = (
        b"Subject: =?utf-8?B?!!!?= caf\xe9\r\nFrom: broken@@\r\nDate: never\r\n"
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
        b"--b\r\nContent-Type: text/plain; charset=nope\r\n"
        b'\r\nstill here\r\n--b\r\nContent-Type: text/html; charset="\r\n\r\n<p>and here'
    )
    text = read_mail(read, raw)
    assert "still here" in text
    assert "and here" in text
    assert "café" in text


def test_flowed_lines_are_joined(read: Read) -> None:
    raw = (
        b"Subject: x\r\nContent-Type: text/plain; format=flowed\r\n\r\n"
        b"one sentence \r\nover two lines\r\nnew line\r\n"
    )
    assert read_mail(read, raw).endswith("one sentence over two lines\nnew line")
