from __future__ import annotations

import io

import pytest

from narwhal.ingest.detect import MIMES, detect_file
from narwhal.ingest.document import ReadError
from tests.ingest.files import docx, package, paragraph, pdf, pptx, shape, xlsx

EXE = b"MZ\x90\x00" + b"\x00" * 200
ELF = b"\x7fELF\x02\x01\x01" + b"\x00" * 60
MACH = b"\xcf\xfa\xed\xfe" + b"\x00" * 60
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 600
BINARY = bytes(i * i * 7 % 251 for i in range(4000))
MAIL = b"From: a@b.c\nTo: d@e.f\nSubject: x\nDate: Fri, 21 Nov 2025 10:00:00 +0100\n\nbody"


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (pdf(""), "a.pdf", "pdf"),
        (b"junk before\n" + pdf(""), "a.PDF", "pdf"),
        (pdf(""), "really-a-pdf.txt", "pdf"),
        (pdf(""), "no extension", "pdf"),
        (b"see %PDF-1.4 for details", "notes.md", "markdown"),
        (docx(paragraph("x")), "a.docx", "docx"),
        (docx(paragraph("x")), "a.zip", "docx"),
        (xlsx({"S": ""}), "named-wrongly.docx", "xlsx"),
        (pptx(shape("x")), "a.pptx", "pptx"),
        (b"<!DOCTYPE html><p>x", "page.html", "html"),
        (b"<html><body>x", "named-wrongly.pdf", "html"),
        (b"\xef\xbb\xbf  <!-- c --><HTML><p>x", "noname", "html"),
        ("<html><p>ü".encode("utf-16"), "noname", "html"),
        (b"plain words", "named-wrongly.pdf", "text"),
        (b"<p>source", "a.txt", "text"),
        (b"a,b\n1,2\n", "a.csv", "csv"),
        (b"a\tb\n", "a.tsv", "tsv"),
        (b"# x", "README.markdown", "markdown"),
        (MAIL, "a.eml", "eml"),
        (MAIL, "message", "eml"),
        (b"def f():\n    return 1\n", "a.py", "text"),
        (b"#!/bin/sh\necho hello\n", "run.sh", "text"),
        (b"#!/bin/sh\necho hello\n", "notes.txt", "text"),
        (b"a\x00b,1\n2\x00,3\n" + b"x,y\n" * 9, "a.csv", "csv"),
        (b"BMW and other cars", "cars.txt", "text"),
        (b"{\\rtf1 x}", "a.doc", "rtf"),
        (b"{\\rtf1 x}", "a.rtf", "rtf"),
        (b"no such thing", "a.rtf", "text"),
        (b"", "a.txt", "text"),
        (b"", "a.csv", "csv"),
    ],
)
def test_content_decides_and_the_name_breaks_ties(data: bytes, name: str, expected: str) -> None:
    detected = detect_file(io.BytesIO(data), name)
    assert (detected.format, detected.mime) == (expected, MIMES[expected])


def test_the_declared_type_helps_where_the_name_promises_nothing() -> None:
    assert (
        detect_file(io.BytesIO(b"a,b\n1,2\n"), "export", "text/csv; charset=utf-8").format == "csv"
    )
    assert detect_file(io.BytesIO(b"a,b\n1,2\n"), "export.txt", "text/csv").format == "text"
    assert detect_file(io.BytesIO(BINARY), "export", "text/csv").format is None


@pytest.mark.parametrize(
    ("data", "name", "mime"),
    [
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "a.wav", "audio/wav"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "a.avi", "video/x-msvideo"),
        (b"\x00\x00\x00\x18ftypM4A ", "a.mp4", "audio/mp4"),
        (b"\x00\x00\x00\x18ftypisom", "a.m4a", "audio/mp4"),
        (b"\x00\x00\x00\x18ftypisom", "a.mp4", "video/mp4"),
        (b"\x00\x00\x00\x14ftypqt  ", "a.bin", "video/quicktime"),
        (b"OggS\x00\x02", "a.opus", "audio/ogg"),
        (b"ID3\x04\x00", "a", "audio/mpeg"),
        (b"\xff\xfb\x90\x00", "a", "audio/mpeg"),
        (b"\xff\xf1\x50\x80", "a.aac", "audio/aac"),
        (b"fLaC\x00", "a.flac", "audio/flac"),
        (b"FORM\x00\x00\x00\x00AIFF", "a.aif", "audio/aiff"),
        (b"#!AMR\n", "a.amr", "audio/amr"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", "a.webm", "video/webm"),
        (b"\x1aE\xdf\xa3\xa3B\x86\x81\x01B\x82\x88matroska", "a.webm", "video/x-matroska"),
        (BINARY, "broken.mp3", "audio/mpeg"),
    ],
)
def test_recordings_and_films_are_heard(data: bytes, name: str, mime: str) -> None:
    detected = detect_file(io.BytesIO(data), name)
    assert (detected.format, detected.mime) == (mime.partition("/")[0], mime)


@pytest.mark.parametrize(
    ("data", "name", "mime"),
    [
        (package({"a.txt": "x"})[:-9], "a.zip", "application/zip"),
        (OLE, "thumbs.db", "application/x-ole-storage"),
        (BINARY, "a.bin", "application/octet-stream"),
        (BINARY, "noname", "application/octet-stream"),
        (EXE, "setup.exe", "application/vnd.microsoft.portable-executable"),
        (ELF, "tool", "application/x-executable"),
        (b"", "noname", "application/octet-stream"),
    ],
)
def test_what_nothing_reads_has_no_format(data: bytes, name: str, mime: str) -> None:
    detected = detect_file(io.BytesIO(data), name)
    assert (detected.format, detected.mime) == (None, mime)


@pytest.mark.parametrize(
    ("data", "name", "mime"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 99, "a.png", "image/png"),
        (b"\xff\xd8\xff\xe0" + b"\x00" * 99, "photo.pdf", "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "a.webp", "image/webp"),
        (b"\x00\x00\x00\x18ftypheic", "a.heic", "image/heic"),
    ],
)
def test_pictures_are_read_whatever_their_name(data: bytes, name: str, mime: str) -> None:
    detected = detect_file(io.BytesIO(data), name)
    assert (detected.format, detected.mime) == ("image", mime)


@pytest.mark.parametrize(
    "data",
    [EXE, ELF, MACH, b"#!/bin/sh\nrm -rf /\n", b"\xef\xbb\xbf#! /usr/bin/env python\n"],
    ids=["exe", "elf", "mach-o", "script", "script with mark"],
)
@pytest.mark.parametrize("name", ["invoice.pdf", "plan.DOCX", "photo.jpg", "a.tar.xlsx"])
def test_programs_named_like_documents_are_refused(data: bytes, name: str) -> None:
    with pytest.raises(ReadError) as error:
        detect_file(io.BytesIO(data), name)
    assert error.value.code == "magic_mismatch"


def test_java_programs_are_programs_too() -> None:
    jar = package({"META-INF/MANIFEST.MF": "", "Main.class": b"\xca\xfe\xba\xbe"})
    with pytest.raises(ReadError) as error:
        detect_file(io.BytesIO(jar), "plan.docx")
    assert error.value.code == "magic_mismatch"
    assert detect_file(io.BytesIO(jar), "tool.jar").format is None


@pytest.mark.parametrize(
    ("data", "name", "code"),
    [
        (b"", "a.pdf", "corrupt"),
        (b"", "a.docx", "corrupt"),
        (BINARY, "a.pdf", "corrupt"),
        (BINARY, "a.docx", "corrupt"),
        (package({"readme.txt": "hi"}), "a.docx", "corrupt"),
        (docx(paragraph("x" * 999))[:-40], "a.docx", "corrupt"),
        (OLE[:512] + "EncryptedPackage".encode("utf-16-le"), "a.xlsx", "encrypted"),
    ],
    ids=["empty pdf", "empty docx", "junk pdf", "junk docx", "zip", "cut off", "locked"],
)
def test_broken_documents_have_a_code(data: bytes, name: str, code: str) -> None:
    with pytest.raises(ReadError) as error:
        detect_file(io.BytesIO(data), name)
    assert error.value.code == code


def test_an_archive_with_a_huge_directory_is_not_unrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"word/{i}.xml": "" for i in range(100)}
    data = package({"[Content_Types].xml": "", **many})
    assert detect_file(io.BytesIO(data), "a.docx").format == "docx"

    monkeypatch.setattr("narwhal.ingest.detect._MOST_DIRECTORY", 1000)
    assert detect_file(io.BytesIO(data), "a.zip").format is None
    with pytest.raises(ReadError) as error:
        detect_file(io.BytesIO(data), "a.docx")
    assert error.value.code == "corrupt"
