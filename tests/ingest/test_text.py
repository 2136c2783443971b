# ruff: noqa: RUF001
from __future__ import annotations

import pytest

from narwhal.ingest.text import clean, decode
from tests.ingest.conftest import Read

SENTENCES = {
    "Größere Überschüsse führten schließlich dazu, dass die Käufer weniger zahlten.": "cp1252",
    "Le comité a décidé de reporter la séance à l'été prochain — c'est décidé.": "cp1252",
    "Zażółć gęślą jaźń. Chrząszcz brzmi w trzcinie, ćwierć wieku później.": "cp1250",
    "Комиссия приняла решение отложить заседание до следующего года.": "cp1251",
    "Комиссия решила отложить заседание, потому что погода была плохой.": "koi8-r",
    "Η επιτροπή αποφάσισε να αναβάλει τη συνεδρίαση μέχρι το επόμενο έτος.": "cp1253",
    "Komisyon toplantıyı gelecek yıla ertelemeye karar verdi, çünkü hava kötüydü.": "cp1254",
    "הוועדה החליטה לדחות את הישיבה לשנה הבאה בגלל מזג האוויר הקשה.": "cp1255",
    "قررت اللجنة تأجيل الاجتماع إلى العام المقبل بسبب سوء الأحوال الجوية.": "cp1256",
    "委員会は天候のため、会議を来年まで延期することを決定しました。": "shift_jis",
    "委員会は天候のため、会議を来年まで延期することにしました。": "euc_jp",
    "東京の会議は来年まで延期されました。": "iso2022_jp",
    "由于天气原因，委员会决定将会议推迟到明年。北京是中国的首都。": "gb18030",
    "由於天氣原因，委員會決定將會議推遲到明年。臺北是一座城市。": "big5",
    "위원회는 날씨 때문에 회의를 내년으로 연기하기로 결정했습니다.": "euc_kr",
    "คณะกรรมการได้ตัดสินใจเลื่อนการประชุมไปเป็นปีหน้าเนื่องจากสภาพอากาศ": "tis-620",
}


@pytest.mark.parametrize(("sentence", "charset"), SENTENCES.items(), ids=list(SENTENCES.values()))
def test_legacy_encodings_are_found_by_their_letters(sentence: str, charset: str) -> None:
    assert decode(f"{sentence}\r\n".encode(charset))[0] == f"{sentence}\r\n"


NOTES = {
    "Więcej łodzi już jutro": "cp1250",
    "Książkę położył na półce": "iso8859_2",
    "Příliš žluťoučký kůň": "cp1250",
    "Knížka ležela na polici mnoho let, než si jí někdo všiml.": "iso8859_2",
    "Őszi tűz": "iso8859_2",
    "O carte văzută de toţi": "cp1250",
    "Şeker değil, ışık": "cp1254",
    "Größe und Überschuß": "cp850",
    "Élève à l'école": "cp850",
    "Não são irmãs, são ações": "cp1252",
    "L’œuvre – « déjà vue »": "cp1252",
    "Það er þýðing": "cp1252",
    "Ši žąsis yra čia ir žemė šąla": "cp1257",
    "Tiê\u0301ng Viê\u0323t râ\u0301t hay": "cp1258",
}


@pytest.mark.parametrize(("note", "charset"), NOTES.items(), ids=list(NOTES))
def test_a_short_note_is_told_by_the_alphabet_of_its_language(note: str, charset: str) -> None:
    assert decode(note.encode(charset))[0] == note


@pytest.mark.parametrize("charset", ["utf-16-le", "utf-16-be"])
def test_a_line_of_one_alphabet_needs_no_mark_and_no_spaces(charset: str) -> None:
    line = "คณะกรรมการได้ตัดสินใจเลื่อนการประชุม"
    assert decode(line.encode(charset))[0] == line
    assert decode(b"\x01\x02" * 200)[1] == "utf-8"  # no letters of anything


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("sentence", SENTENCES)
def test_unicode_is_found_by_its_mark(sentence: str, charset: str) -> None:
    assert decode(sentence.encode(charset))[0] == sentence


@pytest.mark.parametrize("charset", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("sentence", [*SENTENCES, "Plain English words, nothing else."])
def test_wide_unicode_needs_no_mark(sentence: str, charset: str) -> None:
    lines = f"{sentence}\n{sentence}\n"
    assert decode(lines.encode(charset))[0] == lines


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "ab",
        "Bush hid the facts",
        "1\t2\t3\n4\t5\t6\n",
        'a,b\n"x\x00y",2\n',
        "\x1b[31mred\x1b[0m",
    ],
)
def test_ascii_is_never_taken_for_anything_wider(text: str) -> None:
    assert decode(text.encode())[0] == text


def test_a_declared_encoding_decides_where_the_letters_do_not() -> None:
    data = "šťastný ž".encode("iso8859-2")
    assert decode(data, "ISO-8859-2")[0] == "šťastný ž"
    assert decode("naïve".encode(), "iso-8859-1")[0] == "naïve"  # valid UTF-8 beats the claim
    assert decode(b"plain", "no-such-charset")[0] == "plain"
    assert decode(b"plain", "rot13")[0] == "plain"  # a codec, but no encoding


@pytest.mark.parametrize("text", ["à la carte", "Müller & Söhne", "Crème brûlée, 5 €"])
def test_a_few_accents_are_western(text: str) -> None:
    assert decode(text.encode("cp1252"))[0] == text


def test_one_broken_byte_does_not_change_the_encoding_of_a_long_text() -> None:
    data = ("Größe und Maß über alles, " * 40).encode() + b"\xff" + b"ende"
    text, charset = decode(data)
    assert charset == "utf-8"
    assert text.count("\ufffd") == 1
    assert text.startswith("Größe und Maß")


def test_cleaning_drops_what_postgres_cannot_store_and_nothing_else() -> None:
    assert clean("a\x00b\ud800c\r\nd\re\tf\x1b[0m") == "abc\nd\ne\tf\x1b[0m"
    assert clean("cafe\u0301") == "café"


def test_markdown_headings_skip_code_and_metadata(read: Read) -> None:
    source = (
        "---\ntitle: x\n# not a heading\n---\n# Survey of *seals* #\n\nText\n\nUnder\nline\n-----\n"
        "```sh\n# a comment\n```\n## [Method](m.md)\n- item\n---\n#hashtag\nTitle\n===\n"
    )
    page = read(source.encode(), "a.md").pages[0]

    assert page.text == source
    assert [(h.level, h.text) for h in page.headings] == [
        (1, "Survey of seals"),
        (2, "line"),
        (2, "Method"),
        (1, "Title"),
    ]
    assert all(h.text[0] in page.text[h.start : h.start + 5] for h in page.headings)


def test_plain_text_has_no_headings_and_keeps_its_spaces(read: Read) -> None:
    page = read(b"# one\n\n    two  three\x00\r\n", "notes.txt").pages[0]
    assert (page.text, page.headings) == ("# one\n\n    two  three\n", ())
    assert read(b"", "empty.txt").pages[0].text == ""


@pytest.mark.parametrize(
    ("data", "name", "lines"),
    [
        (b'a,b\n1,"x, y"\n', "t.csv", ["a\tb", "1\tx, y"]),
        (
            "Größe;Preis\n1,5;2,50\n2,5;3,50\n".encode("cp1252"),
            "t.csv",
            ["Größe\tPreis", "1,5\t2,50", "2,5\t3,50"],
        ),
        (b"sep=|\na|b\n", "t.csv", ["sep=\t", "a\tb"]),
        (b"a\tb\n1\t2\n", "t.tsv", ["a\tb", "1\t2"]),
        (b'a,b\n"open,1\nrest,2\n', "t.csv", ["a\tb", "open,1", "rest,2"]),
        (b"name\n=1+1\n\t=cmd\n", "t.csv", ["name", "=1+1", "\t=cmd"]),
        ("x,y\n寿司,1\n".encode("utf-16"), "t.csv", ["x\ty", "寿司\t1"]),
    ],
    ids=["quotes", "semicolons", "hint", "tabs", "open quote", "formulas", "utf-16"],
)
def test_tables_are_read_cell_by_cell(read: Read, data: bytes, name: str, lines: list[str]) -> None:
    text = read(data, name).pages[0].text
    assert [line.rstrip("\t") for line in text.split("\n")] == [line.rstrip("\t") for line in lines]
