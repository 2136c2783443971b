"""Data and other text that is written for programs: found by the words that people see."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from narwhal.ingest.chunking import chunk
from narwhal.ingest.limits import MIB, Limits, read_in_sandbox
from narwhal.ingest.pipeline import page_row
from tests.ingest.conftest import Read

BYTES = base64.b64encode(bytes(range(256)) * 3).decode()


def test_json_is_a_line_a_value_with_its_escapes_undone(read: Read) -> None:
    data = {
        "name": "Größe 😀",
        "place": {"lat": 54.1, "tags": ["harbour", "tide\tpool"], "none": None, "": ""},
        "rows": [[1, 2], [3, 4]],
        "photo": BYTES,
        "said": 'a "b"\\c\nd/e',
    }
    lines = [
        "name: Größe 😀",
        "place:",
        "lat: 54.1",
        "tags: harbour, tide\tpool",
        "none: null",
        "",
        "rows: 1, 2",
        "3, 4",
        "photo:",
        'said: a "b"\\c',
        "d/e",
    ]
    for text in (json.dumps(data), json.dumps(data, ensure_ascii=False, indent=2)):
        found = read(text.encode(), "a.json").pages[0].text
        assert [line.rstrip() for line in found.split("\n")] == lines
    assert read(json.dumps(data).encode("utf-16"), "a.json").pages[0].text == found


def test_lines_of_json_are_paragraphs(read: Read) -> None:
    text = read(b'{"a":1,"b":"x"}\n{"a":2}\n{"cut', "a.ndjson").pages[0].text
    assert text == "a: 1\nb: x\n\na: 2\n\ncut"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"// note\n{key: 'v', /* c */ \"k\": 1,}", "// note\nkey: 'v', /* c */\nk: 1"),
        (b'{"lone": "\\ud83d!", "cut": "\\u00"}', "lone: \ufffd!\ncut: u00"),
        (b'"\\', ""),
        (b"", ""),
        (b"no json at all", "no json at all"),
        (b"[" * 100_000 + b'"deep"', "deep"),
    ],
)
def test_broken_json_keeps_its_words(read: Read, data: bytes, text: str) -> None:
    assert read(data, "a.json").pages[0].text == text


def test_quotes_without_end_cost_no_time(tmp_path: Path) -> None:
    path = tmp_path / "stored"
    path.write_bytes(b'{"a": ' + b'\\"' * MIB)
    assert read_in_sandbox(path, "a.json", limits=Limits(seconds=10)).pages


def test_one_line_of_many_values_stays_whole(read: Read) -> None:
    text = read(json.dumps(list(range(200_000))).encode(), "a.json").pages[0].text
    assert text.startswith("0, 1, 2, ")
    assert text.endswith(", 199999")


XML = (
    """<?xml version="1.0" encoding="{}"?>
<!-- no text --><catalogue xmlns="urn:x" xsi:schemaLocation="urn:x x.xsd">
  <book id="b7" title="Tides"><author>Ida</author><author>Per</author><blank/>
    <abstract>The <emph rend="bold">grey</emph> seal   rests
    here &amp; there.</abstract><![CDATA[<p>As <b>HTML</b></p>]]>
    <cover>"""
    + BYTES
    + """</cover>&lt;p&gt;Größe&lt;/p&gt;</book></catalogue>"""
)


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "utf-16", "cp1252"])
def test_xml_gives_its_words_and_those_of_its_attributes(read: Read, charset: str) -> None:
    page = read(XML.format(charset).encode(charset), "a.xml").pages[0]
    assert page.text.split("\n") == [
        "b7 Tides",
        "Ida",
        "Per",
        "The grey seal rests here & there. As HTML",
        "bold",
        "Größe",
    ]


def test_xml_is_known_by_its_first_line_too(read: Read) -> None:
    assert read(b"<?xml version='1.0'?><a><b>words</b></a>", "noname").pages[0].text == "words"


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (f"<!DOCTYPE x [<!ENTITY l0 'ha'>{LAUGHS}]><x>a &l9; b</x>", "a b"),
        ("<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/hostname'>]><x>a &e; b</x>", "a b"),
        ("<!DOCTYPE x SYSTEM 'http://127.0.0.1:9/x.dtd'><x>a &e; b</x>", "a b"),
        ("<!DOCTYPE x [<!ENTITY % p SYSTEM 'file:///etc/passwd'> %p;]><x>a b</x>", "a b"),
        ("<a>cut <b x='1'>off &amp; on &nope; <c", "cut\noff & on &nope;"),
        ("<a><b>crossed</a></b>", "crossed"),
        ("a < b and c > d", "a < b and c > d"),
        ("not xml", "not xml"),
        ("", ""),
        ("<x>" * 100_000 + "deep" + "</x>" * 100_000, "deep"),
    ],
    ids=["laughs", "file", "dtd", "parameter", "cut", "crossed", "signs", "text", "empty", "deep"],
)
def test_hostile_and_broken_xml_keeps_its_words(read: Read, data: str, text: str) -> None:
    assert " ".join(read(data.encode(), "a.xml").pages[0].text.split()) == " ".join(text.split())


def test_laughs_in_an_attribute_end_within_limits(tmp_path: Path) -> None:
    path = tmp_path / "stored"
    path.write_text(f"<!DOCTYPE x [<!ENTITY l0 'ha'>{LAUGHS}]><x a='&l9;'>words</x>")
    document = read_in_sandbox(path, "a.xml", limits=Limits(seconds=10))
    assert "words" in document.pages[0].text
    assert len(document.pages[0].text) < 2000


def test_subtitles_are_what_is_said(read: Read) -> None:
    srt = (
        b"\xef\xbb\xbf1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>Seals</i> rest\r\nhere.\r\n\r\n\r\n"
    )
    srt += "2\r\n00:00:03,000 --> 00:00:04,000 X1:1\r\n{\\an8}Größe\r\n".encode()
    assert read(srt, "a.srt").pages[0].text == "Seals rest\nhere.\nGröße"

    vtt = (
        b"WEBVTT - title\nKind: captions\n\nNOTE\nnot said\n\nSTYLE\n::cue{}\n\n"
        b"intro\n00:01.000 --> 00:02.000 align:start\n<v Ida>Hello &amp; <c.x>welcome</c>\n- 12 -\n"
    )
    assert read(vtt, "a.vtt").pages[0].text == "Hello & welcome\n- 12 -"
    assert read(b"no times\n\nat all", "a.srt").pages[0].text == "no times\nat all"


def test_subtitles_tell_when_it_is_said(tmp_path: Path) -> None:
    cues = [(1, "00:00:01,500 --> 00:00:02,750", "Seals rest\nhere.")]
    cues += [(2, "01:00:03,000 --> 01:00:04,5 X1:1", "{\\an8}Größe")]
    cues += [(3, "01:00:09,000 --> 01:00:09,000", "no time at all"), (4, "late", "none")]
    (tmp_path / "stored").write_text("\n".join(f"{n}\n{when}\n{text}\n" for n, when, text in cues))
    document = read_in_sandbox(tmp_path / "stored", "a.srt")
    (page,) = document.pages
    assert [
        (page.text[said.start : said.end].strip(), said.start_ms, said.end_ms)
        for said in page.times
    ] == [("Seals rest\nhere.", 1500, 2750), ("Größe", 3_603_000, 3_604_500)]
    assert page_row(page)["layout"]["times"][0] == [0, 16, 1500, 2750]
    pieces = chunk(document, size=18, overlap=0, count_tokens=len, max_tokens=100)
    assert [(piece.content, piece.time_range_ms) for piece in pieces] == [
        ("Seals rest\nhere.", (1500, 2750)),
        ("Größe\nno time at", (3_603_000, 3_604_500)),
        ("all\n4\nlate\nnone", None),
    ]


def test_a_cue_is_no_later_than_what_is_said_at_once(read: Read) -> None:
    vtt = "WEBVTT\n\n00:05.000 --> 00:09.000\nwhale\n\n00:02.000 --> 00:07.000\nsong\n"
    (piece,) = chunk(read(vtt.encode(), "a.vtt"), count_tokens=len, max_tokens=100)
    assert piece.time_range_ms == (2000, 9000)


def test_calendars_and_cards_are_fields_unfolded_and_decoded(read: Read) -> None:
    ics = (
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nBEGIN:VEVENT\r\nUID:1\r\n"
        "DTSTART;TZID=Europe/Oslo:20260101T100000\r\nSUMMARY:Seal\\, sur\r\n vey\r\n"
        'ATTENDEE;ROLE=CHAIR;CN="Ida: B.":mailto:ida@x.test\r\nEND:VEVENT\r\n'
        "BEGIN:VEVENT\r\nDESCRIPTION:one\\ntwo\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    )
    assert read(ics.encode(), "a.ics").pages[0].text == (
        "DTSTART: 20260101T100000\nSUMMARY: Seal, survey\nATTENDEE: Ida: B. mailto:ida@x.test\n\n"
        "DESCRIPTION: one\ntwo"
    )
    vcf = (
        "BEGIN:VCARD\nN;CHARSET=ISO-8859-1;ENCODING=QUOTED-PRINTABLE:M=FCller;=\n J=F6rg\n"
        "item1.TEL;TYPE=HOME:+47 22 33\nADR:;;Quay 4;Oslo\nPHOTO;ENCODING=b:" + BYTES + "\n"
        "NOTE;ENCODING=BASE64:AAAA\nEND:VCARD\n"
    )
    assert read(vcf.encode(), "a.vcf").pages[0].text == (
        "N: Müller, Jörg\nTEL: +47 22 33\nADR: Quay 4, Oslo"
    )
    assert read(b"BEGIN:VCARD\n\x00folded\n:::\n;;;", "a.vcf").pages[0].text == "folded\n:::\n;;;"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.yaml", b"site: Cove\n"),
        ("a.py", b"#!/usr/bin/env python\nsite = 'Cove'\n"),
        ("a.log", b"2026-01-01 Cove \x1b[31mred\x1b[0m\n"),
        ("a.tex", b"\\section{Cove}\n"),
        ("Makefile", b"cove:\n\techo Cove\n"),
        ("a.txt", b"MZ is where Cove begins, " * 9),
        ("a.sql", b""),
    ],
)
def test_source_and_settings_are_text_as_they_are(read: Read, name: str, data: bytes) -> None:
    assert read(data, name).pages[0].text == data.decode()
