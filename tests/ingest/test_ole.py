# ruff: noqa: RUF001
"""The files of older Office programs and of Outlook."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from narwhal.ingest.detect import detect_file
from narwhal.ingest.document import ReadError
from narwhal.ingest.limits import Limits, read_in_sandbox
from tests.ingest.conftest import Read
from tests.ingest.files import docx, ole, paragraph

MAIL = (
    b"From: Per <per@x.test>\nTo: a@b.test\nSubject: Inner\nDate: x\n\nWords of the inner mail.\n"
)


def wide(text: str) -> bytes:
    return text.encode("utf-16-le")


def properties(skip: int, values: dict[int, int]) -> bytes:
    rows = (struct.pack("<IIQ", tag, 6, value) for tag, value in values.items())
    return b"\0" * skip + b"".join(rows)


def message(subject: str, body: str, skip: int = 32, folder: str = "") -> dict[str, bytes]:
    sent = (1_760_000_000 + 11_644_473_600) * 10_000_000
    return {
        f"{folder}__properties_version1.0": properties(skip, {0x00390040: sent}),
        f"{folder}__substg1.0_0037001F": wide(subject),
        f"{folder}__substg1.0_1000001F": wide(body),
        f"{folder}__substg1.0_0C1A001F": wide("Ida Berg"),
        f"{folder}__substg1.0_5D01001F": wide("ida@x.test"),
    }


def recipient(index: int, kind: int, name: str, address: str) -> dict[str, bytes]:
    folder = f"__recip_version1.0_#{index:08X}/"
    return {
        f"{folder}__properties_version1.0": properties(8, {0x0C150003: kind}),
        f"{folder}__substg1.0_3001001F": wide(name),
        f"{folder}__substg1.0_39FE001F": wide(address),
    }


def attachment(index: int, name: str, data: bytes, mime: str = "") -> dict[str, bytes]:
    folder = f"__attach_version1.0_#{index:08X}/"
    return {
        f"{folder}__properties_version1.0": properties(8, {}),
        f"{folder}__substg1.0_3707001F": wide(name),
        f"{folder}__substg1.0_370E001F": wide(mime),
        f"{folder}__substg1.0_37010102": data,
    }


def test_outlook_mail_is_read_with_its_people_and_attachments(read: Read) -> None:
    inner = "__attach_version1.0_#00000002/__substg1.0_3701000D/"
    data = ole(
        {
            **message("Seal survey", "We dived.\r\nTwice."),
            "__substg1.0_10130102": b"<p>We dived.<p>Twice.<p>Only here: kelp, mussels, crabs.",
            **recipient(0, 1, "Per", "per@x.test"),
            **recipient(1, 2, "kai@x.test", "kai@x.test"),
            **attachment(0, "..\\..\\plan.docx", docx(paragraph("Tide table"))),
            **attachment(1, "in.eml", MAIL, "message/rfc822"),
            "__attach_version1.0_#00000002/__properties_version1.0": properties(8, {}),
            **message("Older", "Long ago.", 24, inner),
            **attachment(3, "broken.docx", b"PK\x03\x04broken"),
        }
    )
    page = read(data, "survey.msg").pages[0]

    assert page.text.startswith(
        "Seal survey\n\nFrom: Ida Berg <ida@x.test>\nTo: Per <per@x.test>\nCc: kai@x.test\n"
        "Date: Thu, 09 Oct 2025 08:53:20 +0000\n\n"
    )
    assert page.text.count("We dived.") == 1
    for words in ("kelp, mussels", "Tide table", "Words of the inner mail", "Long ago."):
        assert words in page.text
    assert [(h.level, h.text) for h in page.headings] == [
        (1, "Seal survey"),
        (2, "plan.docx"),
        (2, "in.eml"),
        (2, "Inner"),
        (2, "Older"),
        (2, "broken.docx"),
    ]


def test_outlook_mail_in_a_codepage_and_in_packed_rtf(read: Read) -> None:
    # "{\rtf1 " is taken from the ring's beginning, the rest stands as it is; then the end.
    text = rb"\ansi\ansicpg1251 \'d2\'fe\'eb\'e5\'ed\'fc}"
    body = b"\x01" + struct.pack(">H", 0 << 4 | 4) + text[:7]
    plain = text[7:]
    while plain:
        body += b"\0" + plain[:8].ljust(8, b" ")
        plain = plain[8:]
    packed = struct.pack("<II4sI", len(body) + 12, len(text) + 6, b"LZFu", 0) + body
    data = ole(
        {
            "__properties_version1.0": properties(32, {0x3FFD0003: 1251}),
            "__substg1.0_0037001E": "Отчёт о тюленях".encode("cp1251"),
            "__substg1.0_10090102": packed,
        }
    )
    assert read(data, "a.msg").pages[0].text == "Отчёт о тюленях\n\nТюлень"


def test_messages_within_messages_end(read: Read) -> None:
    streams = message("level 0", "body 0")
    folder = ""
    for level in range(1, 9):
        folder += "__attach_version1.0_#00000000/"
        streams[f"{folder}__properties_version1.0"] = properties(8, {})
        folder += "__substg1.0_3701000D/"
        streams |= message(f"level {level}", f"body {level}", 24, folder)
    text = read(ole(streams), "a.msg").pages[0].text
    assert "body 4" in text
    assert "body 5" not in text


def word(text: str, *, flags: int = 0, notes: str = "", style_at: int | None = None) -> bytes:
    """A Word 97 file; the paragraph that ends at `style_at` is a second-level heading."""
    main = bytearray(2048)
    struct.pack_into("<HH", main, 0, 0xA5EC, 193)
    struct.pack_into("<H", main, 10, flags | 0x0200)
    struct.pack_into("<2i", main, 0x4C, len(text), len(notes))
    data = wide(text + notes)
    main += data
    clx = struct.pack("<BHB", 1, 1, 0)  # formatting, to be passed over
    plc = struct.pack("<II", 0, len(text) + len(notes)) + struct.pack("<HIH", 0, 2048, 0)
    clx += struct.pack("<BI", 2, len(plc)) + plc
    table = clx
    struct.pack_into("<II", main, 0x1A2, 0, len(clx))
    if style_at is not None:
        end = 2048 + 2 * style_at + 2
        struct.pack_into("<II", main, 0x102, len(clx), 12)
        table += struct.pack("<III", 2048, 2048 + len(data), 3)
        starts = struct.pack("<III", 2048, end, 2048 + len(data))
        page = starts + bytes([250]) + b"\0" * 12 + bytes([240]) + b"\0" * 12
        page = page.ljust(480, b"\0") + b"\x02" + struct.pack("<H", 0)
        page = page.ljust(500, b"\0") + b"\x02" + struct.pack("<H", 2)
        main[1536:2048] = page.ljust(511, b"\0") + b"\x02"
    return ole({"WordDocument": bytes(main), "1Table": table})


def test_word_paragraphs_tables_fields_and_notes(read: Read) -> None:
    text = (
        'Sea 😀 bed\rWe\x1fdived\x02 \x13 HYPERLINK "x" \x14here\x15.\x0bTwice\r'
        "Site\x07Count\x07\x07Cove\x077\x07\x07\x0cafter\x13 PAGE \x15\r"
    )
    page = read(word(text, notes="Since 1931.\r", style_at=10), "a.doc").pages[0]
    assert page.text == (
        "Sea 😀 bed\n\nWedived here.\nTwice\n\nSite\tCount\nCove\t7\n\nafter\n\nSince 1931."
    )
    assert [(h.level, h.text) for h in page.headings] == [(2, "Sea 😀 bed")]


def test_word_file_with_a_lock_or_a_broken_table(read: Read) -> None:
    for data, code in (
        (word("x\r", flags=0x0100), "encrypted"),
        (ole({"WordDocument": b"\xec\xa5\xc1" + b"\0" * 3000, "0Table": b""}), "corrupt"),
        (ole({"WordDocument": word("x\r")[512:2048], "1Table": b"\x01\xff\xff"}), "corrupt"),
        (ole({"WordDocument": b""}), "corrupt"),
    ):
        with pytest.raises(ReadError) as error:
            read(data, "a.doc")
        assert error.value.code == code


def record(kind: int, content: bytes, instance: int = 0, *, holds: bool = False) -> bytes:
    return struct.pack("<HHI", instance << 4 | (15 if holds else 0), kind, len(content)) + content


def texts(kind: int, text: str) -> bytes:
    atom = record(4008, text.encode("latin-1")) if text.isascii() else record(4000, wide(text))
    return record(3999, struct.pack("<I", kind)) + atom


def powerpoint(*, token: int = 0xE391C05F, before: int = 0) -> bytes:
    """Two slides, stored backwards; the first has a title, a text box, notes."""
    persist = struct.Struct("<IIIII")
    shown = [texts(0, "Seal\x0bsurvey"), texts(1, "€ one\rtwo")]
    listed = record(1011, persist.pack(3, 0, 2, 256, 0)) + b"".join(shown)
    listed += record(1011, persist.pack(2, 0, 0, 257, 0)) + texts(1, "second slide")
    notes = record(1011, persist.pack(4, 0, 0, 512, 0))
    document = record(
        1000,
        record(1001, struct.pack("<ii", 5760, 4320) + b"\0" * 32)
        + record(4080, listed, 0, holds=True)
        + record(4080, notes, 2, holds=True),
        holds=True,
    )
    second = record(1006, record(1007, b"\0" * 24), holds=True)
    box = record(0xF00D, texts(4, "In a box"))
    drawing = record(1036, record(0xF002, record(0xF004, box, holds=True), holds=True), holds=True)
    reference = record(3998, struct.pack("<I", 0))
    atom = record(1007, b"\0" * 16 + struct.pack("<II", 512, 0))
    first = record(1006, atom + drawing + record(0xF00D, reference), holds=True)
    said = record(1008, record(0xF00D, texts(2, "Say hello")), holds=True)
    stream, places = b"", []
    for part in (document, second, first, said):
        places.append(len(stream))
        stream += part
    directory = len(stream)
    stream += record(6002, struct.pack("<I4I", 4 << 20 | 1, *places))
    edit = len(stream)
    stream += record(4085, struct.pack("<7I", 0, 0, before or 0, directory, 1, 5, 0))
    if before:  # an edit that says it follows itself
        stream = stream[:edit] + record(4085, struct.pack("<7I", 0, 0, edit, directory, 1, 5, 0))
    user = record(4086, struct.pack("<III", 20, token, edit) + b"\0" * 12)
    return ole({"PowerPoint Document": stream, "Current User": user})


def test_slides_come_in_the_order_of_the_list_title_first_notes_last(read: Read) -> None:
    document = read(powerpoint(), "a.ppt")
    first, second = document.pages
    assert document.paged
    assert first.text == "Seal survey\n\n€ one\ntwo\n\nIn a box\n\nSay hello"
    assert (first.width, first.height) == (720, 540)
    assert [h.text for h in first.headings] == ["Seal survey"]
    assert (second.text, [h.text for h in second.headings]) == ("second slide", [""])


def test_hostile_presentations_end(read: Read) -> None:
    assert len(read(powerpoint(before=1), "a.ppt").pages) == 2
    with pytest.raises(ReadError) as error:
        read(powerpoint(token=0xF3D1C4DF), "a.ppt")
    assert error.value.code == "encrypted"

    deep = b""
    for _ in range(5_000):
        deep = record(1036, deep, holds=True)
    user = record(4086, struct.pack("<III", 20, 0, len(deep)) + b"\0" * 12)
    with pytest.raises(ReadError) as error:
        read(ole({"PowerPoint Document": deep, "Current User": user}), "a.ppt")
    assert error.value.code == "corrupt"


def biff(kind: int, content: bytes) -> bytes:
    return struct.pack("<HH", kind, len(content)) + content


def excel(cells: bytes, *, locked: bool = False) -> bytes:
    """A workbook of one sheet; style 1 shows dates, style 2 percentages."""
    begin = biff(0x809, struct.pack("<HHHHII", 0x600, 5, 0x1000, 1997, 0, 6))
    lock = biff(0x2F, struct.pack("<HHH", 0, 1, 2)) if locked else b""
    font = biff(0x31, struct.pack("<HHHHHBBBBBB", 200, 0, 32767, 400, 0, 0, 0, 0, 0, 1, 0) + b"A")
    styles = b"".join(
        biff(0xE0, struct.pack("<HHH", 0, form, 1) + b"\0" * 14) for form in (0, 14, 9)
    )
    name = "Sites"
    sheet_at = len(begin + lock + font * 5 + styles) + 4 + 8 + len(name) + 4
    book = begin + lock + font * 5 + styles
    book += biff(0x85, struct.pack("<IBBBB", sheet_at, 0, 0, len(name), 0) + name.encode())
    book += biff(0x0A, b"")
    sheet = biff(0x809, struct.pack("<HHHHII", 0x600, 16, 0x1000, 1997, 0, 6))
    return ole({"Workbook": book + sheet + cells + biff(0x0A, b"")})


def label(row: int, column: int, text: str) -> bytes:
    return biff(0x204, struct.pack("<HHHHB", row, column, 0, len(text), 1) + wide(text))


def number(row: int, column: int, style: int, value: float) -> bytes:
    return biff(0x203, struct.pack("<HHHd", row, column, style, value))


def test_sheets_show_values_as_excel_does(read: Read) -> None:
    cells = label(0, 0, "Größe") + label(0, 5, "Dato") + number(65535, 0, 0, 7.0)
    cells += number(65535, 1, 1, 45000.0) + number(65535, 2, 2, 0.25)
    cells += biff(0x205, struct.pack("<HHHBB", 65535, 3, 0, 1, 0))
    cells += biff(0x205, struct.pack("<HHHBB", 65535, 4, 0, 7, 1))
    document = read(excel(cells), "a.xls")
    assert document.paged
    assert document.pages[0].text == "Sites\n\nGröße\tDato\n7\t2023-03-15\t25%\tTRUE\t#DIV/0!"
    assert [h.text for h in document.pages[0].headings] == ["Sites"]


def test_a_locked_workbook_is_refused_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], read: Read
) -> None:
    with pytest.raises(ReadError) as error:
        read(excel(b"", locked=True), "a.xls")
    assert error.value.code == "encrypted"
    path = tmp_path / "book"
    columns = biff(0x7D, struct.pack("<6H", 5, 2, 0, 0, 0, 0))  # of which the library warns
    path.write_bytes(excel(columns + label(0, 0, "x")))
    assert read_in_sandbox(path, "a.xls").pages[0].text == "Sites\n\nx"
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("streams", "name", "code"),
    [
        ({"EncryptedPackage": b"x"}, "a.docx", "encrypted"),
        ({"EncryptedPackage": b"x"}, "noname", "encrypted"),
        ({"Contents": b"x"}, "a.doc", "corrupt"),
        ({"Workbook": b"\0" * 5000}, "a.xls", "corrupt"),
        ({"__properties_version1.0": b"", "a/b/c": b""}, "a.msg", None),
        ({"PowerPoint Document": b"", "Current User": b""}, "a.ppt", "corrupt"),
    ],
)
def test_other_archives_and_broken_ones(
    read: Read, streams: dict[str, bytes], name: str, code: str | None
) -> None:
    data = ole(streams)
    if code is None:
        assert read(data, name).pages[0].text == ""
        return
    with pytest.raises(ReadError) as error:
        read(data, name)
    assert error.value.code == code


def test_a_circle_of_sectors_ends(tmp_path: Path) -> None:
    data = bytearray(excel(label(0, 0, "x" * 200)))
    small_fat = 512 * (1 + struct.unpack_from("<I", data, 60)[0])
    struct.pack_into("<3I", data, small_fat, 1, 2, 0)
    path = tmp_path / "book"
    path.write_bytes(data)
    with pytest.raises(ReadError) as error:
        read_in_sandbox(path, "a.xls", limits=Limits(seconds=5))
    assert error.value.code == "corrupt"


@pytest.mark.parametrize("name", ["a.doc", "a.xls", "a.ppt", "a.msg"])
def test_damage_anywhere_ends_with_text_or_a_code(tmp_path: Path, name: str, read: Read) -> None:
    whole = {
        "a.doc": word("some words\r" * 50, style_at=10),
        "a.xls": excel(label(0, 0, "some words") * 50),
        "a.ppt": powerpoint(),
        "a.msg": ole(message("some words", "more words " * 50)),
    }[name]
    for place in range(0, len(whole), 97):
        for damaged in (whole[:place], whole[:place] + b"\xff\xfe\xff\xff" + whole[place + 4 :]):
            try:
                read(damaged, name, Limits(pages=100))
            except ReadError as error:
                assert error.code in ("corrupt", "unsupported_media", "limit_output"), place


def test_what_is_inside_tells_one_from_another() -> None:
    import io

    assert detect_file(io.BytesIO(word("x\r")), "a.pdf").format == "doc"
    assert detect_file(io.BytesIO(excel(b"")), "a.doc").format == "xls"
    assert detect_file(io.BytesIO(b"\x09\x04\x06\x00" + b"\0" * 20), "a.xls").format == "xls"
    assert detect_file(io.BytesIO(b"<html><table><tr><td>x"), "a.xls").format == "html"
